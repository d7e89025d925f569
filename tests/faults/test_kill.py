"""SIGKILL, at any time: what was accepted is delivered, and the ledger tells how."""

import asyncio
import os
import secrets
import signal
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain

import aiohttp
import asyncpg
import orjson
import pytest
from standardwebhooks.webhooks import Webhook

from deploy.stack.services import Service
from libs.common.domain.delivery import Status, fold
from libs.common.domain.facts import AttemptEnded, AttemptOutcomeUnknown, AttemptStarted
from libs.common.domain.ids import Prefix, decode, encode
from tests.support import senders
from tests.support.broker import Producer, cloud_event, producing
from tests.support.client import Answer, Client
from tests.support.invariants import Seen, broken, disagreements, read_deliveries
from tests.support.patience import eventually
from tests.support.platform import Platform
from tests.support.receiver import Receiver, Reply

MESSAGES = 2000
SENDERS = 24
SCHEDULE = [0.1, 0.2, 0.3]
STRIPE_SECRET = "whsec_5WbX5kEWLlfzsGNjH64I8lOOqUB6e8FH"


@dataclass
class Traffic:
    """What was sent, and the 2xx that the senders saw: the first of the three records."""

    bodies: dict[int, bytes] = field(default_factory=dict)
    answered: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    confirmed: set[int] = field(default_factory=set)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def count(self) -> int:
        """How many messages somebody has taken."""
        return len(self.answered) + len(self.confirmed)

    async def note(self, number: int, message: str | None) -> None:
        """A 2xx with an id, or the broker's confirm."""
        async with self._changed:
            if message is None:
                self.confirmed.add(number)
            else:
                self.answered[number].add(message)
            self._changed.notify_all()

    async def reaches(self, count: int) -> None:
        """Wait until so many were taken."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.count >= count)


async def insist(send: Callable[[], Awaitable[Answer]]) -> Answer:
    """Send until there is a 2xx, as a careful sender does: the same request each time."""
    while True:
        with suppress(aiohttp.ClientError, TimeoutError):
            answer = await send()
            if 200 <= answer.status < 300:
                return answer
            assert answer.status >= 500 or answer.status == 429, f"HTTP {answer.status}: {answer.body!r}"
        await asyncio.sleep(0.1)


@dataclass(frozen=True, slots=True)
class Ways:
    """The three ways in: the API, a provider, the broker."""

    client: Client
    producer: Producer
    app: str
    source: str
    traffic: Traffic

    async def send(self, number: int) -> None:
        """Send message `number`, on the way that is its turn."""
        body = b'{ "id": "evt_%d", "type": "load.test", "n": %d, "amount": 1.10 }' % (number, number)
        self.traffic.bodies[number] = body
        match number % 4:
            case 0:
                await self.producer.publish(self._event(number, body))
                await self.traffic.note(number, None)
            case 1:
                answer = await insist(lambda: self._provide(body))
                await self.traffic.note(number, answer.json["id"])
            case _:
                answer = await insist(lambda: self._post(number, body))
                await self.traffic.note(number, answer.json["id"])

    async def _provide(self, body: bytes) -> Answer:
        headers = senders.stripe_headers(body, STRIPE_SECRET)
        return await self.client.request("POST", f"/in/{self.source}", data=body, headers=headers)

    async def _post(self, number: int, body: bytes) -> Answer:
        document = b'{"eventType":"load.test","payload":' + body + b"}"
        headers = {"Content-Type": "application/json", "Idempotency-Key": f"message-{number}"}
        return await self.client.request("POST", f"/api/v1/app/{self.app}/msg", data=document, headers=headers)

    def _event(self, number: int, body: bytes) -> bytes:
        event = orjson.dumps(cloud_event(self.app, "load.test", None, id=f"event-{number}"))
        return event.replace(b'"data":null', b'"data":' + body)


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
        ways = Ways(client, producer, app, source.id, traffic)
        numbers = iter(range(MESSAGES))

        async def keep_sending() -> None:
            for number in numbers:
                await ways.send(number)

        for _ in range(SENDERS):
            group.create_task(keep_sending())
        await receiver.wait_for(200)
        await platform.kill("dispatcher")
        await traffic.reaches(traffic.count + 100)
        await platform.start("dispatcher")
        await traffic.reaches(MESSAGES // 2)
        await platform.kill("ingress")
        await platform.start("ingress")
        await traffic.reaches(MESSAGES * 3 // 4)
        await platform.kill("registry")
        await traffic.reaches(traffic.count + 100)
        await platform.start("registry")

    streams = await eventually(
        lambda: read_deliveries(platform.corner.database_url),
        lambda found: len(found) >= 2 * MESSAGES and all(fold(stream).status.terminal for stream in found.values()),
        within=90,
    )

    # 1. An id for which a client saw 2xx exists exactly once; and so does everything that was sent.
    stored = await _messages(platform.corner.database_url)
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
    assert list(disagreements(streams.values(), _seen(receiver), names)) == []

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


async def _messages(database_url: str) -> dict[str, bytes]:
    """The bodies of all messages by their ids."""
    connection = await asyncpg.connect(database_url, timeout=10)
    try:
        rows = await connection.fetch(
            "SELECT m.id, b.body FROM hookledger.message m JOIN hookledger.message_body b ON b.message = m.id"
        )
    finally:
        await connection.close()
    return {encode(Prefix.MESSAGE, row["id"]): row["body"] for row in rows}


def _seen(receiver: Receiver) -> dict[tuple[str, str], Seen]:
    """The receivers' own logs: the second of the three records. The ledger is the third."""
    bodies: dict[tuple[str, str], list[bytes]] = defaultdict(list)
    statuses: dict[tuple[str, str], list[int | None]] = defaultdict(list)
    for request in receiver.requests:
        bodies[request.id, request.path].append(request.body)
        statuses[request.id, request.path].append(request.status)
    return {key: Seen(bodies=tuple(bodies[key]), statuses=tuple(statuses[key])) for key in bodies}
