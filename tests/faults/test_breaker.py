"""An endpoint goes down under load: it is left alone but for probes, and gets everything when it is up again."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from deploy.stack.services import Service
from tests.support.client import Client, Registered
from tests.support.patience import eventually
from tests.support.platform import Platform
from tests.support.receiver import Receiver, Reply

SCHEDULE = [1.0] * 60
"""Its longest wait is that between probes."""
DOWN_SECONDS = 4.0
A_SECOND = 20
"""Messages that are published all the while."""


async def test_under_load_two_dispatchers_send_nothing_but_probes_and_lose_nothing(
    platform: Platform, client: Client, receiver: Receiver
) -> None:
    app = await client.create_application()
    endpoint = await client.create_endpoint(app, receiver.url("/"), retrySchedule=SCHEDULE)
    stopping = asyncio.Event()
    async with _replica(platform):
        publishing = asyncio.create_task(_publish(client, app, stopping))
        await receiver.wait_for(10)
        receiver.script("/", then=503)
        await _open(client, app, endpoint)
        await asyncio.sleep(1.5)  # the other has heard of it, and what was under way is over
        before = len(receiver.requests)
        await asyncio.sleep(DOWN_SECONDS)
        probes = len(receiver.requests) - before
        receiver.script("/")
        stopping.set()
        sent = await publishing
        deliveries = await client.settled(app, sent)
    assert 1 <= probes <= DOWN_SECONDS + 1, "one a second, whatever is published"
    assert {delivery["status"] for delivery in deliveries} == {"succeeded"}
    assert len({request.id for request in receiver.requests if request.status == 200}) == sent
    assert (await _circuit(client, app, endpoint)) == {"state": "closed", "since": None, "nextProbe": None}
    assert (await platform.admin("verify")).splitlines()[-1].startswith("ledger: verified")


async def test_when_the_prober_is_killed_another_probes_within_seconds(
    platform: Platform, client: Client, receiver: Receiver
) -> None:
    app = await client.create_application()
    endpoint = await client.create_endpoint(
        app, receiver.script("/", then=503), retrySchedule=SCHEDULE, timeoutMs=30_000
    )
    stopping = asyncio.Event()
    publishing = asyncio.create_task(_publish(client, app, stopping))
    await _open(client, app, endpoint)
    stopping.set()
    sent = await publishing
    receiver.script("/", *[Reply(hang=True)] * 32, then=200)

    async def unanswered() -> int:
        return sum(request.status is None for request in receiver.requests)

    await eventually(unanswered, lambda count: count > 0)
    async with _replica(platform):
        try:
            await asyncio.sleep(1.5)  # the other leaves the endpoint to the prober
            assert await unanswered() == 1
            await platform.kill("dispatcher")
            receiver.script("/")
            deliveries = await client.settled(app, sent, within=15)
        finally:
            await platform.start("dispatcher")
    assert {delivery["status"] for delivery in deliveries} == {"succeeded"}


async def _publish(client: Client, app: str, stopping: asyncio.Event) -> int:
    """Publish until told to stop; how many messages that were."""
    sent = 0
    while not stopping.is_set():
        await client.send(app, "ping", {"n": sent})
        sent += 1
        await asyncio.sleep(1 / A_SECOND)
    return sent


async def _open(client: Client, app: str, endpoint: Registered) -> None:
    await eventually(lambda: _circuit(client, app, endpoint), lambda circuit: circuit["state"] != "closed")


async def _circuit(client: Client, app: str, endpoint: Registered) -> dict[str, str | None]:
    circuit: dict[str, str | None] = (await client.get(f"/app/{app}/endpoint/{endpoint.id}/health"))["circuit"]
    return circuit


@asynccontextmanager
async def _replica(platform: Platform) -> AsyncIterator[Service]:
    """Another dispatcher."""
    replica = platform.installation.service("dispatcher", replica=secrets.token_hex(2))

    def start() -> None:
        replica.start()
        replica.wait_ready()

    await asyncio.to_thread(start)
    try:
        yield replica
    finally:
        await asyncio.to_thread(replica.stop)
