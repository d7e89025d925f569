"""SIGKILL, at any time: what was accepted is delivered, and the ledger tells how."""

import asyncio
import os
import secrets
import signal
from itertools import chain

import pytest
from standardwebhooks.webhooks import Webhook

from deploy.stack.services import Service
from libs.common.domain.delivery import Status, fold
from libs.common.domain.facts import AttemptEnded, AttemptOutcomeUnknown, AttemptStarted
from libs.common.domain.ids import Prefix, decode
from tests.support.broker import producing
from tests.support.client import Client
from tests.support.invariants import broken, disagreements, read_deliveries
from tests.support.patience import eventually
from tests.support.platform import Platform
from tests.support.receiver import Receiver, Reply
from tests.support.traffic import STRIPE_SECRET, Traffic, Ways, read_messages, seen_by

MESSAGES = 2000
SENDERS = 24
SCHEDULE = [0.1, 0.2, 0.3]


@pytest.mark.timeout(300)
async def test_two_thousand_messages_outlive_a_kill_of_each_service(
    platform: Platform, client: Client, receiver: Receiver
) -> None:
    app = await client.create_application()
    source = await client.create_source(app, "stripe", STRIPE_SECRET)
    steady = await client.create_endpoint(app, receiver.url("/steady"), retrySchedule=SCHEDULE)
    flaky = await client.create_endpoint(
        app, receiver.script("/flaky", *([200, 200, 200, 503] * 200)), retrySchedule=SCHEDULE
    )
    traffic = Traffic()

    async with producing(platform.corner) as producer, asyncio.TaskGroup() as group:
        ways = Ways(client, app, source.id, traffic, producer)
        group.create_task(ways.send_all(MESSAGES, senders=SENDERS))
        await receiver.wait_for(200)
        await platform.kill("dispatcher")
        await traffic.reaches(min(traffic.count + 100, MESSAGES))
        await platform.start("dispatcher")
        await traffic.reaches(MESSAGES // 2)
        await platform.kill("ingress")
        await platform.start("ingress")
        await traffic.reaches(MESSAGES * 3 // 4)
        await platform.kill("registry")
        await traffic.reaches(min(traffic.count + 100, MESSAGES))
        await platform.start("registry")

    streams = await eventually(
        lambda: read_deliveries(platform.corner.database_url),
        lambda found: len(found) >= 2 * MESSAGES and all(fold(stream).status.terminal for stream in found.values()),
        within=90,
    )

    # 1. An id for which a client saw 2xx exists exactly once; and so does everything that was sent.
    stored = await read_messages(platform.corner.database_url)
    assert {len(ids) for ids in traffic.answered.values()} == {1}
    assert sorted(stored.values()) == sorted(traffic.bodies.values())
    for number, ids in traffic.answered.items():
        assert stored[next(iter(ids))] == traffic.bodies[number]
    assert len(traffic.confirmed) == MESSAGES // 4

    # 2 to 6, from the ledger alone. Nothing was lost: everything was delivered.
    assert len(streams) == 2 * MESSAGES
    assert list(broken(streams.values(), schedule=len(SCHEDULE))) == []
    assert {fold(stream).status for stream in streams.values()} == {Status.SUCCEEDED}
    unknown = [fact for fact in chain.from_iterable(streams.values()) if isinstance(fact, AttemptOutcomeUnknown)]
    assert unknown, "the kill came in the middle of some attempts"

    # 7. The bytes that were sent, with a signature of its own on each attempt.
    secrets_of = {"/steady": steady.secret, "/flaky": flaky.secret}
    for request in receiver.requests:
        assert request.body == stored[request.id]
        Webhook(secrets_of[request.path]).verify(request.body, dict(request.headers))

    # 8. The receivers' own logs against the ledger.
    names = {steady.id: "/steady", flaky.id: "/flaky"}
    assert list(disagreements(streams.values(), seen_by(receiver), names)) == []

    # 9. The projection is the fold of the ledger.
    assert (await platform.admin("verify")).splitlines()[-1].startswith("ledger: verified")


async def test_a_dead_dispatchers_work_moves_to_another_within_seconds(
    platform: Platform, client: Client, receiver: Receiver
) -> None:
    app = await client.create_application()
    await client.create_endpoint(app, receiver.script("/", Reply(hang=True)), retrySchedule=[60], timeoutMs=30_000)
    await client.send(app, "ping", {})
    await receiver.wait_for(1)
    other = await _start_replica(platform)
    try:
        await platform.kill("dispatcher")
        await receiver.wait_for(2, within=12)
        [delivery] = await client.settled(app, 1)
    finally:
        await asyncio.to_thread(other.stop)
        await platform.start("dispatcher")
    assert (delivery["status"], delivery["attempts"], delivery["failures"]) == ("succeeded", 2, 0)
    kinds = [fact["kind"] for fact in await client.ledger(app, delivery["id"])]
    assert kinds[1:4] == ["AttemptStarted", "AttemptOutcomeUnknown", "RetryScheduled"]


async def test_a_dispatcher_that_wakes_up_after_its_lease_has_passed_records_nothing(
    platform: Platform, client: Client, receiver: Receiver
) -> None:
    app = await client.create_application()
    url = receiver.script("/", Reply(delay=7.0, status=503))
    await client.create_endpoint(app, url, retrySchedule=[60], timeoutMs=30_000)
    await client.send(app, "ping", {})
    await receiver.wait_for(1)
    asleep = platform.services["dispatcher"].pid
    assert asleep is not None
    other = await _start_replica(platform)
    try:
        os.kill(asleep, signal.SIGSTOP)
        try:
            await receiver.wait_for(2, within=12)
            [delivery] = await client.settled(app, 1)
        finally:
            os.kill(asleep, signal.SIGCONT)
        # Awake again, it finds the answer to its own send, and that the attempt is no longer its.
        await client.send(app, "ping", {"after": "the sleep"})
        deliveries = await client.settled(app, 2)
    finally:
        await asyncio.to_thread(other.stop)
    assert [found["status"] for found in deliveries] == ["succeeded", "succeeded"]
    streams = await read_deliveries(platform.corner.database_url)
    assert list(broken(streams.values(), schedule=len(SCHEDULE))) == []
    stream = streams[decode(Prefix.DELIVERY, delivery["id"])]
    ended = [fact for fact in stream if isinstance(fact, AttemptEnded)]
    started = [fact for fact in stream if isinstance(fact, AttemptStarted)]
    assert [fact.status for fact in ended] == [200]
    assert len({fact.process for fact in started}) == 2
    assert (await platform.admin("verify")).splitlines()[-1].startswith("ledger: verified")


async def _start_replica(platform: Platform) -> Service:
    replica = platform.installation.service("dispatcher", replica=secrets.token_hex(2))

    def start() -> None:
        replica.start()
        replica.wait_ready()

    await asyncio.to_thread(start)
    return replica
