"""How each kind of fault is done, and mended. Each is real: signals, servers, sockets, locks."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final

import aio_pika
import asyncpg
from aio_pika.abc import AbstractChannel

from deploy.stack.rabbitmq import LocalRabbitMQ
from deploy.stack.services import environment
from libs.common.runtime.failpoints import Failpoint
from tests.faults.campaign.plan import REPLICAS, Fault, Kind
from tests.faults.campaign.world import FIRM_SECONDS, World
from tests.support.broker import CLOUD_EVENT

HIT_SECONDS: Final = 8.0
REBUILD_SECONDS: Final = 60.0
POISON: Final = b'{"specversion": "1.0", "poison": true}'
_POSTGRES: Final = "postgres"
_BROKER: Final = "broker"
_ENOUGH_MEMORY: Final = ("set_vm_memory_high_watermark", "absolute", "1GiB")
_BROKER_ERRORS: Final = (OSError, TimeoutError, RuntimeError, aio_pika.exceptions.AMQPError)
_POSTGRES_ERRORS: Final = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


class FaultFailedError(Exception):
    """The platform did not take the fault as it should: it does not start, stop or rebuild."""


async def inject(world: World, fault: Fault) -> bool:
    """Do it, let it last, mend it; whether it came about (a failpoint may not be reached in time).

    Raises:
        FaultFailedError: something did not come back, or did not stop.
    """
    return await _FAULTS[fault.kind](world, fault)


async def _kill(world: World, fault: Fault) -> bool:
    async with world.turn(fault.target):
        await world.kill(fault.target)
        await asyncio.sleep(fault.lasts)
        await world.start(fault.target)
    return True


async def _kill_at(world: World, fault: Fault) -> bool:
    assert fault.point is not None
    async with world.turn(fault.target):
        points = world.failpoints[fault.target]
        points.arm(fault.point, "kill")
        world.killed.add(fault.target)
        hit = await _is_hit(world, fault)
        if not hit:
            points.disarm()
        await asyncio.sleep(fault.lasts if hit else 0)
        await world.start(fault.target)
    return hit


async def _freeze(world: World, fault: Fault) -> bool:
    async with world.turn(fault.target):
        world.freeze(fault.target)
        await asyncio.sleep(fault.lasts)
        world.thaw(fault.target)
    return True


async def _freeze_at(world: World, fault: Fault) -> bool:
    assert fault.point is not None
    async with world.turn(fault.target):
        points = world.failpoints[fault.target]
        points.arm(fault.point, "freeze")
        hit = await _is_hit(world, fault)
        if hit:
            await asyncio.sleep(fault.lasts)
        points.disarm()
        world.thaw(fault.target)
    return hit


async def _is_hit(world: World, fault: Fault) -> bool:
    """Whether the armed point is reached in time; there is only something to take over when somebody has died."""
    assert fault.point is not None
    if fault.point is Failpoint.RECLAIM_IN_TRANSACTION:
        other = "dispatcher-1" if fault.target == "dispatcher-2" else "dispatcher-2"
        async with world.turn(other):
            await world.kill(other)
            hit = await _reached(world, fault)
            await world.start(other)
        return hit
    return await _reached(world, fault)


async def _reached(world: World, fault: Fault) -> bool:
    assert fault.point is not None
    try:
        await world.failpoints[fault.target].hit(fault.point, within=HIT_SECONDS)
    except AssertionError:
        return False
    return True


async def _roll(world: World, _: Fault) -> bool:
    for name in REPLICAS:
        async with world.turn(name):
            stopped = await world.stop(name)
            await world.start(name)
        if not stopped:
            raise FaultFailedError(f"{name} did not stop within its grace")
    return True


async def _clock(world: World, fault: Fault) -> bool:
    """The clock steps under a running replica, and another time while it starts."""
    async with world.turn(fault.target):
        world.failpoints[fault.target].step_clock(fault.extent)
        await asyncio.sleep(1.0)
        await world.kill(fault.target)
        await world.start(fault.target)
        await asyncio.sleep(fault.lasts)
        world.failpoints[fault.target].disarm()
    return True


async def _rebuild_killed(world: World, _: Fault) -> bool:
    points = world.failpoints["admin"]
    points.arm(Failpoint.REBUILD_CHUNK, "kill")
    settings = {"DATABASE_URL": world.database_url, **points.settings}
    first = await asyncio.to_thread(_rebuild, world, settings)
    points.disarm()
    again = await asyncio.to_thread(_rebuild, world, settings)
    if again.returncode:
        raise FaultFailedError(f"rebuild exits with {again.returncode}: {(again.stderr or again.stdout)[-300:]}")
    return first.returncode == -signal.SIGKILL


def _rebuild(world: World, settings: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "services.admin", "rebuild"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env=environment(settings),
        cwd=world.installation.code,
        timeout=REBUILD_SECONDS,
    )


# RabbitMQ


async def _broker_restart(world: World, _: Fault) -> bool:
    return await _at_the_broker(world, world.servers.broker.stop)


async def _broker_kill(world: World, fault: Fault) -> bool:
    def kill() -> None:
        world.servers.broker.kill()
        time.sleep(fault.lasts)

    return await _at_the_broker(world, kill)


async def _broker_wipe(world: World, _: Fault) -> bool:
    def wipe() -> None:
        world.servers.broker.kill()
        world.servers.broker.wipe()

    wiped = await _at_the_broker(world, wipe)
    world.firm_at = time.monotonic() + FIRM_SECONDS
    return wiped


async def _at_the_broker(world: World, harm: Callable[[], None]) -> bool:
    async with world.turn(_BROKER):
        await asyncio.sleep(max(0.0, world.firm_at - time.monotonic()))

        def down_and_up() -> None:
            harm()
            world.servers.broker.start()

        await asyncio.to_thread(down_and_up)
        world.retarget()
    return True


async def _broker_alarm(world: World, fault: Fault) -> bool:
    async with world.turn(_BROKER):
        await _control(world, "set_vm_memory_high_watermark", "0.00001")
        await asyncio.sleep(fault.lasts)
        await _control(world, *_ENOUGH_MEMORY)
    return True


async def _broker_drops(world: World, _: Fault) -> bool:
    async with world.turn(_BROKER):
        await _control(world, "close_all_connections", "the campaign says so")
    return True


async def _control(world: World, *words: str) -> None:
    broker = world.servers.broker
    assert isinstance(broker, LocalRabbitMQ), "the plan is made for the servers that there are"
    await asyncio.to_thread(broker.control, *words)


async def _confirms_lost(world: World, fault: Fault) -> bool:
    confirms = world.confirms[fault.target]
    confirms.arm()
    await asyncio.sleep(fault.lasts)
    confirms.disarm()
    return confirms.swallowed.is_set()


async def _unconfirmed_kill(world: World, fault: Fault) -> bool:
    """The broker has it, and whoever published it dies before it knows."""
    async with world.turn(fault.target):
        confirms = world.confirms[fault.target]
        confirms.arm()
        try:
            async with asyncio.timeout(HIT_SECONDS):
                await confirms.swallowed.wait()
        except TimeoutError:
            return False
        finally:
            confirms.disarm()
        await world.kill(fault.target)
        await asyncio.sleep(fault.lasts)
        await world.start(fault.target)
    return True


async def _queue_deleted(world: World, _: Fault) -> bool:
    async def delete(channel: AbstractChannel) -> bool:
        await channel.queue_delete(world.names.messages_queue)
        return True

    return await _with_the_broker(world, delete)


async def _poison(world: World, _: Fault) -> bool:
    """What no consumer can read, in both of the ways in."""

    async def publish(channel: AbstractChannel) -> bool:
        message = aio_pika.Message(POISON, content_type=CLOUD_EVENT, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        for exchange, key in (
            (world.names.publish, "campaign"),
            (world.names.messages, world.names.messages_queue),
        ):
            found = await channel.get_exchange(exchange, ensure=False)
            await found.publish(message, key, mandatory=True, timeout=5)
        return True

    return await _with_the_broker(world, publish)


async def _with_the_broker(world: World, work: Callable[[AbstractChannel], Awaitable[bool]]) -> bool:
    """Do `work` at the broker as soon as it takes it."""
    async with asyncio.timeout(HIT_SECONDS * 4):
        while True:
            try:
                return await world.on_broker(work)
            except _BROKER_ERRORS:
                await asyncio.sleep(0.3)


# Postgres


async def _postgres_kill(world: World, _: Fault) -> bool:
    return await _at_postgres(world, world.servers.postgres.kill)


async def _postgres_immediate(world: World, _: Fault) -> bool:
    def quit_at_once() -> None:
        pid = world.servers.postgres.pid
        if pid is None:
            world.servers.postgres.kill()
            return
        os.kill(pid, signal.SIGQUIT)
        while world.servers.postgres.pid is not None:
            time.sleep(0.02)

    return await _at_postgres(world, quit_at_once)


async def _at_postgres(world: World, harm: Callable[[], None]) -> bool:
    async with world.turn(_POSTGRES):

        def down_and_up() -> None:
            harm()
            world.servers.postgres.start()

        await asyncio.to_thread(down_and_up)
        world.retarget()
    return True


async def _backends_ended(world: World, fault: Fault) -> bool:
    """End whoever is in the middle of a transaction, again and again."""

    async def end(connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
        ended = 0
        until = time.monotonic() + fault.lasts
        while time.monotonic() < until:
            ended += await connection.fetchval("""
                SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                WHERE datname = current_database() AND application_name LIKE 'hookledger-%'
                  AND state IN ('active', 'idle in transaction')
            """)
            await asyncio.sleep(0.1)
        return ended > 0

    return await _with_postgres(world, end)


async def _lock_held(world: World, fault: Fault) -> bool:
    async def hold(connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
        async with connection.transaction():
            await connection.execute(f"LOCK TABLE {fault.target} IN EXCLUSIVE MODE")
            await asyncio.sleep(fault.lasts)
        return True

    return await _with_postgres(world, hold)


async def _deadlock(world: World, fault: Fault) -> bool:
    """Lock two lanes the wrong way round, while the services lock them the right way; they are to lose."""

    async def embrace(connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
        await connection.execute("SET deadlock_timeout = '20s'")
        until = time.monotonic() + 2 * fault.lasts
        while time.monotonic() < until:
            with suppress(asyncpg.DeadlockDetectedError):
                async with connection.transaction():
                    lanes = await connection.fetch(
                        "SELECT lane FROM hookledger.lane ORDER BY head_due NULLS LAST LIMIT 8"
                    )
                    for row in sorted((row["lane"] for row in lanes), reverse=True):
                        await connection.execute("SELECT FROM hookledger.lane WHERE lane = $1 FOR UPDATE", row)
                        await asyncio.sleep(0.1)
        return True

    return await _with_postgres(world, embrace)


async def _serialization(world: World, fault: Fault) -> bool:
    """A third of the services' transactions are told that they cannot be serialized, by Postgres itself."""
    tables = ("hookledger.message", "hookledger.outbox", "projection_1.delivery_state", "hookledger.registry_object")

    async def fail(connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
        await connection.execute("""
            CREATE OR REPLACE FUNCTION public.fail_sometimes() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF random() < 0.3 THEN
                    RAISE EXCEPTION 'could not serialize access' USING ERRCODE = 'serialization_failure';
                END IF;
                RETURN NULL;
            END $$
        """)
        for table in tables:
            await connection.execute(f"""
                CREATE TRIGGER fail_sometimes AFTER INSERT OR UPDATE OR DELETE ON {table}
                FOR EACH STATEMENT EXECUTE FUNCTION public.fail_sometimes()
            """)
        await asyncio.sleep(fault.lasts)
        return True

    async def stop(connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
        for table in tables:
            await connection.execute(f"DROP TRIGGER IF EXISTS fail_sometimes ON {table}")
        return True

    async with world.turn("triggers"):
        try:
            return await _with_postgres(world, fail)
        finally:
            await _with_postgres(world, stop)


async def _commits_lost(world: World, fault: Fault) -> bool:
    commits = world.commits[fault.target]
    before = commits.lost
    commits.arm(every=3)
    await asyncio.sleep(fault.lasts)
    commits.arm(every=0)
    return commits.lost > before


async def _with_postgres(world: World, work: Callable[["asyncpg.Connection[asyncpg.Record]"], Awaitable[bool]]) -> bool:
    """Do `work` at Postgres, from its beginning if another fault cuts it short."""
    async with asyncio.timeout(HIT_SECONDS * 4):
        while True:
            try:
                return await world.on_postgres(work)
            except _POSTGRES_ERRORS:
                await asyncio.sleep(0.3)


# The network


async def _latency(world: World, fault: Fault) -> bool:
    async with world.turn(fault.target):
        world.links[fault.target].latency = fault.extent
        await asyncio.sleep(fault.lasts)
        world.links[fault.target].heal()
    return True


async def _reset(world: World, fault: Fault) -> bool:
    async with world.turn(fault.target):
        until = time.monotonic() + fault.lasts
        while time.monotonic() < until:
            world.links[fault.target].reset()
            await asyncio.sleep(0.25)
    return True


async def _hold(world: World, fault: Fault) -> bool:
    async with world.turn(fault.target):
        world.links[fault.target].hold()
        await asyncio.sleep(fault.lasts)
        world.links[fault.target].heal()
    return True


async def _half_open(world: World, fault: Fault) -> bool:
    async with world.turn(fault.target):
        world.links[fault.target].half_open()
        await asyncio.sleep(fault.lasts)
        world.links[fault.target].heal()
    return True


async def _slices(world: World, fault: Fault) -> bool:
    async with world.turn(fault.target):
        world.links[fault.target].slices = True
        await asyncio.sleep(fault.lasts)
        world.links[fault.target].heal()
    return True


async def _overload(_: World, fault: Fault) -> bool:
    """The load itself does it."""
    await asyncio.sleep(fault.lasts)
    return True


_FAULTS: Final[Mapping[Kind, Callable[[World, Fault], Awaitable[bool]]]] = {
    Kind.KILL: _kill,
    Kind.KILL_AT: _kill_at,
    Kind.FREEZE: _freeze,
    Kind.FREEZE_AT: _freeze_at,
    Kind.ROLL: _roll,
    Kind.CLOCK: _clock,
    Kind.REBUILD_KILLED: _rebuild_killed,
    Kind.BROKER_RESTART: _broker_restart,
    Kind.BROKER_KILL: _broker_kill,
    Kind.BROKER_WIPE: _broker_wipe,
    Kind.BROKER_ALARM: _broker_alarm,
    Kind.BROKER_DROPS: _broker_drops,
    Kind.CONFIRMS_LOST: _confirms_lost,
    Kind.UNCONFIRMED_KILL: _unconfirmed_kill,
    Kind.QUEUE_DELETED: _queue_deleted,
    Kind.POISON: _poison,
    Kind.POSTGRES_KILL: _postgres_kill,
    Kind.POSTGRES_IMMEDIATE: _postgres_immediate,
    Kind.BACKENDS_ENDED: _backends_ended,
    Kind.LOCK_HELD: _lock_held,
    Kind.DEADLOCK: _deadlock,
    Kind.SERIALIZATION: _serialization,
    Kind.COMMITS_LOST: _commits_lost,
    Kind.LATENCY: _latency,
    Kind.RESET: _reset,
    Kind.HOLD: _hold,
    Kind.HALF_OPEN: _half_open,
    Kind.SLICES: _slices,
    Kind.OVERLOAD: _overload,
}
