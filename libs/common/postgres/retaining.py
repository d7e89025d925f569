"""Letting go of the oldest weeks of the ledger, with all that stands beside their facts, while the system runs.

A week goes when it lies before a given time, nothing in it is open, and whoever follows the ledger has passed it. Its
tables are detached first, one after another, for which nobody else waits and after which nothing can be added to them.
Then, in one short transaction, they are dropped, and what the facts that stay are folded on is written down: the health
that they begin with, and those attempts that ended later than their week. Statistics of hours that lie before what is
kept go too. What is killed in between goes on when it is run again; until then there is nothing to compare, and
`verify` and `rebuild` refuse.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from msgspec import Struct

from libs.common.domain import ids
from libs.common.postgres import health, statistics
from libs.common.postgres.pool import Connection, connect
from libs.common.runtime.failpoints import Failpoint, reach

_LOCK: Final = 0x72657461  # "reta"
_WEEK: Final = timedelta(milliseconds=ids.WEEK_MS)
_TABLES: Final = (
    "projection_1.delivery_state",
    "projection_1.attempt",
    "hookledger.attempt_content",
    "hookledger.message_body",
    "hookledger.message",
    "hookledger.fact",
)
"""Partitioned by week, each under its name with the week's first day behind it; without the first one, nothing begins
in the others.
"""
_SECONDS: Final = 3600.0
"""For one statement: the attempts of a week are many."""
_FOUND: Final = """
    SELECT n.nspname || '.' || left(c.relname, -9) AS parent, right(c.relname, 8) AS day, c.relispartition AS attached,
        coalesce((SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = c.oid), false) AS pending
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND c.relname ~ '_[0-9]{8}$' AND n.nspname || '.' || left(c.relname, -9) = ANY($1)
"""


class RetainingError(Exception):
    """A week is let go of, or was by half; or none can be, because of what else is done."""


class Retained(Struct, kw_only=True):
    """What was let go of.

    Attributes:
        weeks: their first days.
        facts: how many were in them.
        kept: the week that stayed though it lies before that time, and why; with it stay all that follow.
    """

    weeks: list[datetime]
    facts: int = 0
    kept: tuple[datetime, str] | None = None


class _Table(Struct, frozen=True, kw_only=True):
    """One week of a partitioned table. `attached`: it still belongs to that; `pending`: not for long."""

    attached: bool
    pending: bool


class _Week(Struct, frozen=True, kw_only=True):
    """A week and what is there of its tables."""

    begins: datetime
    tables: dict[str, _Table]

    @property
    def ends(self) -> datetime:
        return self.begins + _WEEK

    @property
    def bounds(self) -> tuple[UUID, UUID]:
        """Ids from the first up to, and not, the second."""
        return _lowest(self.begins), _lowest(self.ends)

    @property
    def detached(self) -> bool:
        """Whether it was begun with."""
        return any(not table.attached or table.pending for table in self.tables.values())

    def name(self, parent: str) -> str:
        """Of its part of a table."""
        return f"{parent}_{self.begins:%Y%m%d}"


async def retain(url: str, *, keep: timedelta, say: Callable[[str], None]) -> Retained:
    """Let go of the weeks that ended longer ago than `keep`, the oldest first, as far as they are over.

    Args:
        url: of the user who owns the tables.
        keep: for how long everything stays.
        say: takes lines for the operator.

    Raises:
        DatabaseUnavailableError: with one line for the operator.
        RetainingError: somebody verifies, rebuilds or retains.
    """
    connection = await connect(url)
    try:
        if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
            raise RetainingError("the ledger is being verified, rebuilt or retained: try again when that is over")
        await connection.execute("SET enable_seqscan = on")  # some tables are read from end to end
        before = await connection.fetchval("SELECT clock_timestamp()") - keep
        retained = Retained(weeks=[])
        for week in await _weeks(connection):
            if week.ends > before:
                break
            why = await _reason_to_stay(connection, week) or await _detach(connection, week)
            if why is not None:
                retained.kept = week.begins, why
                break
            facts = await _drop(connection, week)
            say(f"retain: the week of {week.begins:%Y-%m-%d} is dropped: {facts} ledger events")
            retained.weeks.append(week.begins)
            retained.facts += facts
        return retained
    finally:
        await connection.close()


@asynccontextmanager
async def whole_ledger(connection: Connection) -> AsyncIterator[None]:
    """Meanwhile no week is let go of.

    Raises:
        RetainingError: one is, or was, and not to the end.
    """
    if not await connection.fetchval("SELECT pg_try_advisory_lock_shared($1)", _LOCK):
        raise RetainingError("weeks of the ledger are being let go of: try again when `hookledger retain` is over")
    try:
        if any(week.detached for week in await _weeks(connection)):
            raise RetainingError("a week of the ledger is let go of by half: run `hookledger retain` again first")
        yield
    finally:
        await connection.execute("SELECT pg_advisory_unlock_shared($1)", _LOCK)


async def _weeks(connection: Connection) -> list[_Week]:
    found: dict[datetime, dict[str, _Table]] = {}
    for row in await connection.fetch(_FOUND, _TABLES):
        begins = datetime.strptime(row["day"], "%Y%m%d").replace(tzinfo=UTC)
        found.setdefault(begins, {})[row["parent"]] = _Table(attached=row["attached"], pending=row["pending"])
    return [_Week(begins=begins, tables=tables) for begins, tables in sorted(found.items())]


async def _reason_to_stay(connection: Connection, week: _Week) -> str | None:
    """Why a week cannot go yet."""
    lacking = [parent for parent in _TABLES if parent not in week.tables]
    if lacking:
        return f"it has no part of {', '.join(lacking)}"
    unfinished = await _unfinished(connection, week)
    if unfinished is not None:
        return unfinished
    behind = await _behind(connection, week)
    return f"not all of it is read yet by: {', '.join(behind)}" if behind else None


async def _unfinished(connection: Connection, week: _Week) -> str | None:
    count = await connection.fetchval(
        """
        SELECT (SELECT count(*) FROM hookledger.queue WHERE delivery >= $1 AND delivery < $2)
            + (SELECT count(*) FROM hookledger.outbox WHERE message >= $1 AND message < $2)
        """,
        *week.bounds,
    )
    return f"{count} of its messages or deliveries are not over" if count else None


async def _behind(connection: Connection, week: _Week) -> list[str]:
    """Who follows the ledger and has not passed all of the week's facts."""
    rows = await connection.fetch(
        f"""
        WITH last AS (
            SELECT f.epoch, f.xact, f.position FROM {week.name("hookledger.fact")} f
            WHERE hookledger.is_followed(f.kind, f.data)
            ORDER BY f.epoch DESC, f.xact DESC, f.position DESC LIMIT 1
        )
        SELECT follower FROM last,
            (SELECT unnest($1::text[]) AS follower UNION SELECT follower FROM hookledger.checkpoint) known
            LEFT JOIN hookledger.checkpoint c USING (follower)
        WHERE c.epoch IS NULL OR (c.epoch, c.xact, c.position) < (last.epoch, last.xact, last.position)
        ORDER BY follower
        """,  # noqa: S608  a name of ours
        [statistics.FOLLOWER, health.FOLLOWER],
    )
    return [row["follower"] for row in rows]


