"""Harm to Postgres, and to the transactions that run there."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import asyncpg

from tests.faults.campaign.plan import Fault
from tests.faults.campaign.world import World

REACH_SECONDS: Final = 32.0
_POSTGRES: Final = "postgres"
_POSTGRES_ERRORS: Final = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


async def kill(world: World, _: Fault) -> bool:
    return await _at_postgres(world, world.servers.postgres.kill)


async def immediate(world: World, _: Fault) -> bool:
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


async def backends_ended(world: World, fault: Fault) -> bool:
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


async def lock_held(world: World, fault: Fault) -> bool:
    async def hold(connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
        async with connection.transaction():
            await connection.execute(f"LOCK TABLE {fault.target} IN EXCLUSIVE MODE")
            await asyncio.sleep(fault.lasts)
        return True

    return await _with_postgres(world, hold)


async def deadlock(world: World, fault: Fault) -> bool:
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


async def serialization(world: World, fault: Fault) -> bool:
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


async def commits_lost(world: World, fault: Fault) -> bool:
    commits = world.commits[fault.target]
    before = commits.lost
    commits.arm(every=3)
    await asyncio.sleep(fault.lasts)
    commits.arm(every=0)
    return commits.lost > before


async def _with_postgres(world: World, work: Callable[["asyncpg.Connection[asyncpg.Record]"], Awaitable[bool]]) -> bool:
    """Do `work` at Postgres, from its beginning if another fault cuts it short."""
    async with asyncio.timeout(REACH_SECONDS):
        while True:
            try:
                return await world.on_postgres(work)
            except _POSTGRES_ERRORS:
                await asyncio.sleep(0.3)
