"""Rebuild of 200,000 ledger events: from nothing, killed in the middle, and equal row by row to what was live."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest

from deploy.stack.services import environment
from libs.common.postgres import statistics
from libs.common.postgres.checkpoint import Checkpoint
from libs.common.postgres.pool import connect
from libs.common.runtime.clock import new_id
from libs.common.runtime.failpoints import HIT, Failpoint
from tests.integration.dispatcher.volume import write_history
from tests.integration.dispatcher.world import World, world_in

EVENTS = 200_000
CHUNK_OF_THE_KILL = 9

COMPARED = {
    "projection_1.delivery_state": "*",
    "projection_1.attempt": "*",
    "projection_1.endpoint_hour": "*",
    "hookledger.registry_object": "*",
    "hookledger.queue": "delivery, lane, owner, counted, CASE WHEN owner IS NULL THEN due_at END",
    "hookledger.lane": "lane, app, endpoint, head_due, inflight, max_inflight, ready_at < 'infinity'",
    "hookledger.app_turn": "app, ready_at < 'infinity'",
}
"""What rebuild makes, with its columns; when exactly a lane's turn comes is nobody's promise."""

TWINS = """
    CREATE FUNCTION pg_temp.twin(id uuid, number integer) RETURNS uuid LANGUAGE sql AS $$
        SELECT (left(replace(id::text, '-', ''), 12) || left(md5(id::text || number), 20))::uuid
    $$;
    INSERT INTO hookledger.fact (stream, version, epoch, app, endpoint, kind, schema, at, data)
    SELECT pg_temp.twin(stream, n), version, epoch, app, endpoint, kind, schema, at, data
    FROM hookledger.fact, generate_series(1, 9) n WHERE endpoint IS NOT NULL ORDER BY position;
    INSERT INTO projection_1.delivery_state SELECT pg_temp.twin(delivery, n), app, message, endpoint, status, version,
        run, attempts, failures, unknowns, attempt, process, last_status, due_at, created_at, updated_at
    FROM projection_1.delivery_state, generate_series(1, 9) n;
    INSERT INTO projection_1.attempt SELECT pg_temp.twin(delivery, n), attempt, app, message, endpoint, run, number,
        trigger, config_version, signing_key, process, result, status, failure, url, peer, sends, total_us, started_at,
        ended_at
    FROM projection_1.attempt, generate_series(1, 9) n;
    INSERT INTO hookledger.queue SELECT pg_temp.twin(delivery, n), lane, due_at, owner, counted
    FROM hookledger.queue, generate_series(1, 9) n;
    UPDATE hookledger.lane SET inflight = inflight * 10;
"""
"""Ten of each delivery, so that few of them have to be written one by one."""

Sql: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.fixture(scope="module")
async def sql(database: str) -> AsyncIterator[Sql]:
    """A connection with the operator's rights. The schema `live` holds copies of what dispatchers wrote."""
    connection = await connect(database)
    async with world_in(database) as world:
        await _write(world, connection)
    await connection.execute("CREATE SCHEMA live")
    for table in COMPARED:
        await connection.execute(f"CREATE TABLE live.{table.rpartition('.')[2]} AS TABLE {table}")
    # A lane in which nothing waits is made when something does.
    await connection.execute("DELETE FROM live.lane WHERE head_due IS NULL AND inflight = 0")
    yield connection
    await connection.close()


@pytest.mark.timeout(300)  # some twenty seconds, on a machine of one's own
async def test_a_rebuild_from_nothing_that_is_killed_is_run_again_and_equals_what_was_live(
    database: str, sql: Sql, tmp_path: Path
) -> None:
    await sql.execute(f"TRUNCATE {', '.join(COMPARED)}, hookledger.checkpoint")
    armed = tmp_path / Failpoint.REBUILD_CHUNK
    armed.write_text(f"kill {CHUNK_OF_THE_KILL}")
    killed = await asyncio.to_thread(_rebuild, database, FAILPOINTS=str(tmp_path))
    assert killed.returncode == -signal.SIGKILL
    assert armed.with_name(armed.name + HIT).exists()
    half = await sql.fetchval("SELECT count(*) FROM projection_1.delivery_state")
    whole = await sql.fetchval("SELECT count(*) FROM live.delivery_state")
    assert 0 < half < whole

    began = time.monotonic()
    done = await asyncio.to_thread(_rebuild, database)
    seconds = time.monotonic() - began
    assert done.returncode == 0, done.stdout + done.stderr
    *progress, rebuilt, verified = done.stdout.splitlines()
    assert progress == [f"rebuild: {percent} %" for percent in range(10, 101, 10)]
    events = await sql.fetchval("SELECT count(*) FROM hookledger.fact")
    assert events >= EVENTS
    print(f"rebuilt and verified {events} ledger events in {seconds:.1f} s")
    assert rebuilt.startswith(f"rebuild: {events} ledger events, {whole} deliveries")
    assert verified.startswith(f"ledger: verified ({whole} deliveries, ")
    assert await _differences(sql) == dict.fromkeys(COMPARED, 0)


async def _write(world: World, connection: Sql) -> None:
    process = new_id()
    await connection.execute(
        """
        INSERT INTO hookledger.process (id, epoch, service, host, started_at, alive_until)
        VALUES ($1, 1, 'dispatcher', 'test', now(), now() + interval '1 h')
        """,
        process,
    )
    await write_history(world, connection, process=process, messages=20, endpoints=200)
    await connection.execute(TWINS)
    checkpoint = Checkpoint(statistics.FOLLOWER, process)
    began, counted = time.monotonic(), 0
    while facts := await statistics.count(connection, checkpoint):
        counted += facts
    print(f"statistics: {(time.monotonic() - began) / counted * 1e6:.1f} µs for each ledger event")
    await checkpoint.leave(connection)


async def _differences(sql: Sql) -> dict[str, int]:
    """For each table, the rows that only one of the two has: live, and rebuilt."""
    return {
        table: await sql.fetchval(f"""
            SELECT count(*) FROM (
                (SELECT {columns} FROM {table} EXCEPT ALL SELECT {columns} FROM live.{table.rpartition(".")[2]})
                UNION ALL
                (SELECT {columns} FROM live.{table.rpartition(".")[2]} EXCEPT ALL SELECT {columns} FROM {table})
            ) different
        """)  # noqa: S608  names of this file
        for table, columns in COMPARED.items()
    }


def _rebuild(database: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "services.admin", "rebuild"],
        env=environment({"DATABASE_URL": database, **settings}),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
