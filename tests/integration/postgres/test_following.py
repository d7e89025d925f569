"""Following the ledger: what one follower of a process has read, the others need not read again."""

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

import asyncpg
import pytest

from libs.common.domain.facts import AttemptAbandoned, AttemptOutcomeUnknown
from libs.common.postgres import following
from libs.common.postgres.checkpoint import BEGINNING, Cursor
from libs.common.postgres.following import Read, ReadOn, Tail, read_on
from libs.common.postgres.ledger import Appended, append
from libs.common.runtime.clock import new_id, now
from tests.support.patience import eventually

Sql = Any  # a connection of asyncpg
ABANDONED, UNKNOWN = AttemptAbandoned.__name__, AttemptOutcomeUnknown.__name__
BOTH = (ABANDONED, UNKNOWN)


class Reader:
    """A connection, and how often it was read with."""

    def __init__(self, sql: Sql) -> None:
        self._sql = sql
        self.reads = 0

    async def fetch(self, query: str, *values: object) -> Sequence[asyncpg.Record]:
        self.reads += 1
        found: Sequence[asyncpg.Record] = await self._sql.fetch(query, *values)
        return found


class Ledger:
    """A ledger that grows, and who reads it."""

    def __init__(self, writer: Sql, reader: Any, begin: Cursor) -> None:
        self._writer = writer
        self.reader = reader
        self.begin = self.end = begin

    async def grow(self, count: int) -> None:
        """Append so many facts, of both kinds in turn; returns when they can be followed."""
        stream, app, endpoint, at = new_id(), new_id(), new_id(), now()
        kinds: list[type[AttemptAbandoned | AttemptOutcomeUnknown]] = [AttemptAbandoned, AttemptOutcomeUnknown] * count
        facts = [
            Appended(stream=stream, version=version, app=app, endpoint=endpoint, fact=kind(at=at, attempt=new_id()))
            for version, kind in enumerate(kinds[:count], start=1)
        ]
        async with self._writer.transaction():
            await append(self._writer, 1, facts)
        read = await eventually(
            lambda: read_on(self._writer, self.end, kinds=(), most=count), lambda read: read.facts == count
        )
        self.end = read.last


@pytest.fixture
async def ledger(database: str) -> AsyncIterator[Ledger]:
    writer, reader = await asyncpg.connect(database), await asyncpg.connect(database)
    _, begin, _ = await followed(writer, read_on, since=BEGINNING)
    yield Ledger(writer, Reader(reader), begin)
    await writer.close()
    await reader.close()


async def followed(
    sql: Sql, read: ReadOn, *, since: Cursor, kinds: Collection[str] = BOTH, most: int = 100
) -> tuple[int, Cursor, Sequence[Appended]]:
    """What a follower finds who goes on until there is nothing more: facts of any kind, its place, and those wanted."""
    facts, cursor = 0, since
    found: list[Appended] = []
    while (batch := await read(sql, cursor, kinds=kinds, most=most)).facts:
        facts, cursor = facts + batch.facts, batch.last
        found += batch.found
    return facts, cursor, found


async def test_followers_at_the_same_place_read_the_ledger_once(ledger: Ledger) -> None:
    tail = Tail(BOTH)
    await ledger.grow(10)
    batches: list[Read] = [
        await tail.read_on(ledger.reader, ledger.begin, kinds=kinds, most=100)
        for kinds in (BOTH, (ABANDONED,), (UNKNOWN,))
    ]
    assert ledger.reader.reads == 1
    assert [(batch.facts, batch.last) for batch in batches] == [(10, ledger.end)] * 3
    both, abandoned, unknown = ([item.version for item in batch.found] for batch in batches)
    assert (both, abandoned, unknown) == ([*range(1, 11)], [1, 3, 5, 7, 9], [2, 4, 6, 8, 10])


