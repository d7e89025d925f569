"""Statistics: each attempt that ended is counted once, in the hour in which it ended, whoever counts and whenever."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg
import pytest

from libs.common.domain.facts import AttemptAbandoned, AttemptEnded, AttemptOutcomeUnknown, Fact, Timings
from libs.common.domain.outcome import Failure, Outcome
from libs.common.postgres import statistics
from libs.common.postgres.checkpoint import Checkpoint
from libs.common.postgres.ledger import Appended, append
from libs.common.postgres.pool import Connection, Pool, open_pool
from libs.common.runtime.clock import new_id

APP = new_id()
LEAVES = "UPDATE hookledger.checkpoint SET owner = NULL"
DIES = "UPDATE hookledger.checkpoint SET owned_until = clock_timestamp()"
Rows = dict[tuple[datetime, str], tuple[int, int]]


@pytest.fixture(scope="module")
async def pool(database: str) -> AsyncIterator[Pool]:
    async with await open_pool(database, "dispatcher", size=6) as opened:
        yield opened


@pytest.fixture
async def owner(database: str) -> AsyncIterator[Pool]:
    """Connections of the user who migrated. Nobody counts yet."""
    async with asyncpg.create_pool(database, min_size=1, max_size=4) as opened:
        await opened.execute(LEAVES)
        yield opened


async def test_attempts_are_counted_by_endpoint_hour_and_result_with_their_time(owner: Pool, pool: Pool) -> None:
    endpoint, at = new_id(), await _now(owner)
    hour = at.replace(minute=0, second=0, microsecond=0)
    before = hour - timedelta(microseconds=1)
    await _append(
        owner,
        endpoint,
        [
            _ended(hour, Outcome.SUCCEEDED, microseconds=25_001),
            _ended(at, Outcome.SUCCEEDED, microseconds=74_999),
            _ended(before, Outcome.SUCCEEDED, microseconds=3),
            _ended(at, Outcome.RETRYABLE, microseconds=61_000_001),
            _ended(at, Outcome.REFUSED, microseconds=0),
            AttemptAbandoned(at=at, attempt=new_id()),
            AttemptOutcomeUnknown(at=at, attempt=new_id()),
            AttemptOutcomeUnknown(at=at, attempt=new_id()),
        ],
    )
    await _count_all(pool, new_id())
    assert await _rows(owner, endpoint) == {
        (hour, "succeeded"): (2, 100_000),
        (before.replace(minute=0, second=0, microsecond=0), "succeeded"): (1, 3),
        (hour, "retryable"): (1, 61_000_001),
        (hour, "refused"): (1, 0),
        (hour, "abandoned"): (1, 0),
        (hour, "unknown"): (2, 0),
    }


async def test_several_that_count_at_once_and_die_at_any_moment_count_each_attempt_once(
    owner: Pool, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "BATCH", 7)
    endpoint, at = new_id(), await _now(owner)
    written = 0
    writing = True

    async def write(pause: float) -> None:
        nonlocal written
        for _ in range(25):
            async with owner.acquire() as connection, connection.transaction():
                await _append_on(connection, endpoint, [_ended(at, Outcome.SUCCEEDED)] * 4)
                await asyncio.sleep(pause)  # transactions of different lengths, so that some commit late
            written += 4

    async def count() -> None:
        """Counts as a process that is killed after a few milliseconds, and followed by another."""
        while writing:
            task = asyncio.create_task(_count_all(pool, new_id()))
            await asyncio.wait([task], timeout=0.012)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await owner.execute(DIES)

    async with asyncio.TaskGroup() as group:
        counters = [group.create_task(count()) for _ in range(2)]
        await asyncio.gather(*(write(pause) for pause in (0.0, 0.002, 0.009)))
        writing = False
        await asyncio.gather(*counters)
    await owner.execute(LEAVES)
    await _count_all(pool, new_id())
    assert [attempts for attempts, _ in (await _rows(owner, endpoint)).values()] == [written]


async def test_a_transaction_that_commits_late_is_counted_and_what_committed_meanwhile_is_too(
    owner: Pool, pool: Pool
) -> None:
    endpoint, at, process = new_id(), await _now(owner), new_id()
    async with owner.acquire() as late:
        transaction = late.transaction()
        await transaction.start()
        await _append_on(late, endpoint, [_ended(at, Outcome.SUCCEEDED)])
        await _append(owner, endpoint, [_ended(at, Outcome.SUCCEEDED)])
        await _count_all(pool, process)
        assert await _rows(owner, endpoint) == {}, "what committed waits for what began before it"
        await transaction.commit()
    await _count_all(pool, process)
    assert [attempts for attempts, _ in (await _rows(owner, endpoint)).values()] == [2]


async def test_one_process_counts_and_another_takes_over_when_it_leaves_or_dies(owner: Pool, pool: Pool) -> None:
    endpoint, at = new_id(), await _now(owner)
    one, other = new_id(), new_id()
    for process, release, counted in (
        (one, "", 1),
        (other, "", 1),
        (other, LEAVES, 3),
        (one, "", 3),
        (one, DIES, 5),
    ):
        await _append(owner, endpoint, [_ended(at, Outcome.SUCCEEDED)])
        if release:
            await owner.execute(release)
        await _count_all(pool, process)
        assert [attempts for attempts, _ in (await _rows(owner, endpoint)).values()] == [counted]


async def _count_all(pool: Pool, process: UUID) -> None:
    async with pool.acquire() as connection:
        while await statistics.count(connection, Checkpoint(statistics.FOLLOWER, process)) == statistics.BATCH:
            pass


async def _rows(owner: Pool, endpoint: UUID) -> Rows:
    rows = await owner.fetch(
        "SELECT hour, result, attempts, total_us FROM projection_1.endpoint_hour WHERE endpoint = $1", endpoint
    )
    return {(row["hour"], row["result"]): (row["attempts"], row["total_us"]) for row in rows}


async def _now(owner: Pool) -> datetime:
    now: datetime = await owner.fetchval("SELECT clock_timestamp()")
    return now


async def _append(owner: Pool, endpoint: UUID, facts: Sequence[Fact]) -> None:
    async with owner.acquire() as connection, connection.transaction():
        await _append_on(connection, endpoint, facts)


async def _append_on(connection: Connection, endpoint: UUID, facts: Sequence[Fact]) -> None:
    """Ends without their beginnings: statistics ask for no more."""
    items = [Appended(stream=new_id(), version=1, app=APP, endpoint=endpoint, fact=fact) for fact in facts]
    epoch = await connection.fetchval("SELECT max(epoch) FROM hookledger.ledger_epoch")
    await append(connection, epoch, items)


def _ended(at: datetime, outcome: Outcome, *, microseconds: int = 0) -> AttemptEnded:
    return AttemptEnded(
        at=at,
        attempt=new_id(),
        outcome=outcome,
        status=None,
        failure=Failure.TIMEOUT,
        url="http://127.0.0.1:9/",
        peer=None,
        sends=1,
        timings=Timings(total=timedelta(microseconds=microseconds)),
        base_delay=None,
        jitter=None,
        retry_after=None,
    )
