"""The ledger that `make bench-growth` measures in: as large, and in the order, that a week would have left it."""

from collections import Counter
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import asyncpg
import pytest

from bench import volume
from bench.growth import ledger
from libs.common.domain import ids
from libs.common.runtime.clock import new_id, unix_ms

MESSAGES, TIMES = 10, 7
IDS = {
    "hookledger.fact": ("stream",),
    "hookledger.message": ("id",),
    "hookledger.message_body": ("message",),
    "hookledger.attempt_content": ("delivery", "attempt"),
    "projection_1.delivery_state": ("delivery", "message", "attempt"),
    "projection_1.attempt": ("delivery", "attempt", "message"),
}
TABLES = pytest.mark.parametrize("table", list(IDS))
Sql = Any  # a connection of asyncpg


@pytest.fixture(scope="module")
async def sql(database: str) -> AsyncIterator[Sql]:
    connection = await asyncpg.connect(database)
    await _few(connection)
    heard: list[int] = []
    await ledger.fill(connection, TIMES * 2 * MESSAGES + 3, heard.append)
    assert heard == [number * 2 * MESSAGES for number in range(2, TIMES + 1)]
    yield connection
    await connection.close()


@TABLES
async def test_a_copy_says_what_its_original_says_but_for_ids_and_times(sql: Sql, table: str) -> None:
    moved = await sql.fetch(
        """
        SELECT attname FROM pg_attribute WHERE attrelid = $1::text::regclass AND atttypid = 'timestamptz'::regtype
        """,
        table,
    )
    others = [*IDS[table], *(row["attname"] for row in moved), "position", "xact"]
    rows = await sql.fetch(f"SELECT (to_jsonb(t) - $1::text[])::text AS said FROM {table} t", others)  # noqa: S608  a name above
    assert len(rows) == TIMES * MESSAGES * (2 if table == "hookledger.fact" else 1)
    assert {count % TIMES for count in Counter(row["said"] for row in rows).values()} == {0}


@TABLES
async def test_ids_are_spread_evenly_over_the_week_before(sql: Sql, table: str) -> None:
    found = await sql.fetch(f"SELECT DISTINCT {IDS[table][0]} AS id FROM {table} ORDER BY 1")  # noqa: S608  names above
    born = [ids.born_ms(row["id"]) for row in found]
    assert len(born) == TIMES * MESSAGES
    oldest = born[::MESSAGES]
    gaps = [later - before for before, later in pairwise(oldest)]
    assert max(gaps) - min(gaps) <= 1
    assert 0 <= ledger.WEEK_MS - TIMES * gaps[0] <= TIMES


async def test_what_belongs_together_is_copied_together(sql: Sql) -> None:
    assert not await sql.fetch("""
        SELECT FROM projection_1.attempt a
            FULL JOIN projection_1.delivery_state s USING (delivery, message)
            FULL JOIN hookledger.message m ON m.id = message
            FULL JOIN hookledger.message_body b ON b.message = m.id
            FULL JOIN hookledger.attempt_content c ON c.delivery = a.delivery AND c.attempt = a.attempt
            FULL JOIN (SELECT stream FROM hookledger.fact WHERE version = 2) f ON f.stream = a.delivery
        WHERE num_nulls(a.delivery, s.delivery, m.id, b.message, c.attempt, f.stream) > 0
    """)


async def test_times_move_with_their_ids(sql: Sql) -> None:
    rows = await sql.fetch("""
        SELECT m.id, m.accepted_at, s.created_at, f.at
        FROM hookledger.message m JOIN projection_1.delivery_state s ON s.message = m.id
            JOIN hookledger.fact f ON f.stream = s.delivery
    """)
    for row in rows:
        times = (row["accepted_at"], row["created_at"], row["at"])
        assert {round(at.timestamp() * 1000) for at in times} == {ids.born_ms(row["id"])}


async def test_the_older_copies_stand_first_in_the_ledger_s_order(sql: Sql) -> None:
    rows = await sql.fetch("SELECT stream FROM hookledger.fact ORDER BY epoch, xact, position OFFSET $1", 2 * MESSAGES)
    copied = [ids.born_ms(row["stream"]) for row in rows]
    assert copied == sorted(copied)


async def test_followers_take_the_copies_for_told(sql: Sql) -> None:
    assert await sql.fetchval("SELECT count(*) FROM hookledger.checkpoint")
    assert not await sql.fetch("""
        SELECT FROM hookledger.checkpoint c
        JOIN hookledger.fact f ON hookledger.is_followed(f.kind, f.data)
            AND (f.epoch, f.xact, f.position) > (c.epoch, c.xact, c.position)
    """)


async def _few(sql: Sql) -> None:
    """Some deliveries, each with an attempt, two facts and an answer that is kept."""
    until_ms = unix_ms()
    await volume.prepare(sql)
    place = volume.Place(org=new_id(), app=new_id(), endpoint=new_id(), until_ms=until_ms)
    await volume.history(sql, place, 1, MESSAGES)
    await sql.execute("""
        INSERT INTO hookledger.fact (stream, version, epoch, app, endpoint, kind, schema, at, data)
        SELECT delivery, n, 1, app, endpoint, 'Kind' || n, 1, created_at, 'data'
        FROM projection_1.delivery_state, generate_series(1, 2) n ORDER BY delivery, n;
        INSERT INTO hookledger.attempt_content (delivery, attempt, response, url_query)
        SELECT delivery, attempt, 'answer', 'a=1' FROM projection_1.attempt;
    """)
