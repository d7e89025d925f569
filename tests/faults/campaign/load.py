"""Load: senders that insist, on every way in."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

import aio_pika
import aiohttp
import orjson

from tests.faults.campaign.plan import RECEIVERS, Behaviour, Kind, Round
from tests.faults.campaign.producer import Producer
from tests.faults.campaign.told import CANARY, Sent, Target, Told
from tests.faults.campaign.world import World
from tests.support.broker import CLOUD_EVENT, cloud_event
from tests.support.client import Answer, Client
from tests.support.receiver import Reply
from tests.support.senders import STRIPE_SECRET, stripe_headers

LOAD: Final = "load.test"
BURST: Final = "load.burst"
BATCH: Final = "application/cloudevents-batch+json"
SENDERS: Final = 12
BURST_SENDERS: Final = 48
BURST_MESSAGES: Final = 20_000
"""At most: what is accepted in seconds takes minutes to deliver while everything else is broken."""
FENCE_SECONDS: Final = 0.6
REQUEST_SECONDS: Final = 8.0
PATIENT: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 4.0)
"""Retries that outlast every harm of a network."""
BRIEF: Final = (0.1, 0.3)
_TIMEOUT_MS: Final = 1000
_AGAIN_SECONDS: Final = 0.15
_SCRIPTED: Final = 2000


class Load:
    """The senders of one round."""

    def __init__(self, world: World, round_: Round, clients: Sequence[Client], producer: Producer) -> None:
        self.told = Told()
        self._world = world
        self._round = round_
        self._clients = clients
        self._producer = producer
        self._chance = random.Random(f"{round_.seed}/load")
        self._numbers = iter(range(1, 1_000_000))
        self._burst_left = iter(range(BURST_MESSAGES))
        self._source = ""

    async def register(self) -> None:
        """The round's own application, source and endpoints, while all is well."""
        app = await self._create("/app", {"name": f"round {self._round.number}"})
        self.told.app = str(app["id"])
        source = {"name": "stripe", "provider": "stripe", "secret": STRIPE_SECRET}
        self._source = str((await self._create(f"/app/{self.told.app}/source", source))["id"])
        await self._endpoint("steady", LOAD, PATIENT)
        await self._endpoint("exact", LOAD, PATIENT, exact=True)
        for place, behaviour in enumerate(self._round.behaviours):  # both may be the same
            retries = PATIENT if behaviour is Behaviour.FLAPPING else BRIEF
            target = await self._endpoint(f"{behaviour}-{place}", LOAD, retries, behaviour=behaviour)
            self._world.receiver.script(target.path, *_replies(behaviour, self._chance))
        if any(fault.kind is Kind.OVERLOAD for fault in self._round.faults):
            await self._endpoint("burst", BURST, PATIENT)

    async def run(self) -> None:
        """Send the round's messages over its seconds; returns when each sender has been told."""
        overload = any(fault.kind is Kind.OVERLOAD for fault in self._round.faults)
        async with asyncio.TaskGroup() as group:
            due = iter(range(self._round.messages))
            began = asyncio.get_running_loop().time()
            for _ in range(SENDERS):
                group.create_task(self._send_in_time(due, began))
            group.create_task(self._build_fences(began))
            if overload:
                for _ in range(BURST_SENDERS):
                    group.create_task(self._burst(began))

    async def _send_in_time(self, due: Iterator[int], began: float) -> None:
        loop = asyncio.get_running_loop()
        for place in due:
            at = began + self._round.seconds * place / self._round.messages
            await asyncio.sleep(max(0.0, at - loop.time()))
            await self._send(LOAD, copies=2 if place % 5 == 0 else 1)

    async def _send(self, event_type: str, *, copies: int = 1) -> int:
        number = next(self._numbers)
        way = ("api", "stripe", "api", "broker")[number % 4]
        sent = Sent(event_type=event_type, body=_body(number, event_type), way=way)
        self.told.sent[number] = sent
        await asyncio.gather(*(self._insist(number, sent, copy) for copy in range(copies)))
        return number

    async def _insist(self, number: int, sent: Sent, copy: int) -> None:
        if sent.way == "broker":
            await self._producer.publish(self._event(number, sent))
            self.told.confirmed.add(number)
            return
        for tried in range(copy, 10_000):
            answer = await self._try(lambda tried=tried: self._request(number, sent, tried))  # type: ignore[misc]
            if answer is not None and answer.status < 300:
                self.told.answered[number].add(answer.json["id"])
                return
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _burst(self, began: float) -> None:
        """As much as one connection takes, without insisting, until the round ends or the burst is as large as may be."""
        ends = began + self._round.seconds
        for _ in itertools.takewhile(lambda _: asyncio.get_running_loop().time() < ends, self._burst_left):
            number = next(self._numbers)
            sent = Sent(event_type=BURST, body=_body(number, BURST), way="api", insisted=False)
            self.told.sent[number] = sent
            answer = await self._try(lambda number=number, sent=sent: self._request(number, sent, number))  # type: ignore[misc]
            if answer is not None and answer.status < 300:
                self.told.answered[number].add(answer.json["id"])
            else:
                await asyncio.sleep(_AGAIN_SECONDS)

    async def _build_fences(self, began: float) -> None:
        """Again and again: an endpoint is created, and messages follow at once; or it is disabled before they do."""
        loop = asyncio.get_running_loop()
        count = 0
        while (now := loop.time()) < began + self._round.seconds:
            count += 1
            target = await self._endpoint(f"fence-{count}", f"fence.{count}", PATIENT, fence=True)
            if count % 2:
                target.wanted += await self._send_some(target)
            else:
                path = f"/app/{self.told.app}/endpoint/{target.id}"
                await self._manage("PATCH", path, {"disabled": True})
                target.unwanted += await self._send_some(target)
            await asyncio.sleep(max(0.0, now + FENCE_SECONDS - loop.time()))

    async def _send_some(self, target: Target) -> list[int]:
        return await asyncio.gather(*(self._send(target.event_type) for _ in range(3)))

    async def _endpoint(
        self,
        name: str,
        event_type: str,
        retries: Sequence[float],
        *,
        behaviour: Behaviour | None = None,
        exact: bool = False,
        fence: bool = False,
    ) -> Target:
        path = f"/{self._round.number}/{name}"
        port = self._world.links[RECEIVERS].port
        document = {
            "url": f"http://127.0.0.1:{port}{path}",
            "eventTypes": [event_type],
            "retrySchedule": list(retries),
            "timeoutMs": _TIMEOUT_MS,
            "profile": "x-webhook" if exact else "standard",
        }
        made = await self._create(f"/app/{self.told.app}/endpoint", document)
        secret = await self._manage("GET", f"/app/{self.told.app}/endpoint/{made['id']}/secret", None)
        target = Target(
            id=str(made["id"]),
            path=path,
            secret=str(secret["key"]),
            event_type=event_type,
            retries=retries,
            behaviour=behaviour,
            exact=exact,
            fence=fence,
        )
        self.told.targets.append(target)
        return target

    async def _create(self, path: str, document: Mapping[str, object]) -> dict[str, object]:
        return await self._manage("POST", path, document)

    async def _manage(self, method: str, path: str, document: Mapping[str, object] | None) -> dict[str, object]:
        """Change or read the registry, until it has answered."""
        key = f"{self._round.seed}/{next(self._numbers)}"
        for tried in range(10_000):
            client = self._clients[tried % len(self._clients)]
            answer = await self._try(
                lambda client=client: client.request(  # type: ignore[misc]
                    method, f"/api/v1{path}", json=document, headers={"Idempotency-Key": key}
                )
            )
            if answer is not None and answer.status < 300:
                found: dict[str, object] = answer.json
                return found
            await asyncio.sleep(_AGAIN_SECONDS)
        raise AssertionError("a campaign ends before that")

    async def _try(self, send: Callable[[], Awaitable[Answer]]) -> Answer | None:
        """One request's answer; None where there was none that says anything."""
        try:
            answer = await send()
        except (aiohttp.ClientError, TimeoutError):
            return None
        if answer.status >= 500 or answer.status == 429:
            self.told.refused += 1
        elif answer.status >= 300:
            self.told.protests.append(f"HTTP {answer.status}: {answer.body[:200]!r}")
        return answer

    async def _request(self, number: int, sent: Sent, tried: int) -> Answer:
        client = self._clients[(number + tried) % len(self._clients)]
        if sent.way == "stripe":
            headers = stripe_headers(sent.body, STRIPE_SECRET)
            return await client.request("POST", f"/in/{self._source}", data=sent.body, headers=headers)
        document = b'{"eventType":"%b","payload":%b}' % (sent.event_type.encode(), sent.body)
        headers = {"Content-Type": "application/json", "Idempotency-Key": f"{self._round.seed}-{number}"}
        return await client.request("POST", f"/api/v1/app/{self.told.app}/msg", data=document, headers=headers)

    def _event(self, number: int, sent: Sent) -> aio_pika.Message:
        """A CloudEvent in one of its three forms."""
        event = cloud_event(self.told.app, sent.event_type, None, id=f"event-{number}", source=f"/{self._round.seed}")
        if number % 3 == 0:
            headers = {f"ce-{name}": event[name] for name in ("specversion", "id", "source", "type", "hookledgerapp")}
            return aio_pika.Message(sent.body, content_type="application/json", headers=headers)
        whole = orjson.dumps(event).replace(b'"data":null', b'"data":' + sent.body)
        if number % 3 == 1:
            return aio_pika.Message(b"[" + whole + b"]", content_type=BATCH)
        return aio_pika.Message(whole, content_type=CLOUD_EVENT)


