"""The platform under attack: two or more of a service, every connection between its parts a link that can be harmed."""

import asyncio
import os
import signal
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import unquote, urlsplit

import aio_pika
import asyncpg

from deploy.stack.errors import StackError
from deploy.stack.installation import Installation
from deploy.stack.isolation import Isolation
from deploy.stack.servers import Servers
from deploy.stack.services import Service
from libs.common.rabbitmq.topology import Names
from tests.faults.campaign.plan import RECEIVERS, REGISTRY, REPLICAS
from tests.support.failpoints import Failpoints
from tests.support.network import Link, address, linked, through
from tests.support.receiver import Receiver, receiving
from tests.support.tampering import LostCommits, LostConfirms

START_SECONDS: Final = 90.0
STOP_SECONDS: Final = 12.0
FIRM_SECONDS: Final = 10.0
"""A quorum queue that was declared a moment before a kill can be lost with it; after that long it is firm."""

_SETTINGS: Final = {"STOP_GRACE_MS": "5000"}
Found = TypeVar("Found")


@dataclass(slots=True, kw_only=True)
class World:
    """Everything that a fault can touch.

    Attributes:
        servers: Postgres and RabbitMQ.
        installation: the common settings, and the operator's command.
        replicas: the services, by names such as `ingress-2`.
        links: the networks, by names such as `ingress-2 to postgres`.
        failpoints: of each replica, and of the operator's command.
        commits: what can lose the answers to a replica's commits.
        confirms: what can lose the confirms of what a replica publishes.
        receiver: of all deliveries.
        key: an API key of scope admin.
        firm_at: since when (monotonic) the broker's queues survive a kill.
        killed: replicas that we have ended ourselves, and so may be found dead.
        deserted: replicas that were found dead although nobody had killed them.
    """

    servers: Servers
    installation: Installation
    replicas: dict[str, Service]
    links: dict[str, Link]
    failpoints: dict[str, Failpoints]
    commits: dict[str, LostCommits]
    confirms: dict[str, LostConfirms]
    receiver: Receiver
    key: str
    firm_at: float
    killed: set[str] = field(default_factory=set)
    deserted: list[str] = field(default_factory=list)
    _turns: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    @property
    def corner(self) -> Isolation:
        """The database, the broker and the prefix."""
        return self.installation.corner

    @property
    def database_url(self) -> str:
        """Straight to Postgres, wherever it listens now."""
        database = urlsplit(self.corner.database_url).path
        return urlsplit(self.servers.database_url)._replace(path=database).geturl()

    @property
    def names(self) -> Names:
        """Exchanges and queues."""
        return Names(self.corner.amqp_prefix)

    def turn(self, target: str) -> asyncio.Lock:
        """Held by whoever harms `target`: two faults at once would mend one another."""
        return self._turns[target]

    def doors(self) -> list[str]:
        """The front doors."""
        return [service.url for name, service in self.replicas.items() if name.startswith("ingress")]

    async def kill(self, name: str) -> None:
        """SIGKILL; returns when the replica is dead."""
        self.look_for_deserters(name)
        self.killed.add(name)
        await asyncio.to_thread(self.replicas[name].kill)

    async def start(self, name: str) -> None:
        """Start a replica, as an orchestrator does: again, if it ends because a server is away."""
        self.look_for_deserters(name)
        self.killed.add(name)  # until it is ready it may end, and is started again
        deadline = time.monotonic() + START_SECONDS
        service = self.replicas[name]
        while True:
            await asyncio.to_thread(service.start)
            try:
                await asyncio.to_thread(service.wait_ready, timeout_s=START_SECONDS)
            except StackError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.3)
            else:
                self.killed.discard(name)
                return

    async def stop(self, name: str) -> bool:
        """SIGTERM; whether the replica ended within its grace."""
        self.look_for_deserters(name)
        self.killed.add(name)
        began = time.monotonic()
        await asyncio.to_thread(self.replicas[name].stop, grace_s=STOP_SECONDS)
        return time.monotonic() - began < STOP_SECONDS

    def freeze(self, name: str) -> None:
        """SIGSTOP."""
        self._send(name, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """SIGCONT."""
        self._send(name, signal.SIGCONT)

    async def mend(self) -> None:
        """Make everything whole: networks, clocks, replicas; returns when all are ready."""
        self.retarget()
        for link in self.links.values():
            link.heal()
        for name in REPLICAS:
            self.failpoints[name].disarm()
            self.commits[name].arm(every=0)
            self.confirms[name].disarm()
            self.thaw(name)
        for name in REPLICAS:
            await self.start(name)

    def look_for_deserters(self, *names: str) -> None:
        """Note which of these replicas are dead though nobody has killed them."""
        for name in names:
            if name not in self.killed and self.replicas[name].pid is None:
                self.deserted.append(name)
                self.killed.add(name)

    def retarget(self) -> None:
        """A server that was started again may listen elsewhere."""
        for name, link in self.links.items():
            if name.endswith("to postgres"):
                link.retarget(*address(self.servers.database_url, 5432))
            elif name.endswith("to rabbitmq"):
                link.retarget(*address(self.servers.amqp_url, 5672))

    async def on_postgres(self, work: Callable[["asyncpg.Connection[asyncpg.Record]"], Awaitable[Found]]) -> Found:
        """Do `work` with a connection of the campaign's own, which no link harms."""
        connection = await asyncpg.connect(self.database_url, timeout=10)
        try:
            return await work(connection)
        finally:
            with suppress(OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.PostgresError):
                await connection.close(timeout=5)

    async def on_broker(self, work: Callable[[aio_pika.abc.AbstractChannel], Awaitable[Found]]) -> Found:
        """Do `work` with a channel of the campaign's own, which no link harms."""
        connection = await aio_pika.connect(self.servers.amqp_url, timeout=10)
        async with connection:
            return await work(await connection.channel(publisher_confirms=True, on_return_raises=True))

    def _send(self, name: str, number: signal.Signals) -> None:
        pid = self.replicas[name].pid
        if pid is not None:
            os.kill(pid, number)


@asynccontextmanager
async def at_war(servers: Servers, corner: Isolation, folder: Path, *, code: Path) -> AsyncIterator[World]:
    """A platform in `corner` whose services are imported from `code`."""
    installation = Installation(folder=folder, corner=corner, settings=_SETTINGS, code=code)
    await asyncio.to_thread(installation.migrate)
    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(receiving())
        commits = {name: LostCommits() for name in REPLICAS}
        confirms = {name: LostConfirms() for name in REPLICAS}
        failpoints = {name: Failpoints(folder / "failpoints" / name) for name in (*REPLICAS, "admin")}
        links: dict[str, Link] = {}
        for name in REPLICAS:
            database, broker = address(corner.database_url, 5432), address(corner.amqp_url, 5672)
            links[f"{name} to postgres"] = await stack.enter_async_context(
                linked(*database, tamper=commits[name].watch)
            )
            links[f"{name} to rabbitmq"] = await stack.enter_async_context(linked(*broker, tamper=confirms[name].watch))
        links[RECEIVERS] = await stack.enter_async_context(linked("127.0.0.1", receiver.port))
        replicas = {name: _replica(installation, name, links, failpoints[name]) for name in ("registry-1",)}
        links[REGISTRY] = await stack.enter_async_context(linked("127.0.0.1", replicas["registry-1"].port))
        for name in REPLICAS:
            if name not in replicas:
                replicas[name] = _replica(installation, name, links, failpoints[name])
        world = World(
            servers=servers,
            installation=installation,
            replicas=replicas,
            links=links,
            failpoints=failpoints,
            commits=commits,
            confirms=confirms,
            receiver=receiver,
            key=await asyncio.to_thread(_create_key, installation),
            firm_at=time.monotonic() + FIRM_SECONDS,
            killed=set(REPLICAS),
        )
        try:
            async with asyncio.TaskGroup() as group:
                for name in replicas:
                    group.create_task(world.start(name))
            yield world
        finally:
            for name in replicas:
                world.thaw(name)
            for link in links.values():
                link.heal()
            await asyncio.gather(*(world.stop(name) for name in replicas))


def _replica(installation: Installation, name: str, links: dict[str, Link], failpoints: Failpoints) -> Service:
    service, _, number = name.partition("-")
    corner = installation.corner
    settings = {
        "DATABASE_URL": through(links[f"{name} to postgres"], corner.database_url),
        "AMQP_URL": through(links[f"{name} to rabbitmq"], corner.amqp_url),
        **failpoints.settings,
    }
    if service == "ingress":
        settings["REGISTRY_URL"] = f"http://127.0.0.1:{links[REGISTRY].port}"
    return installation.service(service, replica=number, settings=settings)


def _create_key(installation: Installation) -> str:
    user = unquote(urlsplit(installation.corner.amqp_url).username or "guest")
    organisation = installation.admin(
        "organisation", "create", "faults", "--secret-reveal", "always", "--amqp-user", user
    )
    return installation.admin("key", "create", organisation)
