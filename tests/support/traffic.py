"""Traffic for fault tests: senders that insist, on three ways in, and the records of who saw what."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import aiohttp
import asyncpg
import orjson

from libs.common.domain.ids import Prefix, encode
from tests.support.broker import Producer, cloud_event
from tests.support.client import Answer, Client
from tests.support.invariants import Seen
from tests.support.receiver import Receiver
from tests.support.senders import stripe_headers

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
    """The ways in: the API, a provider, and, where there is a producer, the broker."""

    client: Client
    app: str
    source: str
    traffic: Traffic
    producer: Producer | None = None

    async def send_all(self, count: int, *, senders: int) -> None:
        """Send so many messages, by so many senders at a time."""
        numbers = iter(range(count))

        async def keep_sending() -> None:
            for number in numbers:
                await self.send(number)

        async with asyncio.TaskGroup() as group:
            for _ in range(senders):
                group.create_task(keep_sending())

    async def send(self, number: int) -> None:
        """Send message `number`, on the way that is its turn."""
        body = b'{ "id": "evt_%d", "type": "load.test", "n": %d, "amount": 1.10 }' % (number, number)
        self.traffic.bodies[number] = body
        match number % 4:
            case 0 if self.producer is not None:
                await self.producer.publish(self._event(number, body))
                await self.traffic.note(number, None)
            case 1:
                answer = await insist(lambda: self._provide(body))
                await self.traffic.note(number, answer.json["id"])
            case _:
                answer = await insist(lambda: self._post(number, body))
                await self.traffic.note(number, answer.json["id"])

    async def _provide(self, body: bytes) -> Answer:
        headers = stripe_headers(body, STRIPE_SECRET)
        return await self.client.request("POST", f"/in/{self.source}", data=body, headers=headers)

    async def _post(self, number: int, body: bytes) -> Answer:
        document = b'{"eventType":"load.test","payload":' + body + b"}"
        headers = {"Content-Type": "application/json", "Idempotency-Key": f"message-{number}"}
        return await self.client.request("POST", f"/api/v1/app/{self.app}/msg", data=document, headers=headers)

    def _event(self, number: int, body: bytes) -> bytes:
        event = orjson.dumps(cloud_event(self.app, "load.test", None, id=f"event-{number}"))
        return event.replace(b'"data":null', b'"data":' + body)


async def read_messages(database_url: str) -> dict[str, bytes]:
    """The bodies of all messages by their ids."""
    connection = await asyncpg.connect(database_url, timeout=10)
    try:
        rows = await connection.fetch(
            "SELECT m.id, b.body FROM hookledger.message m JOIN hookledger.message_body b ON b.message = m.id"
        )
    finally:
        await connection.close()
    return {encode(Prefix.MESSAGE, row["id"]): row["body"] for row in rows}


def seen_by(receiver: Receiver) -> dict[tuple[str, str], Seen]:
    """The receivers' own logs: the second of the three records. The ledger is the third."""
    bodies: dict[tuple[str, str], list[bytes]] = defaultdict(list)
    statuses: dict[tuple[str, str], list[int | None]] = defaultdict(list)
    for request in receiver.requests:
        bodies[request.id, request.path].append(request.body)
        statuses[request.id, request.path].append(request.status)
    return {key: Seen(bodies=tuple(bodies[key]), statuses=tuple(statuses[key])) for key in bodies}