async def _detach(connection: Connection, week: _Week) -> str | None:
    """Take a week's tables from their parents; it waits for transactions under way, and none waits for it.

    Returns:
        Why it stays after all, where something of it was begun in the last moment.
    """
    for parent in _TABLES:
        table, name = week.tables[parent], week.name(parent)
        if table.attached:
            how = "FINALIZE" if table.pending else "CONCURRENTLY"
            await connection.execute(f"ALTER TABLE {parent} DETACH PARTITION {name} {how}", timeout=_SECONDS)
            reach(Failpoint.RETAIN_STEP)
        if parent == _TABLES[0] and (unfinished := await _unfinished(connection, week)) is not None:
            low, high = week.bounds
            bounds = f"FROM ('{low}') TO ('{high}')"
            await connection.execute(f"ALTER TABLE {parent} ATTACH PARTITION {name} FOR VALUES {bounds}")
            return unfinished
    return None


async def _drop(connection: Connection, week: _Week) -> int:
    """Drop a week's detached tables, and write down what the rest is folded on; how many facts they held."""
    names = {parent: week.name(parent) for parent in _TABLES}
    fact = names["hookledger.fact"]
    facts: int = await connection.fetchval(f"SELECT count(*) FROM {fact}", timeout=_SECONDS)  # noqa: S608  a name of ours
    await connection.execute("CREATE TEMPORARY TABLE late_hour (LIKE hookledger.baseline_hour)")
    await connection.execute(
        f"""
        INSERT INTO pg_temp.late_hour (app, endpoint, hour, result, attempts, total_us)
        SELECT app, endpoint, date_trunc('hour', ended_at, 'UTC'), result, count(*), coalesce(sum(total_us), 0)
        FROM {names["projection_1.attempt"]} WHERE ended_at >= $1 GROUP BY 1, 2, 3, 4
        """,  # noqa: S608  a name of ours
        week.ends,
        timeout=_SECONDS,
    )
    await connection.execute("DELETE FROM projection_1.endpoint_hour WHERE hour < $1", week.ends, timeout=_SECONDS)
    async with connection.transaction():
        # Nobody follows until this ends, so that health is as of the checkpoint.
        await connection.execute("SELECT FROM hookledger.checkpoint ORDER BY follower FOR UPDATE")
        if behind := await _behind(connection, week):
            raise RetainingError(f"{', '.join(behind)} went back meanwhile: run it again when they have come on")
        await connection.execute("DELETE FROM hookledger.baseline_hour WHERE hour < $1", week.ends)
        await connection.execute("""
            INSERT INTO hookledger.baseline_hour AS b (app, endpoint, hour, result, attempts, total_us)
            SELECT app, endpoint, hour, result, attempts, total_us FROM pg_temp.late_hour
            ON CONFLICT (app, endpoint, hour, result) DO UPDATE
            SET attempts = b.attempts + excluded.attempts, total_us = b.total_us + excluded.total_us
        """)
        await health.keep_baseline(connection)
        await connection.execute(
            "DELETE FROM hookledger.body_expiry WHERE message >= $1 AND message < $2", *week.bounds
        )
        await connection.execute(f"DROP TABLE {', '.join(names.values())}")
        reach(Failpoint.RETAIN_STEP)
    await connection.execute("DROP TABLE pg_temp.late_hour")
    return facts


def _lowest(at: datetime) -> UUID:
    return ids.lowest(round(at.timestamp() * 1000))
