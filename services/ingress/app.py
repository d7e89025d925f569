"""The ingress, put together: what runs beside what, and in which order it stops."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Final

import aiohttp
import asyncpg
import msgspec
from aiohttp import web

from libs.common.postgres.key_use import KeyUse
from libs.common.postgres.migrate import epoch as ledger_epoch
from libs.common.postgres.pool import CONNECTION_ERRORS, DatabaseUnavailableError, Pool, answers, open_pool, reason
from libs.common.postgres.snapshot import RegistrySnapshot
from libs.common.rabbitmq.broker import Broker
from libs.common.rabbitmq.connection import BrokerRefusedError, BrokerUnavailableError
from libs.common.rabbitmq.consuming import Consumer, Incoming
from libs.common.rabbitmq.topology import Names
from libs.common.runtime.express import Express
from libs.common.runtime.http import add_health, middlewares
from libs.common.runtime.lasting import lasting
from libs.common.runtime.listening import listening
from libs.common.runtime.logs import logger
from libs.common.runtime.sealing import MasterKeys
from libs.common.runtime.service import StartError
from libs.common.runtime.settings import parse_master_keys
from libs.common.runtime.waiting import set_within
from services.ingress import claims, rejections
from services.ingress.accept import Acceptor, UnavailableError
from services.ingress.allowances import Allowances
from services.ingress.broker_in import PREFETCH, BrokerIn
from services.ingress.directory import Directory
from services.ingress.front_door import FrontDoor
from services.ingress.inbound import Inbound
from services.ingress.messages import Messages
from services.ingress.plain_messages import PlainMessages
from services.ingress.poison import Parking
from services.ingress.publishing import EnvelopePublisher
from services.ingress.registry import Registry, open_session
from services.ingress.rejections import Rejections
from services.ingress.second_looks import SecondLooks
from services.ingress.settings import IngressSettings
from services.ingress.throttle import Rates, Throttle

_LOG: Final = logger("ingress")
POOL_SIZE: Final = 8
SNAPSHOT_POLL_SECONDS: Final = 5.0
HOUSEKEEPING_SECONDS: Final = 600.0
FORGOTTEN_AT_ONCE: Final = 5000
CLOSE_SECONDS: Final = 5.0
_UNAVAILABLE: Final = (UnavailableError,)
_DATABASE_ERRORS: Final = (*CONNECTION_ERRORS, asyncpg.PostgresError)


class _Announcement(msgspec.Struct):
    """What the registry says on the broker after a change."""

    version: int


_ANNOUNCEMENT: Final = msgspec.json.Decoder(_Announcement)


async def serve(settings: IngressSettings, stopping: asyncio.Event) -> None:
    """Run an ingress until `stopping`, then drain it.

    Raises:
        StartError: Postgres or the broker cannot be used, or the port is taken.
    """
    master_keys = parse_master_keys(settings.master_key)
    try:
        pool = await open_pool(settings.database_url, "ingress", size=POOL_SIZE)
    except DatabaseUnavailableError as error:
        raise StartError(str(error)) from error
    try:
        await Ingress(settings, pool, master_keys).run(stopping)
    finally:
        try:
            await asyncio.wait_for(pool.close(), CLOSE_SECONDS)
        except _DATABASE_ERRORS:
            pool.terminate()


class Ingress:
    """The parts of one ingress."""

    def __init__(self, settings: IngressSettings, pool: Pool, master_keys: MasterKeys) -> None:
        self._settings = settings
        self._pool = pool
        self._lifetime = timedelta(hours=settings.idempotency_hours)
        self._snapshot = RegistrySnapshot(pool, master_keys)
        self._directory = Directory(self._snapshot)
        self._rejections = Rejections(pool)
        self._broker = self._make_broker()
        self._key_use = KeyUse(pool)
        self._publisher = EnvelopePublisher(self._broker)
        self._ended = asyncio.Event()

    async def run(self, stopping: asyncio.Event) -> None:
        """Start, run until `stopping`, drain."""
        epoch = await self._prepare()
        await self._look_for_broker()
        self._acceptor = Acceptor(
            self._pool, self._snapshot, epoch=epoch, lifetime=self._lifetime, committed=self._publisher.offer
        )
        self._broker_in = BrokerIn(
            self._broker.names, self._acceptor, self._directory, Parking(self._broker, self._rejections)
        )
        async with open_session() as session, AsyncExitStack() as door:
            await self._open(door, session)
            async with asyncio.TaskGroup() as group:
                writing = [
                    group.create_task(self._acceptor.batcher.run()),
                    group.create_task(self._publisher.run()),
                    group.create_task(lasting("rejections", self._rejections.run, self._ended)),
                    group.create_task(lasting("key_use", self._key_use.run, self._ended)),
                ]
                group.create_task(self._broker.run())
                group.create_task(lasting("snapshot", self._keep_current, self._ended))
                group.create_task(lasting("housekeeping", self._keep_house, self._ended))
                await stopping.wait()
                await self._drain(door, writing)
                self._ended.set()
                self._broker.close()

    async def _prepare(self) -> int:
        """Make the database ready for what comes, and read the registry; the ledger's epoch."""
        try:
            await self._pool.execute("SELECT hookledger.create_partitions()")
            await self._snapshot.catch_up()
            async with self._pool.acquire() as connection:
                epoch = await ledger_epoch(connection)
        except _DATABASE_ERRORS as error:
            raise StartError(reason(error)) from error
        assert epoch is not None, "open_pool has checked it"
        return epoch

    async def _look_for_broker(self) -> None:
        try:
            await self._broker.check()
        except (BrokerRefusedError, BrokerUnavailableError) as error:
            raise StartError(str(error)) from error

    def _make_broker(self) -> Broker:
        async def publish(incoming: Incoming) -> None:
            await self._broker_in.handle(incoming)

        names = Names(self._settings.amqp_prefix)
        return Broker(
            self._settings.amqp_url,
            names,
            "hookledger-ingress",
            service="ingress",
            consumers=(
                Consumer(handle=publish, queue=names.publish_queue, prefetch=PREFETCH, limited=True),
                Consumer(handle=self._on_change, exchange=names.registry),
            ),
            connected=self._catch_up,
        )

    async def _open(self, door: AsyncExitStack, session: aiohttp.ClientSession) -> None:
        settings = self._settings
        throttle = Throttle(
            Allowances(self._pool),
            Rates(key=settings.key_messages_per_second or None, application=settings.app_messages_per_second or None),
        )
        plain = PlainMessages(self._acceptor, self._directory, throttle, self._key_use)
        http = listening(
            self._web(session, throttle),
            settings.host,
            settings.port,
            head_seconds=settings.request_timeout_ms / 1000,
            grace=settings.stop_grace_ms / 1000,
            express=Express(take=plain.take, unavailable_on=_UNAVAILABLE),
        )
        await door.enter_async_context(http)

    def _web(self, session: aiohttp.ClientSession, throttle: Throttle) -> web.Application:
        async def database() -> bool:
            return await answers(self._pool)

        async def broker() -> bool:
            return self._broker.ready

        settings = self._settings
        body_seconds = settings.request_timeout_ms / 1000
        registry = Registry(session, settings.registry_url, seconds=settings.front_door_timeout_ms / 1000)
        app = web.Application(middlewares=middlewares(_UNAVAILABLE))
        add_health(app, {"postgres": database, "rabbitmq": broker})
        acceptor, directory = self._acceptor, self._directory
        Inbound(acceptor, directory, self._rejections, throttle, body_seconds=body_seconds).add_routes(app)
        Messages(acceptor, directory, registry, throttle, self._key_use, body_seconds=body_seconds).add_routes(app)
        SecondLooks(self._pool, acceptor, directory, self._key_use, body_seconds=body_seconds).add_routes(app)
        FrontDoor(registry, body_seconds=body_seconds).add_routes(app)
        return app

    async def _drain(self, door: AsyncExitStack, writing: Sequence[asyncio.Task[None]]) -> None:
        """Take nothing more, finish what is in hand, and write what it left, within the grace."""
        accepting, publishing, rejecting, noting = writing
        try:
            async with asyncio.timeout(self._settings.stop_grace_ms / 1000 + CLOSE_SECONDS):
                await self._broker.stop_consuming()
                await asyncio.gather(door.aclose(), self._broker_in.drain())
                self._acceptor.batcher.stop()
                await accepting
                self._publisher.stop()
                self._rejections.stop()
                self._key_use.stop()
                await asyncio.gather(publishing, rejecting, noting)
        except TimeoutError:
            # Whoever waits for an answer gets none, and will come again; what was committed is in the outbox.
            _LOG.warning("ingress.stopped_undrained", waiting=len(self._acceptor.batcher))
            for task in writing:
                task.cancel()

    async def _on_change(self, incoming: Incoming) -> None:
        try:
            version = _ANNOUNCEMENT.decode(incoming.body).version
        except msgspec.DecodeError:
            _LOG.warning("registry.announcement_malformed")
            version = None
        await self._catch_up(version)
        incoming.ack()

    async def _catch_up(self, version: int | None = None) -> None:
        """Catch up as far as it goes: the next poll brings what this one could not."""
        try:
            await self._snapshot.catch_up(version)
        except _DATABASE_ERRORS as error:
            _LOG.warning("snapshot.interrupted", reason=str(error) or type(error).__name__)

    async def _keep_current(self) -> None:
        """Catch up on what was announced while nobody listened."""
        while not await set_within(self._ended, SNAPSHOT_POLL_SECONDS):
            await self._catch_up()

    async def _keep_house(self) -> None:
        """Make partitions ahead of time, and let go of keys, bodies and rejected requests whose time is over."""
        while not await set_within(self._ended, HOUSEKEEPING_SECONDS):
            try:
                await self._pool.execute("SELECT hookledger.create_partitions()")
                while await claims.forget_expired(self._pool, lifetime=self._lifetime, most=FORGOTTEN_AT_ONCE):
                    pass
                while await self._pool.fetchval("SELECT hookledger.erase_expired_bodies($1)", FORGOTTEN_AT_ONCE):
                    pass
                while await rejections.forget_old(self._pool, most=FORGOTTEN_AT_ONCE):
                    pass
            except _DATABASE_ERRORS as error:
                _LOG.warning("housekeeping.interrupted", reason=str(error) or type(error).__name__)
