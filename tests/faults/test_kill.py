"""SIGKILL, at any time: what was accepted is delivered, and the ledger tells how."""

import asyncio
import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from deploy.stack.services import Service
from libs.common.domain.facts import AttemptEnded, AttemptStarted
from libs.common.domain.ids import Prefix, decode
from tests.support.client import Client
from tests.support.invariants import broken, read_deliveries
from tests.support.platform import Platform
from tests.support.receiver import Receiver, Reply

SCHEDULE = [0.1, 0.2, 0.3]
MOVED_WITHIN_SECONDS = 25.0
"""A lease and a look are six seconds; the machine itself may stand still for some more."""


async def test_a_dead_dispatchers_work_moves_to_another_within_seconds(
    platform: Platform, client: Client, receiver: Receiver
) -> None:
    app = await client.create_application()
    await client.create_endpoint(app, receiver.script("/", Reply(hang=True)), retrySchedule=[60], timeoutMs=30_000)
    await client.send(app, "ping", {})
    await receiver.wait_for(1)
    other = _replica(platform)
    try:
        await _start(other)
        await platform.kill("dispatcher")
        await receiver.wait_for(2, within=MOVED_WITHIN_SECONDS)
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
    other = _replica(platform)
    try:
        with _frozen(asleep):  # with a send under way, whose answer will lie there when it wakes up
            await _start(other)
            await receiver.wait_for(2, within=MOVED_WITHIN_SECONDS)
            [delivery] = await client.settled(app, 1)
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


def _replica(platform: Platform) -> Service:
    return platform.installation.service("dispatcher", replica=secrets.token_hex(2))


async def _start(service: Service) -> None:
    def start() -> None:
        service.start()
        service.wait_ready()

    await asyncio.to_thread(start)


@contextmanager
def _frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
