"""A commit whose answer is lost: it has happened, and nobody was told. Nothing may be stranded by it, or done twice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from libs.common.domain.delivery import fold
from libs.common.domain.ids import Prefix, encode
from tests.support.client import Answer, Client
from tests.support.invariants import broken, read_deliveries
from tests.support.network import address, linked, through
from tests.support.patience import eventually
from tests.support.platform import Platform
from tests.support.receiver import Receiver
from tests.support.tampering import LostCommits

MESSAGES = 20
SCHEDULE = [0.1] * 20  # so long that no delivery meets nothing but the failures of all
EVERY = pytest.mark.parametrize("every", [1, 3])


@asynccontextmanager
async def behind_a_link(platform: Platform, name: str) -> AsyncIterator[LostCommits]:
    """The service `name` asks its database over a link that can lose answers."""
    usual = platform.services[name]
    registry = platform.services["registry"] if name == "ingress" else None
    commits = LostCommits()
    url = platform.corner.database_url
    async with linked(*address(url, 5432), tamper=commits.watch) as link:
        replica = platform.installation.service(
            name,
            port=usual.port,
            registry=registry,
            replica="lossy",
            settings={"DATABASE_URL": through(link, url)},
        )

        def exchange() -> None:
            usual.stop()
            replica.start()
            replica.wait_ready()

        def exchange_back() -> None:
            replica.stop(grace_s=5)
            usual.start()
            usual.wait_ready()

        await asyncio.to_thread(exchange)
        try:
            yield commits
        finally:
            commits.arm(every=0)
            await asyncio.to_thread(exchange_back)


@EVERY
async def test_no_delivery_is_stranded_by_what_a_dispatcher_did_not_hear(
    platform: Platform, client: Client, receiver: Receiver, every: int
) -> None:
    app = await client.create_application()
    await client.create_endpoint(app, receiver.script("/", *([500, 200] * MESSAGES)), retrySchedule=SCHEDULE)
    async with behind_a_link(platform, "dispatcher") as commits:
        commits.arm(every=every)
        for number in range(MESSAGES):
            await client.send(app, "ping", {"n": number})
        await commits.loses(3)
        commits.arm(every=0)
        deliveries = await client.settled(app, MESSAGES)
    assert {delivery["status"] for delivery in deliveries} == {"succeeded"}
    streams = await read_deliveries(platform.corner.database_url)
    ours = [stream for stream in streams.values() if encode(Prefix.APPLICATION, fold(stream).app) == app]
    assert list(broken(ours, schedule=len(SCHEDULE))) == []
    assert (await platform.admin("verify")).splitlines()[-1].startswith("ledger: verified")


@EVERY
async def test_no_message_is_lost_or_doubled_by_what_an_ingress_did_not_hear(
    platform: Platform, client: Client, receiver: Receiver, every: int
) -> None:
    app = await client.create_application()
    await client.create_endpoint(app, receiver.url())

    async def post(number: int) -> Answer:
        document = {"eventType": "ping", "payload": {"n": number}}
        return await client.request(
            "POST", f"/api/v1/app/{app}/msg", json=document, headers={"Idempotency-Key": f"{app}-{number}"}
        )

    async with behind_a_link(platform, "ingress") as commits:
        commits.arm(every=every)
        first = [await post(number) for number in range(MESSAGES)]  # one by one: each has a commit of its own
        assert commits.lost
        commits.arm(every=0)
        again = [
            await eventually(lambda number=number: post(number), lambda answer: answer.status < 300)  # type: ignore[misc]
            for number in range(MESSAGES)
        ]
    assert {answer.status for answer in first} <= {202, 503}
    for before, after in zip(first, again, strict=True):
        assert before.status == 503 or before.json["id"] == after.json["id"]
    await client.settled(app, MESSAGES)
    assert sorted(request.body for request in receiver.requests) == sorted(b'{"n":%d}' % n for n in range(MESSAGES))


@EVERY
async def test_no_change_is_doubled_by_what_a_registry_did_not_hear(
    platform: Platform, client: Client, receiver: Receiver, every: int
) -> None:
    app = await client.create_application()

    async def create(number: int) -> Answer:
        document = {"url": receiver.url(f"/{number}")}
        return await client.request(
            "POST", f"/api/v1/app/{app}/endpoint", json=document, headers={"Idempotency-Key": f"{app}-{number}"}
        )

    async with behind_a_link(platform, "registry") as commits:
        commits.arm(every=every)
        first = [await create(number) for number in range(5)]
        assert commits.lost
        commits.arm(every=0)
        for number, before in enumerate(first):
            after = await eventually(lambda number=number: create(number), lambda answer: answer.status < 300)  # type: ignore[misc]
            assert before.status == 503 or before.json["id"] == after.json["id"]
        endpoints = await client.get(f"/app/{app}/endpoint")
    assert sorted(endpoint["url"] for endpoint in endpoints["data"]) == [receiver.url(f"/{n}") for n in range(5)]
    assert {answer.status for answer in first} <= {201, 503}
