"""The dispatcher, put together: what runs beside what, and in which order it stops."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, TypeAlias

import asyncpg
import orjson
from aiohttp import web

from libs.common.domain.addresses import AddressPolicy
from libs.common.domain.delivery import Delivery
from libs.common.postgres.following import Tail
from libs.common.postgres.migrate import epoch as ledger_epoch
from libs.common.postgres.pool import (
    CONNECTION_ERRORS,
    DatabaseUnavailableError,
    Pool,
    answers,
    open_pool,
    transaction,
)
from libs.common.postgres.snapshot import RegistrySnapshot
from libs.common.rabbitmq.broker import Broker
from libs.common.rabbitmq.connection import BrokerRefusedError, BrokerUnavailableError
from libs.common.rabbitmq.consuming import Consumer, Incoming
from libs.common.rabbitmq.topology import Names
from libs.common.runtime.http import add_health, middlewares
from libs.common.runtime.lasting import lasting
from libs.common.runtime.listening import listening
from libs.common.runtime.logs import logger
from libs.common.runtime.service import StartError
from libs.common.runtime.settings import parse_master_keys, parse_networks, parse_way_out
from libs.common.runtime.waiting import set_within
from services.dispatcher import backlog, events, metrics, projecting, reclaim, transitions
from services.dispatcher.attempts import Attempts
from services.dispatcher.breaking import Breaking
from services.dispatcher.cancelling import Cancelling
from services.dispatcher.capacity import Capacity
from services.dispatcher.claims import Claims
from services.dispatcher.connections import trusted
from services.dispatcher.fanout import FanOuts
from services.dispatcher.follower import Follower
from services.dispatcher.jobs import Jobs
from services.dispatcher.lease import Lease
from services.dispatcher.recorder import Recorder
from services.dispatcher.sender import Sender
from services.dispatcher.senders import SENDERS
from services.dispatcher.settings import DispatcherSettings
from services.dispatcher.skips import Skips

_LOG: Final = logger("dispatcher")
POOL_SIZE: Final = 8
IDLE_IN_TRANSACTION_SECONDS: Final = 4  # less than a lease: a frozen dispatcher's locks must not outlive it
ENVELOPES_IN_HAND: Final = 8
SNAPSHOT_POLL_SECONDS: Final = 5.0
PARTITION_SECONDS: Final = 3600.0
CLOSE_SECONDS: Final = 5.0
_Run: TypeAlias = Callable[[], Awaitable[None]]


async def serve(settings: DispatcherSettings, stopping: asyncio.Event) -> None:
    """Run a dispatcher until `stopping`, then drain it.

    Raises:
        StartError: Postgres cannot be used, or the broker refuses for good.
    """
    policy = AddressPolicy(development=settings.dev, allowed_networks=parse_networks(settings.allow_networks))
    master_keys = parse_master_keys(settings.master_key)
    egress = parse_way_out(settings.egress_proxy, settings.egress_proxy_except)
    try:
        trust = trusted(settings.ca_file)
    except OSError as error:
        raise StartError(f"HOOKLEDGER_CA_FILE: {settings.ca_file}: {error.strerror or error}") from None
    if settings.dev:
        _LOG.warning("development", means="http, private addresses, plain host names and any port are allowed")
    try:
        pool = await open_pool(
            settings.database_url,
            "dispatcher",
            size=POOL_SIZE,
            idle_in_transaction_seconds=IDLE_IN_TRANSACTION_SECONDS,
        )
    except DatabaseUnavailableError as error:
        raise StartError(str(error)) from error
    try:
        async with SENDERS[settings.sender](policy, egress=egress, trust=trust) as sender:
            snapshot = RegistrySnapshot(pool, master_keys)
            await Dispatcher(settings, pool, snapshot, sender, policy).run(stopping)
    finally:
        try:
            await asyncio.wait_for(pool.close(), CLOSE_SECONDS)
        except (*CONNECTION_ERRORS, asyncpg.PostgresError):
            pool.terminate()


class Dispatcher:
    """The parts of one dispatcher."""

    def __init__(
        self,
        settings: DispatcherSettings,
        pool: Pool,
        snapshot: RegistrySnapshot,
        sender: Sender,
        policy: AddressPolicy,
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._snapshot = snapshot
        self._sender = sender
        self._policy = policy
        self._idle = asyncio.Event()
        self._ended = asyncio.Event()
        self._unheard = asyncio.Event()

    async def run(self, stopping: asyncio.Event) -> None:
        """Start, run until `stopping`, drain."""
        async with self._pool.acquire() as connection:
            epoch = await ledger_epoch(connection)
        assert epoch is not None, "open_pool has checked it"
        await self._pool.execute("SELECT hookledger.create_partitions()")
        await self._snapshot.catch_up()
        self._assemble(epoch)
        await self._look_for_broker()
        await self._lease.begin()
        async with (
            listening(self._web(), self._settings.host, self._settings.port, grace=0.0),
            asyncio.TaskGroup() as group,
        ):
            batchers = [
                group.create_task(self._fan_outs.batcher.run()),
                group.create_task(self._recorder.batcher.run()),
            ]
            group.create_task(self._broker.run())
            to_the_end = [
                group.create_task(lasting(part, run, self._ended))
                for part, run in self._parts_to_the_end(epoch).items()
            ]
            working = [
                group.create_task(lasting(part, run, stopping)) for part, run in self._working_parts(stopping).items()
            ]
            await stopping.wait()
            await self._drain(epoch, working, batchers)
            await asyncio.gather(*to_the_end)
            self._broker.close()

    def _parts_to_the_end(self, epoch: int) -> dict[str, _Run]:
        """What goes on while what is under way is drained."""
        ended, process = self._ended, self._lease.process
        return {
            "lease": partial(self._lease.run, ended),
            "reclaim": partial(reclaim.run, self._pool, epoch, self._snapshot, ended),
            "follower": partial(self._follower.run, ended),
            **{
                projection.follower: partial(projecting.run, self._pool, process, projection, ended)
                for projection in (*projecting.through(self._tail), *projecting.OPERATIONAL)
            },
            "backlog": partial(backlog.run, self._pool, ended),
            "breaking": partial(self._breaking.run, ended),
        }

    def _working_parts(self, stopping: asyncio.Event) -> dict[str, _Run]:
        """What brings new work, and ends when the service is told to stop."""
        return {
            "sweep": self._fan_outs.sweep,
            "claims": partial(self._claims.run, stopping),
            "skips": partial(self._skips.run, stopping),
            "cancelling": partial(self._cancelling.run, stopping),
            "jobs": partial(self._jobs.run, stopping),
            "snapshot": partial(self._keep_current, stopping),
            "partitions": partial(self._keep_partitions, stopping),
        }

    def _assemble(self, epoch: int) -> None:
        settings, pool = self._settings, self._pool
        self._capacity = Capacity(settings.max_concurrency)
        metrics.IN_FLIGHT.set_function(lambda: self._capacity.in_flight)
        self._lease = Lease(pool, self._drop_attempts, self._capacity.shared_anew)
        self._breaking = Breaking(
            pool=pool, lease=self._lease, snapshot=self._snapshot, policy=settings.breaker, waiting=self._note
        )
        self._recorder = Recorder(pool, epoch, self._lease, self._note, self._breaking)
        self._attempts = Attempts(self._sender, self._recorder, self._lease, self._capacity, self._policy)
        self._claims = Claims(
            pool=pool,
            epoch=epoch,
            lease=self._lease,
            snapshot=self._snapshot,
            capacity=self._capacity,
            attempts=self._attempts,
            breaking=self._breaking,
        )
        self._skips = Skips(pool, epoch, self._lease, self._note)
        self._cancelling = Cancelling(pool=pool, epoch=epoch, lease=self._lease, snapshot=self._snapshot)
        self._jobs = Jobs(pool=pool, epoch=epoch, lease=self._lease, snapshot=self._snapshot, requested=self._note)
        self._fan_outs = FanOuts(
            pool=pool,
            epoch=epoch,
            lease=self._lease,
            snapshot=self._snapshot,
            capacity=self._capacity,
            attempts=self._attempts,
            waiting=self._note,
            breaking=self._breaking,
        )
        names = Names(settings.amqp_prefix)
        self._broker = Broker(
            settings.amqp_url,
            names,
            "hookledger-dispatcher",
            service="dispatcher",
            consumers=(
                Consumer(handle=self._fan_outs.on_envelope, queue=names.messages_queue, prefetch=ENVELOPES_IN_HAND),
                Consumer(handle=self._on_change, exchange=names.registry),
            ),
            connected=self._catch_up_soon,
        )
        self._tail = Tail(events.KINDS | projecting.KINDS)
        self._follower = Follower(pool, self._broker, self._lease.process, self._tail)

    async def _drain(
        self, epoch: int, working: Sequence[asyncio.Task[None]], batchers: Sequence[asyncio.Task[None]]
    ) -> None:
        """Take no new work, let sends under way end, record, and leave nothing in flight."""
        await self._broker.stop_consuming()
        self._fan_outs.stop()
        self._look_now()
        self._unheard.set()
        await asyncio.gather(*working)
        await batchers[0]
        await self._attempts.drain(self._settings.stop_grace_ms / 1000)
        self._recorder.batcher.stop()
        await batchers[1]
        try:
            async with transaction(self._pool) as connection:
                left = await reclaim.take_over(connection, epoch, self._lease.process, self._snapshot.holds)
            transitions.count_ended(left)
            if left:
                _LOG.warning("dispatcher.unknown_at_stop", deliveries=len(left))
            await self._lease.end()
        except (*CONNECTION_ERRORS, asyncpg.PostgresError) as error:
            _LOG.warning("dispatcher.left_to_others", reason=str(error))
        self._ended.set()
        self._breaking.wake()

    async def _look_for_broker(self) -> None:
        try:
            await self._broker.check()
        except BrokerRefusedError as error:
            raise StartError(str(error)) from error
        except BrokerUnavailableError as error:
            # Everything is in Postgres: a dispatcher delivers without a broker, and connects when there is one.
            _LOG.warning("broker.unreachable", reason=str(error), means="messages are taken from Postgres meanwhile")

    async def _on_change(self, incoming: Incoming) -> None:
        incoming.ack()  # one that cannot be followed now need not come again: the next poll brings what it told
        try:
            version = int(orjson.loads(incoming.body)["version"])
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            _LOG.warning("registry.announcement_malformed")
            return
        await self._snapshot.catch_up(version)
        self._look_now()

    async def _catch_up_soon(self) -> None:
        """Announcements may have gone unheard: look at once, apart from the broker, whose state is not Postgres's."""
        self._unheard.set()

    async def _keep_current(self, stopping: asyncio.Event) -> None:
        """Catch up on what was announced while nobody listened."""
        while not stopping.is_set():
            await set_within(self._unheard, SNAPSHOT_POLL_SECONDS)
            self._unheard.clear()
            try:
                before = self._snapshot.version
                await self._snapshot.catch_up()
                if self._snapshot.version != before:
                    self._look_now()
            except (*CONNECTION_ERRORS, asyncpg.PostgresError) as error:
                _LOG.warning("snapshot.interrupted", reason=str(error) or type(error).__name__)

    async def _keep_partitions(self, stopping: asyncio.Event) -> None:
        while not await set_within(stopping, PARTITION_SECONDS):
            try:
                await self._pool.execute("SELECT hookledger.create_partitions()")
            except (*CONNECTION_ERRORS, asyncpg.PostgresError) as error:
                _LOG.warning("partitions.interrupted", reason=str(error) or type(error).__name__)

    async def _drop_attempts(self) -> None:
        await self._attempts.drop()

    def _note(self, waiting: Sequence[Delivery]) -> None:
        self._claims.note(waiting)
        self._cancelling.note(waiting)

    def _look_now(self) -> None:
        """The registry has changed, or it is time to stop."""
        self._claims.note([])
        self._cancelling.wake()
        self._jobs.wake()

    def _web(self) -> web.Application:
        async def database() -> bool:
            return await answers(self._pool)

        async def broker() -> bool:
            return self._broker.ready

        async def lease() -> bool:
            return self._lease.held

        app = web.Application(middlewares=middlewares(CONNECTION_ERRORS))
        add_health(app, {"postgres": database, "rabbitmq": broker, "lease": lease})
        return app
