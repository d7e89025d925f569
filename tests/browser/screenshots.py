"""Takes the screenshots in docs/portal/ anew: `pytest tests/browser/screenshots.py`. No part of the suite."""

from pathlib import Path

from playwright.async_api import Page

from tests.support.client import Client
from tests.support.receiver import Receiver, Reply, receiving

FOLDER = Path(__file__).parents[2] / "docs" / "portal"
EVENT_TYPES = (
    "invoice.created",
    "invoice.paid",
    "order.cancelled",
    "order.completed",
    "order.refunded",
    "order.shipped",
)
WIDE = {"width": 1000, "height": 700}
NARROW = {"width": 390, "height": 700}
MOVED = Reply(status=503, body=b'{"error": "the database is being moved"}')


async def furnish(client: Client, receiver: Receiver) -> tuple[str, str]:
    """An application with two endpoints and some deliveries; its id, and the first endpoint's."""
    for name in EVENT_TYPES:
        await client.request("PUT", f"/api/v1/event-type/{name}", json={"description": "What happens in a shop."})
    app = await client.create_application("Corner Shop")
    books = receiver.script("/books", then=410)
    await client.create_endpoint(app, books, description="Accounting", eventTypes=["invoice.created", "invoice.paid"])
    warehouse = receiver.script("/warehouse/webhooks", MOVED, MOVED, 200, 200, 200, MOVED, 200, 400)
    endpoint = await client.create_endpoint(app, warehouse, description="Picks and ships orders", retrySchedule=[1, 1])
    for number, name in enumerate(("order.completed", "order.shipped", "order.cancelled", "order.completed"), start=1):
        order = {"order": 1700 + number, "customer": {"name": "Ada", "country": "SE"}, "total": "118.40"}
        await client.send(app, name, order)
        await client.settled(app, number)
    await client.send(app, "invoice.paid", {"invoice": 311})
    await client.settled(app, number + 2)
    return app, endpoint.id


async def test_screenshots(page: Page, client: Client) -> None:
    async with receiving(9000) as receiver:
        app, endpoint = await furnish(client, receiver)
        link = (await client.post(f"/auth/app-portal-access/{app}", {}))["url"]
        FOLDER.mkdir(exist_ok=True)
        await page.set_viewport_size(WIDE)  # type: ignore[arg-type]  # a TypedDict of its own
        await page.goto(link)
        await page.get_by_role("link", name="Add endpoint").wait_for()
        await page.screenshot(path=FOLDER / "endpoints.png")
        await page.goto(f"{client.url}/portal/endpoints/new")
        await page.screenshot(path=FOLDER / "add.png")
        await page.goto(f"{client.url}/portal/endpoints/{endpoint}")
        await page.screenshot(path=FOLDER / "endpoint.png")
        await page.set_viewport_size(NARROW)  # type: ignore[arg-type]  # as above
        await page.screenshot(path=FOLDER / "narrow.png")
        await page.set_viewport_size(WIDE)  # type: ignore[arg-type]  # as above
        await page.get_by_role("row").last.get_by_role("link").click()
        await page.get_by_text("What it answered").first.click()
        await page.screenshot(path=FOLDER / "delivery.png", full_page=True)
