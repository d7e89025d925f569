"""One run, from an empty database to the figures."""

import asyncio
import base64
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg

from bench.processor import Processor, tree
from deploy.stack.errors import StackError
from deploy.stack.installation import Installation
from deploy.stack.isolation import Isolation, isolated
from deploy.stack.places import CHECKOUT
from deploy.stack.servers import Servers
from deploy.stack.services import Service

WARM_UP = 0.1
"""This share of the deliveries at the beginning and at the end of the dispatcher's run is not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much of what. Endpoints are spread evenly over the applications, and messages too."""

    messages: int = 3000
    endpoints: int = 50
    applications: int = 20
    payload_bytes: int = 300
    concurrency: int = 64
    most_seconds: int = 240

    @property
    def deliveries(self) -> int:
        """Each message goes to every endpoint of its application."""
        per_app = [len(range(app, self.endpoints, self.applications)) for app in range(self.applications)]
        return sum(per_app[number % self.applications] for number in range(self.messages))

    @property
    def requests(self) -> int:
        """Of the bare client, which is quick: enough of them to be measured."""
        return max(20_000, self.deliveries)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """What one process did: how many a second, at how many milliseconds of processor time each."""

    per_second: float
    cpu_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The figures of one run. Processor times of servers are None where the servers are not ours."""

    ceiling: Rate
    ingress: Rate
    dispatcher: Rate
    postgres_cpu_ms: float | None
    broker_cpu_ms: float | None

    @property
    def rate_ratio(self) -> float:
        """Deliveries a second over those of the bare client."""
        return self.dispatcher.per_second / self.ceiling.per_second

    @property
    def cpu_ratio(self) -> float:
        """Processor time of a delivery in the dispatcher over that of a request in the bare client."""
        return self.dispatcher.cpu_ms / self.ceiling.cpu_ms

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"rate_ratio": self.rate_ratio, "cpu_ratio": self.cpu_ratio}


async def measure(plan: Plan, servers: Servers, folder: Path, say: Callable[[str], None]) -> Figures:
    """Run everything once."""
    async with receiver() as url:
        say(f"ceiling: {plan.requests} requests by a bare client")
        ceiling = await _ceiling(plan, url)
        with isolated(servers, label="bench") as corner:
            installation = Installation(folder=folder, corner=corner, settings={"LOG_LEVEL": "warning"})
            await asyncio.to_thread(installation.migrate)
            services = installation.services()
            for name in ("registry", "ingress"):
                services[name].start()
            key = await asyncio.to_thread(installation.create_key)
            for name in ("registry", "ingress"):
                await asyncio.to_thread(services[name].wait_ready)
            async with _api(services["ingress"].url, key) as api:
                say(f"registry: {plan.endpoints} endpoints in {plan.applications} applications")
                apps = await _register(plan, api, url)
                say(f"ingress: {plan.messages} messages")
                ingress = await _accept(plan, api, apps, services["ingress"])
            say(f"dispatcher: {plan.deliveries} deliveries")
            dispatcher, postgres, broker = await _deliver(plan, servers, corner, services["dispatcher"], url)
            for service in services.values():  # before their database goes
                await asyncio.to_thread(service.stop)
        return Figures(
            ceiling=ceiling, ingress=ingress, dispatcher=dispatcher, postgres_cpu_ms=postgres, broker_cpu_ms=broker
        )


@asynccontextmanager
async def receiver() -> AsyncIterator[str]:
    """A receiver in a process of its own; its URL."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.receiver", stdout=asyncio.subprocess.PIPE, cwd=CHECKOUT
    )
    assert process.stdout is not None
    try:
        port = int(await process.stdout.readline())
        yield f"http://127.0.0.1:{port}"
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def received(url: str) -> int:
    """How many requests the receiver has answered."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/count") as answer:
        return int(await answer.text())


async def _ceiling(plan: Plan, url: str) -> Rate:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.ceiling", url, str(plan.requests), str(plan.endpoints)),
        *(str(plan.payload_bytes), str(plan.concurrency)),
        stdout=asyncio.subprocess.PIPE,
        cwd=CHECKOUT,
    )
    said, _ = await process.communicate()
    if process.returncode:
        raise StackError("the bare client failed")
    return Rate(**json.loads(said))


@asynccontextmanager
async def _api(url: str, key: str) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    async with aiohttp.ClientSession(url, headers=headers, connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


async def _register(plan: Plan, api: aiohttp.ClientSession, url: str) -> list[str]:
    apps = [(await _post(api, "/api/v1/app", {"name": f"bench {n}"}))["id"] for n in range(plan.applications)]
    for number in range(plan.endpoints):
        app = apps[number % plan.applications]
        await _post(api, f"/api/v1/app/{app}/endpoint", {"url": f"{url}/{number}"})
    return apps


async def _accept(plan: Plan, api: aiohttp.ClientSession, apps: list[str], ingress: Service) -> Rate:
    numbers = iter(range(plan.messages))
    filler = base64.b64encode(os.urandom(plan.payload_bytes)).decode()[: plan.payload_bytes]

    async def worker() -> None:
        for number in numbers:
            message = {"eventType": "order.completed", "payload": {"number": number, "filler": filler}}
            await _post(api, f"/api/v1/app/{apps[number % len(apps)]}/msg", message)

    processor = Processor.of(ingress.pid)
    began = time.monotonic()
    await asyncio.gather(*(worker() for _ in range(plan.concurrency)))
    seconds = time.monotonic() - began
    return Rate(per_second=plan.messages / seconds, cpu_ms=processor.since_ms / plan.messages)


async def _deliver(
    plan: Plan, servers: Servers, corner: Isolation, dispatcher: Service, url: str
) -> tuple[Rate, float | None, float | None]:
    """Deliver what was accepted.

    The rate is measured between two moments, so that neither start nor tail count; processor time until every outcome
    is told on the broker too, since that is done off the attempts' path.
    """
    at_first = await received(url)
    dispatcher.start()
    await _until(url, at_first + round(plan.deliveries * WARM_UP))
    processor = Processor.of(dispatcher.pid)
    postgres, broker = (tree(server.pid) if server.owned else None for server in (servers.postgres, servers.broker))
    began, count = time.monotonic(), await received(url)
    await _until(url, at_first + round(plan.deliveries * (1 - WARM_UP)))
    per_second = (await received(url) - count) / (time.monotonic() - began)
    await _until_over(plan, corner)
    delivered = at_first + plan.deliveries - count
    each = [None if server is None else server.since_ms / delivered for server in (postgres, broker)]
    return Rate(per_second=per_second, cpu_ms=processor.since_ms / delivered), each[0], each[1]


async def _until(url: str, count: int) -> None:
    while await received(url) < count:  # noqa: ASYNC110  another process's count
        await asyncio.sleep(0.02)


async def _until_over(plan: Plan, corner: Isolation) -> None:
    """Every delivery has succeeded, since a rate of lost ones would be worth nothing, and every outcome is told."""
    connection = await asyncpg.connect(corner.database_url)
    try:
        succeeded = "SELECT count(*) FROM projection_1.delivery_state WHERE status = 'succeeded'"
        while await connection.fetchval(succeeded) < plan.deliveries:  # noqa: ASYNC110  another process's count
            await asyncio.sleep(0.1)
        untold = """
            SELECT EXISTS (SELECT FROM hookledger.fact f, hookledger.checkpoint c
                WHERE (f.epoch, f.xact, f.position) > (c.epoch, c.xact, c.position))
        """
        while await connection.fetchval(untold):  # noqa: ASYNC110  as above
            await asyncio.sleep(0.1)
    finally:
        await connection.close()


async def _post(api: aiohttp.ClientSession, path: str, body: Any) -> Any:
    async with api.post(path, data=json.dumps(body)) as answer:
        if not answer.ok:
            raise StackError(f"POST {path} answered {answer.status}: {(await answer.text())[:200]}")
        return await answer.json()
