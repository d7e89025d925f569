"""What is measured: one process of each service on servers of their own, an organisation, and the sink."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import aio_pika
import aiohttp
import asyncpg
import msgspec

from bench.children import Sink, said, sink
from bench.load import Load, Posted
from bench.processor import Used
from deploy.stack.errors import StackError
from deploy.stack.installation import Installation
from deploy.stack.isolation import Isolation, isolated
from deploy.stack.servers import Servers
from deploy.stack.services import Service
from libs.common.rabbitmq.topology import Names

_SETTLE_S: Final = 120.0
_OUTCOMES_KEPT: Final = 1_000
_WAL_MIB: Final = 600
"""As much as Postgres lets come together until it makes a checkpoint, unless it is told otherwise."""
_UNSETTLED: Final = "SELECT EXISTS (SELECT FROM hookledger.queue) OR EXISTS (SELECT FROM hookledger.outbox)"
_UNTOLD: Final = """
    SELECT EXISTS (
        SELECT FROM hookledger.checkpoint c, (
            SELECT epoch, xact, position FROM hookledger.fact WHERE hookledger.is_followed(kind, data)
            ORDER BY epoch DESC, xact DESC, position DESC LIMIT 1
        ) f WHERE (f.epoch, f.xact, f.position) > (c.epoch, c.xact, c.position))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """An application and the paths of its endpoints at the sink; with `others` like it, which take turns with it."""

    id: str
    paths: Sequence[str]
    others: Sequence[str] = ()

    @property
    def fan_out(self) -> int:
        """To how many endpoints a message goes."""
        return len(self.paths)