async def test_one_who_looks_less_often_gets_at_once_what_others_read_piece_by_piece(ledger: Ledger) -> None:
    tail, place = Tail(BOTH), ledger.begin
    for count in (3, 1, 4):
        await ledger.grow(count)
        place = (await tail.read_on(ledger.reader, place, kinds=(UNKNOWN,), most=100)).last
    reads = ledger.reader.reads
    batch = await tail.read_on(ledger.reader, ledger.begin, kinds=(ABANDONED,), most=100)
    assert (batch.facts, batch.last, len(batch.found)) == (8, ledger.end, 5)
    assert ledger.reader.reads == reads


@pytest.mark.parametrize("most", [1, 2, 7, 100])
@pytest.mark.parametrize("behind", [1, 4, 6, 9])
async def test_from_any_place_a_follower_finds_what_it_would_find_alone(ledger: Ledger, most: int, behind: int) -> None:
    tail, place = Tail(BOTH, keep=6), ledger.begin
    for _ in range(4):
        await ledger.grow(3)
        place = (await tail.read_on(ledger.reader, place, kinds=BOTH, most=100)).last
    since = (await read_on(ledger.reader, ledger.begin, kinds=(), most=behind)).last
    alone = await followed(ledger.reader, read_on, since=since, most=most)
    assert await followed(ledger.reader, tail.read_on, since=since, most=most) == alone
    whole = await followed(ledger.reader, read_on, since=ledger.begin)
    assert await followed(ledger.reader, tail.read_on, since=ledger.begin, most=most) == whole


async def test_who_comes_from_elsewhere_goes_on_from_there(ledger: Ledger) -> None:
    """Another process has followed for a while, and has died."""
    tail = Tail(BOTH)
    await ledger.grow(5)
    await tail.read_on(ledger.reader, ledger.begin, kinds=BOTH, most=100)
    await ledger.grow(5)
    elsewhere = ledger.end
    await ledger.grow(5)
    batch = await tail.read_on(ledger.reader, elsewhere, kinds=BOTH, most=100)
    assert (batch.facts, batch.last) == (5, ledger.end)
    whole = await followed(ledger.reader, read_on, since=ledger.begin)
    assert await followed(ledger.reader, tail.read_on, since=ledger.begin) == whole


async def test_who_comes_to_a_place_where_no_followed_fact_stands_goes_on_from_there(ledger: Ledger) -> None:
    """Checkpoints stood at facts of any kind once, and where nobody wanted anything they stand at no fact's place."""
    tail = Tail(BOTH)
    await ledger.grow(3)
    ahead = ledger.end._replace(position=ledger.end.position + 1)
    await ledger.grow(5)
    assert (await tail.read_on(ledger.reader, ahead, kinds=BOTH, most=100)).facts == 5
    behind = ledger.begin
    for facts, last in ((3, None), (5, ledger.end), (0, ledger.end)):
        batch = await tail.read_on(ledger.reader, behind, kinds=BOTH, most=100)
        assert batch.facts == facts
        assert last is None or batch.last == last
        behind = batch.last


async def test_the_ledger_is_followed_by_an_index_that_holds_nothing_else(database: str) -> None:
    connection = await asyncpg.connect(database)
    try:
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        rows = await connection.fetch(f"EXPLAIN (COSTS OFF) {following._NEXT}", *BEGINNING, 100, None, None, None)
    finally:
        await connection.close()
    plan = "\n".join(row[0] for row in rows)
    assert "Merge Append" in plan
    assert "Sort  " not in plan.replace("Sort Key", "")
    assert plan.count('Index Cond: ((ROW(epoch, xact, "position") > ') == plan.count("Index Scan using fact_") > 4
    assert "is_followed" not in plan  # it is the index's own condition, and what it stands for needs no looking at


async def test_where_nothing_has_come_there_is_nothing(ledger: Ledger) -> None:
    tail = Tail(BOTH)
    batch = await tail.read_on(ledger.reader, ledger.begin, kinds=BOTH, most=5)
    assert (batch.facts, batch.last) == (0, ledger.begin)
    await ledger.grow(1)
    batch = await tail.read_on(ledger.reader, ledger.begin, kinds=BOTH, most=5)
    assert (batch.facts, batch.last) == (1, ledger.end)
