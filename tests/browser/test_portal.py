"""The portal as an application's own users see it: in a browser, over the whole platform."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Page, expect

from tests.support.client import Client
from tests.support.receiver import Receiver

PHONE = {"width": 390, "height": 740}

Entering = Callable[..., Awaitable[str]]


@pytest.fixture
async def app(client: Client) -> str:
    """An application, where there are two event types."""
    for name in ("order.paid", "order.refunded"):
        await client.request("PUT", f"/api/v1/event-type/{name}", json={"description": "What happens to orders."})
    return await client.create_application("Shop <b>& Sons</b>")


@pytest.fixture
def entering(client: Client, page: Page, app: str) -> Entering:
    """Opens the link of a fresh token."""

    async def enter(**grant: Any) -> str:
        granted = await client.post(f"/auth/app-portal-access/{app}", grant)
        await page.goto(granted["url"])
        await expect(page.get_by_role("heading", name="Endpoints", level=1)).to_be_visible()
        return str(granted["token"])

    return enter


async def add_endpoint(page: Page, url: str) -> None:
    await page.get_by_role("link", name="Add endpoint").click()
    await page.get_by_label("URL").fill(url)
    await page.get_by_role("button", name="Add", exact=True).click()
    await expect(page.get_by_role("heading", name="Endpoint added")).to_be_visible()


async def test_a_user_adds_tests_and_edits_an_endpoint_and_sees_its_deliveries(
    page: Page, entering: Entering, receiver: Receiver
) -> None:
    await entering()
    await add_endpoint(page, receiver.url("/hooks"))
    await expect(page.locator("#secret")).to_contain_text("whsec_")

    await page.get_by_role("link", name="Go to the endpoint").click()
    await page.get_by_label("Event type").select_option("order.paid")
    await page.get_by_role("button", name="Send example").click()
    await expect(page.get_by_role("status")).to_have_text("A test message is on its way.")
    await receiver.wait_for(1)

    row = page.get_by_role("row").filter(has_text="order.paid")
    await expect(row).to_contain_text("succeeded")
    await row.get_by_role("link").click()
    await expect(page.get_by_role("heading", name="order.paid")).to_be_visible()
    await expect(page.get_by_role("listitem").filter(has_text="200")).to_be_visible()

    await page.go_back()
    await page.get_by_role("link", name="Edit").click()
    await page.get_by_label("Description").fill("Our till")
    await page.get_by_label("order.refunded").check()
    await page.get_by_label("order.paid").check()
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("status")).to_have_text("Saved.")
    await expect(page.get_by_text("Our till")).to_be_visible()
    await expect(page.get_by_text("order.paid, order.refunded")).to_be_visible()


async def test_an_endpoint_is_disabled_and_enabled_again_and_deleted(
    page: Page, entering: Entering, client: Client, app: str, receiver: Receiver
) -> None:
    await client.create_endpoint(app, receiver.url("/hooks"))
    await entering()
    await page.get_by_role("link", name=receiver.url("/hooks")).click()
    await page.get_by_role("button", name="Disable").click()
    await expect(page.get_by_role("status")).to_have_text("Disabled: nothing is sent to it.")
    await page.get_by_role("button", name="Send example").click()
    await expect(page.get_by_role("alert")).to_contain_text("disabled")
    await page.get_by_role("button", name="Enable").click()
    await expect(page.get_by_role("status")).to_have_text("Enabled: messages are sent to it again.")
    await page.get_by_text("Delete…").click()
    await page.get_by_role("button", name="Delete this endpoint").click()
    await expect(page.get_by_role("status")).to_have_text("The endpoint was deleted.")
    assert (await client.get(f"/app/{app}/endpoint"))["data"] == []


async def test_a_failed_delivery_is_sent_again_by_hand(
    page: Page, entering: Entering, client: Client, app: str, receiver: Receiver
) -> None:
    url = receiver.script("/flaky", 400, 200)
    await client.create_endpoint(app, url)
    await client.send(app, "order.paid", {"order": 7})
    await client.settled(app, 1)

    await entering()
    await page.get_by_role("link", name=url).click()
    await page.get_by_role("row").filter(has_text="refused").get_by_role("link").click()
    await expect(page.get_by_label("Payload")).to_have_text('{"order":7}')
    await page.get_by_role("button", name="Send again").click()
    await receiver.wait_for(2)
    await expect(page.get_by_role("listitem").filter(has_text="by hand")).to_contain_text("success")
    await page.get_by_text("All facts about this delivery").click()
    await expect(page.get_by_role("row").filter(has_text="AttemptEnded")).to_have_count(2)


async def test_what_is_to_be_mended_stands_beside_its_field(page: Page, entering: Entering) -> None:
    await entering()
    await page.get_by_role("link", name="Add endpoint").click()
    await page.get_by_label("URL").fill("ftp://example.com/")
    await page.get_by_role("button", name="Add", exact=True).click()
    await expect(page.get_by_label("URL")).to_have_attribute("aria-invalid", "true")
    await expect(page.get_by_label("URL")).to_have_value("ftp://example.com/")
    await expect(page.locator("#url-problem")).to_be_visible()


async def test_the_token_leaves_the_address_and_no_script_can_read_it(
    page: Page, entering: Entering, context: BrowserContext
) -> None:
    token = await entering()
    assert token not in page.url
    [cookie] = await context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/portal")
    assert await page.evaluate("document.cookie") == ""


async def test_signing_out_ends_the_token(page: Page, entering: Entering, client: Client, app: str) -> None:
    token = await entering()
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_role("status")).to_have_text("You are signed out.")
    answer = await client.request("GET", f"/api/v1/app/{app}", headers={"Authorization": f"Bearer {token}"})
    assert answer.status == 401
    await page.goto(client.url + "/portal/endpoints")
    await expect(page.get_by_role("status")).to_contain_text("not signed in")


async def test_a_reader_is_shown_nothing_that_changes_something(
    page: Page, entering: Entering, client: Client, app: str, receiver: Receiver
) -> None:
    await client.post(f"/app/{app}/endpoint", {"url": receiver.url("/hooks")})
    await entering(readOnly=True)
    assert await page.get_by_role("link", name="Add endpoint").count() == 0
    await page.get_by_role("link", name=receiver.url("/hooks")).click()
    await expect(page.get_by_role("heading", name="Deliveries")).to_be_visible()
    assert await page.get_by_role("button", name="Disable").count() == 0


async def test_a_list_that_renews_itself_leaves_the_focus_where_it_is(
    page: Page, entering: Entering, client: Client, app: str, receiver: Receiver
) -> None:
    await client.create_endpoint(app, receiver.url("/hooks"))
    await client.send(app, "order.paid", {})
    await client.settled(app, 1)
    await entering()
    await page.get_by_role("link", name=receiver.url("/hooks")).click()
    first = page.get_by_role("row").filter(has_text="order.paid").get_by_role("link")
    await first.focus()
    await client.send(app, "order.refunded", {})
    await expect(page.get_by_role("row").filter(has_text="order.refunded")).to_be_visible()
    await expect(first).to_be_focused()


@pytest.mark.parametrize("token", ["hlt_unknown", "", "%"], ids=["unknown", "empty", "cut"])
async def test_a_link_that_does_not_open_the_portal_says_so(page: Page, client: Client, token: str) -> None:
    await page.goto(f"{client.url}/portal/#token={token}")
    await expect(page.get_by_role("status")).to_contain_text("link")
    assert "hlt_" not in page.url


async def test_names_are_text_and_never_markup(page: Page, entering: Entering) -> None:
    await entering()
    await expect(page.get_by_role("banner")).to_contain_text("Shop <b>& Sons</b>")


async def test_a_request_from_another_site_changes_nothing(client: Client, entering: Entering) -> None:
    token = await entering()
    headers = {"Cookie": f"hookledger_portal={token}", "Origin": "https://evil.example"}
    answer = await client.request("POST", "/portal/sign-out", data=b"", headers=headers)
    assert answer.status == 403


async def test_the_keyboard_is_enough(page: Page, entering: Entering, receiver: Receiver) -> None:
    await entering()
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Add endpoint")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Add endpoint")).to_be_visible()
    await page.get_by_label("URL").focus()
    await page.keyboard.type(receiver.url("/keys"))
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Endpoint added")).to_be_visible()


async def test_a_narrow_screen_needs_no_sideways_scrolling(
    page: Page, entering: Entering, client: Client, app: str, receiver: Receiver
) -> None:
    await client.post(f"/app/{app}/endpoint", {"url": receiver.url("/" + "long" * 60)})
    await client.post(f"/app/{app}/msg", {"eventType": "order.paid", "payload": {"text": "x" * 500}})
    await receiver.wait_for(1)
    await page.set_viewport_size(PHONE)  # type: ignore[arg-type]  # a TypedDict of its own
    await entering()
    for step in ("/portal/endpoints", "/portal/endpoints/new", "/portal/messages"):
        await page.goto(client.url + step)
        assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], step
    await page.get_by_role("link", name="Endpoints").click()
    await page.get_by_role("list").get_by_role("link").first.click()
    await page.get_by_role("row").get_by_role("link").first.click()
    assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