@dataclass(slots=True, kw_only=True)
class World:
    """The platform that runs."""

    servers: Servers
    corner: Isolation
    installation: Installation
    services: dict[str, Service]
    key: str
    sink: Sink
    api: aiohttp.ClientSession
    database: "asyncpg.Connection[asyncpg.Record]"
    accepted: int = 0

    async def application(self, name: str, paths: Sequence[str], **fields: Any) -> Application:
        """A new application with an endpoint for each path at the sink; `fields` are the endpoints'."""
        made = await self._post("/api/v1/app", {"name": name})
        for path in paths:
            endpoint = {"url": f"{self.sink.url}{path}", **fields}
            await self._post(f"/api/v1/app/{made['id']}/endpoint", endpoint)
        return Application(id=made["id"], paths=paths)

    async def applications(self, name: str, count: int, fan_out: int, **fields: Any) -> Application:
        """So many alike, with endpoints of their own: they count as one that stands for all."""
        made = [
            await self.application(
                f"{name} {number}", [f"/{name}/{number}/{place}" for place in range(fan_out)], **fields
            )
            for number in range(count)
        ]
        return replace(made[0], others=[application.id for application in made[1:]])

    async def post(self, application: Application, *, count: int, window: int = 0, **load: Any) -> Posted:
        """Have a load posted to an application; returns when it was accepted."""
        spec = Load(
            url=self.services["ingress"].url,
            paths=[f"/api/v1/app/{id_}/msg" for id_ in (application.id, *application.others)],
            key=self.key,
            count=count,
            sink=self.sink.url,
            fan_out=max(1, application.fan_out),
            window=window,
            **load,
        )
        posted = await said(Posted, "bench.load", msgspec.json.encode(spec).decode())
        self.accepted += posted.count
        return posted

    async def settled(self, *, within: float = _SETTLE_S) -> float:
        """The moment by which every delivery is over and committed.

        Raises:
            StackError: they do not come to an end within so many seconds.
        """
        await self._until_not(_UNSETTLED, within=within)
        return time.monotonic()

    async def told(self) -> None:
        """Wait until the followers of the ledger have come to its end: what they do belongs to a delivery's cost."""
        await self._until_not(_UNTOLD, every=0.1)

    def used(self) -> Used:
        """Processor time of the services, and of the servers where they are processes of ours."""
        servers = {"broker": self.servers.broker, "postgres": self.servers.postgres}
        owned = {name: server.pid for name, server in servers.items() if server.owned and server.pid}
        return Used.by(owned | self.pids)

    @property
    def pids(self) -> dict[str, int]:
        """Of the services that run."""
        return {name: service.pid for name, service in self.services.items() if service.pid}

    @property
    def dispatchers(self) -> list[Service]:
        """However many there are."""
        return [service for service in self.services.values() if service.name == "dispatcher"]

    @asynccontextmanager
    async def without_dispatcher(self) -> AsyncIterator[None]:
        """What is accepted meanwhile waits."""
        dispatcher = self.services["dispatcher"]
        await asyncio.to_thread(dispatcher.stop)
        try:
            yield
        finally:
            dispatcher.start()
            await asyncio.to_thread(dispatcher.wait_ready)

    async def settle_in(self) -> None:
        """Have Postgres write over log files that it has used, as one that is in service does.

        A new one is filled with zeros first, and the memory that it is kept in may be new to the machine, too. A server
        that is not ours is left as it is.
        """
        if not self.servers.owned_postgres:
            return
        for _ in range(_WAL_MIB):
            await self.database.execute(f"SELECT pg_logical_emit_message(false, 'bench', repeat('x', {1024 * 1024}))")
        for _ in range(2):  # the first one ends with the use of the files, the second one makes them free
            await self.database.execute("CHECKPOINT")

    @asynccontextmanager
    async def outcomes_heard(self) -> AsyncIterator[None]:
        """Meanwhile a queue gets every outcome, and keeps the last thousand."""
        async with await aio_pika.connect(self.corner.amqp_url) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(exclusive=True, arguments={"x-max-length": _OUTCOMES_KEPT})
            await queue.bind(Names(self.corner.amqp_prefix).deliveries, "#")
            yield

    async def delete(self, application: Application) -> None:
        """Take an application away: what waits for its endpoints is cancelled."""
        async with self.api.delete(f"/api/v1/app/{application.id}") as answer:
            if not answer.ok:
                raise StackError(f"DELETE answered {answer.status}: {(await answer.text())[:200]}")

    async def _post(self, path: str, body: Any) -> Any:
        async with self.api.post(path, data=json.dumps(body)) as answer:
            if not answer.ok:
                raise StackError(f"POST {path} answered {answer.status}: {(await answer.text())[:200]}")
            return await answer.json()

    async def _until_not(self, question: str, *, every: float = 0.02, within: float = _SETTLE_S) -> None:
        deadline = time.monotonic() + within
        while await self.database.fetchval(question):
            if time.monotonic() > deadline:
                raise StackError(f"the platform has not settled after {within:.0f} s")
            await asyncio.sleep(every)


@asynccontextmanager
async def running(
    servers: Servers, folder: Path, *, dispatchers: int = 1, settings: Mapping[str, str] | None = None
) -> AsyncIterator[World]:
    """A platform on an empty database, ready; stopped and removed at the end.

    Args:
        servers: to run it on.
        folder: for its logs and process ids.
        dispatchers: how many there are.
        settings: more settings for the dispatchers, without the prefix `HOOKLEDGER_`.
    """
    with isolated(servers, label="bench") as corner:
        installation = Installation(folder=folder, corner=corner)
        await asyncio.to_thread(installation.migrate)
        key = await asyncio.to_thread(installation.create_key)
        services = installation.services() | {
            service.label: service
            for replica in ("", *map(str, range(2, dispatchers + 1)))
            for service in [installation.service("dispatcher", replica=replica, settings=settings)]
        }
        for service in services.values():
            service.start()
        database = await asyncpg.connect(corner.database_url)
        try:
            for service in services.values():
                await asyncio.to_thread(service.wait_ready)
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            async with sink() as receiver, aiohttp.ClientSession(services["ingress"].url, headers=headers) as api:
                yield World(
                    servers=servers,
                    corner=corner,
                    installation=installation,
                    services=services,
                    key=key,
                    sink=receiver,
                    api=api,
                    database=database,
                )
        finally:
            await database.close()
            for service in services.values():  # before their database goes
                await asyncio.to_thread(service.stop)
