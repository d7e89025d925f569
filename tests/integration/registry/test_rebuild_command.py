"""`hookledger rebuild`, as the operator sees it: what it writes, shows and exits with."""

import asyncio
import os
import pty
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import TypeAlias

import asyncpg
import pytest

from deploy.stack.services import environment
from libs.common.runtime.clock import new_id
from tests.integration.registry.history import SENDING, Place, Step, accept, deliver

STORIES: list[list[Step]] = [[200], [], [500], [500, 200], [SENDING], [500, SENDING]]
Sql: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.fixture(scope="module")
async def sql(database: str) -> AsyncIterator[Sql]:
    """A connection with the operator's rights; there are some deliveries."""
    connection = await asyncpg.connect(database)
    place = Place(org=new_id(), app=new_id())
    for story in STORIES:
        await deliver(connection, place, await accept(connection, place), new_id(), story)
    yield connection
    await connection.close()


async def test_what_is_right_is_written_by_nobody(database: str, sql: Sql) -> None:
    written_by = "SELECT delivery, xmin::text FROM projection_1.delivery_state ORDER BY delivery"
    before = await sql.fetch(written_by)
    done = await asyncio.to_thread(_rebuild, database)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "rebuild: 60 %",
        "rebuild: 80 %",
        "rebuild: 100 %",
        "rebuild: 27 ledger events, 6 deliveries (0 rows mended), 0 registry objects (0 mended)",
        "ledger: verified (6 deliveries, 5 attempts, 0 registry objects, 3 lanes, 5 rows of statistics, health of 4 endpoints)",
    ]
    assert await sql.fetch(written_by) == before


async def test_what_was_mended_is_counted(database: str, sql: Sql) -> None:
    await sql.execute("UPDATE projection_1.delivery_state SET failures = 7 WHERE status = 'waiting'")
    done = await asyncio.to_thread(_rebuild, database)
    assert done.returncode == 0, done.stderr
    assert "6 deliveries (2 rows mended)" in done.stdout


async def test_what_cannot_be_mended_is_exit_1(database: str, sql: Sql) -> None:
    stream = await sql.fetchval("SELECT delivery FROM projection_1.delivery_state LIMIT 1")
    await sql.execute("ALTER TABLE hookledger.fact DISABLE TRIGGER append_only")
    row = await sql.fetchrow("DELETE FROM hookledger.fact WHERE stream = $1 AND version = 1 RETURNING *", stream)
    done = await asyncio.to_thread(_rebuild, database)
    assert row is not None
    await sql.copy_records_to_table("fact", schema_name="hookledger", records=[tuple(row)])
    await sql.execute("ALTER TABLE hookledger.fact ENABLE TRIGGER append_only")
    assert done.returncode == 1
    assert f"delivery {stream}: left as it is, its stream cannot be folded" in done.stdout


def test_on_a_terminal_it_shows_a_bar(database: str, sql: Sql) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "services.admin", "rebuild"],
        env=environment({"DATABASE_URL": database}) | {"TERM": "xterm", "COLUMNS": "100"},
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    while process.poll() is None or shown[-1:] != b"\n":
        try:
            shown += os.read(ours, 65536)
        except OSError:  # nobody writes any more
            break
    os.close(ours)
    assert process.wait(60) == 0
    assert "━".encode() in shown
    assert b" %\r\n" not in shown


def _rebuild(database: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "services.admin", "rebuild"],
        env=environment({"DATABASE_URL": database, **settings}),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
