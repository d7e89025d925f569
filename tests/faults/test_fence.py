"""The fence: what the registry acknowledged before a message is accepted is in force for that message.

That changes are announced on the broker makes it fast, and nothing more: most of this page runs on a registry whose
announcements reach nobody.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

import pytest

from deploy.stack.isolation import remove_names
from deploy.stack.services import Service
from libs.common.domain.delivery import fold
from libs.common.domain.facts import AttemptStarted
from libs.common.domain.ids import Prefix, encode
from tests.support.broker import Producer, cloud_event, producing
from tests.support.client import Answer, Client
from tests.support.invariants import read_deliveries
from tests.support.platform import Platform
from tests.support.receiver import Receiver
from tests.support.senders import STRIPE_SECRET, stripe_headers

WRITERS = 8
CHANGES = 60


@pytest.fixture
async def producer(platform: Platform) -> AsyncIterator[Producer]:
    async with producing(platform.corner) as connection:
        yield connection


@pytest.fixture(scope="module")
def silent(platform: Platform) -> Iterator[None]:
    """From here on the registry announces its changes where nobody listens."""
    usual = platform.services["registry"]
    elsewhere = f"{platform.corner.amqp_prefix}_elsewhere"
    mute = platform.installation.service(
        "registry", port=usual.port, replica="mute", settings={"AMQP_PREFIX": elsewhere}
    )
    try:
        _exchange(usual, mute)
        platform.services["registry"] = mute
        yield
    finally:
        _exchange(mute, usual)
        platform.services["registry"] = usual
        remove_names(platform.corner.amqp_url, elsewhere)


# An endpoint that was acknowledged receives what is accepted from then on


async def test_new_endpoints_receive_the_messages_that_follow_them(
    platform: Platform, client: Client, producer: Producer, receiver: Receiver
) -> None:
    await all_receive(200, platform, client, producer, receiver)


async def test_1000_of_1000_do_so_when_no_change_is_announced(
    silent: None, platform: Platform, client: Client, producer: Producer, receiver: Receiver
) -> None:
    heard = await producer.listen(producer.names.registry)
    await all_receive(1000, platform, client, producer, receiver)
    assert not heard.messages


async def all_receive(count: int, platform: Platform, client: Client, producer: Producer, receiver: Receiver) -> None:
    """New endpoints by several writers at once, a message right behind each, and a dispatcher that starts meanwhile."""
    apps = [await client.create_application() for _ in range(WRITERS)]
    sources = [(await client.create_source(app, "stripe", STRIPE_SECRET)).id for app in apps]
    numbers = iter(range(count))
    quarter, two_dispatchers = asyncio.Event(), asyncio.Event()

    async def write(app: str, source: str) -> None:
        for number in numbers:
            if number >= count // 2:
                await two_dispatchers.wait()
            event_type = f"fence.n{number}"
            await client.post(f"/app/{app}/endpoint", {"url": receiver.url(f"/{number}"), "filterTypes": [event_type]})
            match number % 3:
                case 0:
                    await client.send(app, event_type, {})
                case 1:
                    assert (await provide(client, source, event_type, number)).status == 202
                case _:
                    await producer.publish_event(cloud_event(app, event_type, {}, id=f"event-{number}"))
            if number == count // 4:
                quarter.set()

    async with asyncio.TaskGroup() as group:
        for app, source in zip(apps, sources, strict=True):
            group.create_task(write(app, source))
        await quarter.wait()
        async with another_dispatcher(platform):
            two_dispatchers.set()
            await receiver.wait_for(count)

    assert sorted(request.path for request in receiver.requests) == sorted(f"/{n}" for n in range(count))
    assert len(await dispatchers_of(platform, apps)) == 2, "both had their share"


async def test_the_registry_is_not_needed_for_what_it_has_acknowledged(
    silent: None, platform: Platform, client: Client, receiver: Receiver
) -> None:
    app = await client.create_application()
    paths = [f"/{number}" for number in range(20)]
    await asyncio.gather(*(client.post(f"/app/{app}/endpoint", {"url": receiver.url(path)}) for path in paths))
    await platform.kill("registry")
    try:
        await client.send(app, "ping", {})
        await receiver.wait_for(len(paths))
    finally:
        await platform.start("registry")
    assert sorted(request.path for request in receiver.requests) == sorted(paths)


# What was changed is from then on as it was changed


async def test_an_endpoint_that_was_disabled_deleted_or_moved_receives_nothing_where_it_was(
    silent: None, platform: Platform, client: Client, receiver: Receiver
) -> None:
    app = await client.create_application()
    numbers = range(CHANGES)

    async def create(number: int) -> str:
        document = {"url": receiver.url(f"/old/{number}"), "filterTypes": ["before", f"after.n{number}"]}
        return str((await client.post(f"/app/{app}/endpoint", document))["id"])

    async def change(number: int, endpoint: str) -> None:
        path = f"/app/{app}/endpoint/{endpoint}"
        match number % 3:
            case 0:
                await client.patch(path, {"disabled": True})
            case 1:
                await client.delete(path)
            case _:
                await client.patch(path, {"url": receiver.url(f"/new/{number}")})
        await client.send(app, f"after.n{number}", {"after": number})

    async with another_dispatcher(platform):
        endpoints = await asyncio.gather(*map(create, numbers))
        await client.create_endpoint(app, receiver.url("/witness"))
        await client.send(app, "before", {})
        await receiver.wait_for(CHANGES + 1)  # so they are known, as they were
        receiver.requests.clear()
        await asyncio.gather(*map(change, numbers, endpoints))
        await receiver.wait_for(CHANGES, "/witness")
        await client.settled(app, CHANGES + 1 + CHANGES + CHANGES // 3)

    elsewhere = [request.path for request in receiver.requests if request.path != "/witness"]
    assert sorted(elsewhere) == sorted(f"/new/{number}" for number in numbers if number % 3 == 2)


async def test_a_source_or_an_application_that_was_deleted_takes_nothing_more(silent: None, client: Client) -> None:
    async def delete_both(number: int) -> None:
        app = await client.create_application()
        source = (await client.create_source(app, "stripe", STRIPE_SECRET)).id
        message = {"eventType": "ping", "payload": {}}
        # So they are known, and nothing has to be looked up any more.
        assert (await provide(client, source, "ping", 2 * number)).status == 202
        assert (await client.request("POST", f"/api/v1/app/{app}/msg", json=message)).status == 202
        await client.delete(f"/app/{app}/source/{source}")
        assert (await provide(client, source, "ping", 2 * number + 1)).status == 404
        await client.delete(f"/app/{app}")
        assert (await client.request("POST", f"/api/v1/app/{app}/msg", json=message)).status == 404

    await asyncio.gather(*map(delete_both, range(20)))


async def provide(client: Client, source: str, event_type: str, number: int) -> Answer:
    """What Stripe sends."""
    body = b'{"id":"evt_%d","type":"%s"}' % (number, event_type.encode())
    return await client.request("POST", f"/in/{source}", data=body, headers=stripe_headers(body, STRIPE_SECRET))


@asynccontextmanager
async def another_dispatcher(platform: Platform) -> AsyncIterator[None]:
    replica = platform.installation.service("dispatcher", replica=secrets.token_hex(2))

    def start() -> None:
        replica.start()
        replica.wait_ready()

    try:
        await asyncio.to_thread(start)
        yield
    finally:
        await asyncio.to_thread(replica.stop)


async def dispatchers_of(platform: Platform, apps: Sequence[str]) -> set[UUID]:
    """The processes that began the attempts of these applications."""
    streams = (await read_deliveries(platform.corner.database_url)).values()
    ours = [stream for stream in streams if encode(Prefix.APPLICATION, fold(stream).app) in apps]
    return {fact.process for stream in ours for fact in stream if isinstance(fact, AttemptStarted)}


def _exchange(old: Service, new: Service) -> None:
    old.stop()
    new.start()
    new.wait_ready()