@asynccontextmanager
async def senders(world: World) -> AsyncIterator[tuple[list[Client], Producer]]:
    """Clients of each front door, and a producer."""
    timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
    connector = aiohttp.TCPConnector(limit=0)
    producer = Producer(world)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
    ) as session:
        try:
            yield [Client(session, door, world.key) for door in world.doors()], producer
        finally:
            await producer.close()


def _body(number: int, event_type: str) -> bytes:
    """A payload whose bytes no second serialiser would write alike."""
    template = '{ "id": "evt_%d",  "type": "%s", "amount": 1.10, "who": "caf\\u00e9 é", "note": "%s", "n": %d }'
    return (template % (number, event_type, CANARY, number)).encode()


def _replies(behaviour: Behaviour, chance: random.Random) -> list[Reply | int]:
    """What a receiver answers to its first requests; later ones it answers well."""
    gone_after = chance.randint(5, 40)
    return [_reply(behaviour, chance, place, gone_after) for place in range(_SCRIPTED)]


def _reply(behaviour: Behaviour, chance: random.Random, place: int, gone_after: int) -> Reply | int:
    bad = chance.random() < 0.3
    match behaviour:
        case Behaviour.SLOW:
            return Reply(delay=chance.uniform(0.1, 0.6))
        case Behaviour.HANGING:
            return Reply(hang=True) if bad else 200
        case Behaviour.RESETTING:
            return Reply(reset=True) if bad else 200
        case Behaviour.FLAPPING:
            return 503 if bad else 200
        case Behaviour.LATE:
            return Reply(delay=_TIMEOUT_MS / 1000 + 0.3) if bad else 200
        case Behaviour.BUSY:
            return Reply.retry_after("1", status=429) if bad else 200
        case Behaviour.GONE:
            return 410 if place >= gone_after else 200
