"""Letting go of the oldest weeks of the ledger, with all that stands beside their facts, while the system runs.

A week goes when it lies before a given time, nothing in it is open, and whoever follows the ledger has read all of it.
What the facts that stay are folded on is written down (`baseline`): the health that they begin with, and, of the
attempts that go, those that ended later than their week. The week is dropped in one short transaction, which looks once
more whether anything was begun meanwhile, and gives up at once where others would have to wait for it. So it can be
killed at any time and run again.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg
from msgspec import Struct

from libs.common.domain import ids
from libs.common.postgres import health, statistics
from libs.common.postgres.checkpoint import Cursor
from libs.common.postgres.pool import CONNECTION_ERRORS, Connection, connect
from libs.common.runtime.failpoints import Failpoint, reach

_LOCK: Final = 0x72657461  # "reta"
_WEEK: Final = timedelta(milliseconds=ids.WEEK_MS)
_ATTEMPTS: Final = "projection_1.attempt"
_FACTS: Final = "hookledger.fact"
_STATES: Final = "projection_1.delivery_state"
_TABLES: Final = (
    _STATES,
    _ATTEMPTS,
    "hookledger.attempt_content",
    "hookledger.message_body",
    "hookledger.message",
    _FACTS,
)
"""Partitioned by week, each part under the table's name with the week's first day behind it."""
_SECONDS: Final = 3600.0
"""For one statement that reads a week from end to end."""
_LOCK_MS: Final = 200
"""For so long others wait behind us at most, each time that we want the tables to ourselves, all together. Postgres
looks for a deadlock later than that, so that we are the one who gives up.
"""
TRIES: Final = 60
PAUSE_SECONDS: Final = 1.0
_HOURS_AT_ONCE: Final = 20_000


class RetainingError(Exception):
    """Nothing can be let go of now, or not be compared, because of what else is done."""


class _StaysError(Exception):
    """Why a week cannot go yet."""


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


class _Week(Struct, frozen=True, kw_only=True):
    """A week, and which of the tables have a part of it."""

    begins: datetime
    parents: frozenset[str]

    @property
    def ends(self) -> datetime:
        return self.begins + _WEEK

    @property
    def bounds(self) -> tuple[UUID, UUID]:
        """Ids from the first up to, and not, the second."""
        return _lowest(self.begins), _lowest(self.ends)

    def part(self, parent: str) -> str | None:
        """The name of its part of a table, if there is one."""
        return f"{parent}_{self.begins:%Y%m%d}" if parent in self.parents else None


async def retain(url: str, *, keep: timedelta, say: Callable[[str], None]) -> Retained:
    """Let go of the weeks that ended longer ago than `keep`, the oldest first, as far as they are over.

    Args:
        url: of the user who owns the tables.
        keep: for how long everything stays.
        say: takes lines for the operator.

    Raises:
        DatabaseUnavailableError: with one line for the operator.
        RetainingError: somebody verifies, rebuilds or retains, or keeps the tables busy.
    """
    connection = await connect(url)
    try:
        if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
            raise RetainingError("the ledger is being verified, rebuilt or retained: try again when that is over")
        await connection.execute("""
            SET enable_seqscan = on; -- some tables are read from end to end
            SET client_connection_check_interval = '1s'; -- or the lock would outlive a process that is killed
            CREATE TEMPORARY TABLE late_hour (LIKE hookledger.baseline_hour);
        """)
        before = await connection.fetchval("SELECT clock_timestamp()") - keep
        retained = Retained(weeks=[])
        for week in await _weeks(connection):
            if week.ends > before:
                break
            try:
                facts = await _let_go(connection, week)
            except _StaysError as why:
                retained.kept = week.begins, str(why)
                break
            say(f"retain: the week of {week.begins:%Y-%m-%d} is dropped: {facts} ledger events")
            retained.weeks.append(week.begins)
            retained.facts += facts
        await _forget_hours(connection)
        return retained
    finally:
        await connection.close()


@asynccontextmanager
async def whole_ledger(connection: Connection) -> AsyncIterator[None]:
    """Meanwhile no week is let go of.

    Raises:
        RetainingError: one is.
    """
    if not await connection.fetchval("SELECT pg_try_advisory_lock_shared($1)", _LOCK):
        raise RetainingError("weeks of the ledger are being let go of: try again when `hookledger retain` is over")
    try:
        yield
    finally:
        with suppress(*CONNECTION_ERRORS):  # then it is gone with its connection
            await connection.execute("SELECT pg_advisory_unlock_shared($1)", _LOCK)


async def kept_from(connection: Connection) -> datetime:
    """When the first week begins that is kept; hours before that are nothing that the ledger can tell."""
    found = await connection.fetchval("SELECT kept_from FROM hookledger.baseline WHERE isfinite(kept_from)")
    return datetime.min.replace(tzinfo=UTC) if found is None else found


async def _weeks(connection: Connection) -> list[_Week]:
    rows = await connection.fetch(
        """
        SELECT n.nspname || '.' || p.relname AS parent, right(c.relname, 8) AS day
        FROM pg_inherits i
        JOIN pg_class p ON p.oid = i.inhparent JOIN pg_namespace n ON n.oid = p.relnamespace
        JOIN pg_class c ON c.oid = i.inhrelid AND c.relkind = 'r'
        WHERE n.nspname || '.' || p.relname = ANY($1) AND c.relname ~ '_[0-9]{8}$'
        """,
        _TABLES,
    )
    found: dict[datetime, set[str]] = {}
    for row in rows:
        begins = datetime.strptime(row["day"], "%Y%m%d").replace(tzinfo=UTC)
        found.setdefault(begins, set()).add(row["parent"])
    return [_Week(begins=begins, parents=frozenset(parents)) for begins, parents in sorted(found.items())]


async def _see_that_all_is_over(connection: Connection, week: _Week) -> None:
    """Look at the states too: each that is open stands in the queue, but for what a rebuild would mend."""
    if (part := week.part(_STATES)) is not None:
        _must_be_none(
            await connection.fetchval(
                f"SELECT count(*) FROM {part} WHERE status IN ('waiting', 'sending', 'held') OR resend_at IS NOT NULL",  # noqa: S608  a name of ours
                timeout=_SECONDS,
            )
        )
    await _see_that_nothing_waits(connection, week)


async def _see_that_nothing_waits(connection: Connection, week: _Week) -> None:
    _must_be_none(
        await connection.fetchval(
            """
            SELECT (SELECT count(*) FROM hookledger.queue WHERE delivery >= $1 AND delivery < $2)
                + (SELECT count(*) FROM hookledger.outbox WHERE message >= $1 AND message < $2)
            """,
            *week.bounds,
        )
    )


def _must_be_none(count: int) -> None:
    if count:
        raise _StaysError(f"{count} of its messages or deliveries are not over")


async def _see_that_all_is_read(connection: Connection, last: Cursor | None) -> None:
    """Whoever follows the ledger has come to a week's last fact."""
    if last is None:
        return
    rows = await connection.fetch(
        """
        SELECT follower
        FROM (SELECT unnest($1::text[]) AS follower UNION SELECT follower FROM hookledger.checkpoint) known
            LEFT JOIN hookledger.checkpoint c USING (follower)
        WHERE c.epoch IS NULL OR (c.epoch, c.xact, c.position) < ($2::int, $3::xid8, $4::bigint)
        ORDER BY follower
        """,
        [statistics.FOLLOWER, health.FOLLOWER],
        *last,
    )
    if rows:
        raise _StaysError(f"not all of it is read yet by: {', '.join(row['follower'] for row in rows)}")


async def _last(connection: Connection, week: _Week) -> Cursor | None:
    """The place of the week's last fact that anybody follows.

    Once all followers have come to it, no transaction is under way that could add one before it: they read below the
    snapshot's xmin.
    """
    facts = week.part(_FACTS)
    if facts is None:
        return None
    row = await connection.fetchrow(
        f"""
        SELECT f.epoch, f.xact, f.position FROM {facts} f WHERE hookledger.is_followed(f.kind, f.data)
        ORDER BY f.epoch DESC, f.xact DESC, f.position DESC LIMIT 1
        """  # noqa: S608  a name of ours
    )
    return None if row is None else Cursor(*row)


async def _let_go(connection: Connection, week: _Week) -> int:
    """Drop a week that is over and read; how many facts it held.

    Raises:
        _StaysError: it is not, or not any more.
        RetainingError: others keep the tables busy.
    """
    await _see_that_all_is_over(connection, week)
    last, facts = await _last(connection, week), 0
    await _see_that_all_is_read(connection, last)
    if (part := week.part(_FACTS)) is not None:
        facts = await connection.fetchval(f"SELECT count(*) FROM {part}", timeout=_SECONDS)  # noqa: S608  a name of ours
    await connection.execute("TRUNCATE pg_temp.late_hour")
    if (part := week.part(_ATTEMPTS)) is not None:
        await connection.execute(
            f"""
            INSERT INTO pg_temp.late_hour (app, endpoint, hour, result, attempts, total_us)
            SELECT app, endpoint, date_trunc('hour', ended_at, 'UTC'), result, count(*), coalesce(sum(total_us), 0)
            FROM {part} WHERE ended_at >= $1 GROUP BY 1, 2, 3, 4
            """,  # noqa: S608  a name of ours
            week.ends,
            timeout=_SECONDS,
        )
    async with connection.transaction():
        await health.keep_baseline(connection)
    reach(Failpoint.RETAIN_STEP)
    for _ in range(TRIES):
        try:
            async with connection.transaction():
                await connection.execute(
                    f"SET LOCAL lock_timeout = {_LOCK_MS}; SET LOCAL statement_timeout = {_LOCK_MS}"
                )
                await connection.execute(f"LOCK TABLE ONLY {', ONLY '.join(_TABLES)} IN ACCESS EXCLUSIVE MODE")
                await connection.execute("SET LOCAL statement_timeout = 0")
                await _see_that_nothing_waits(connection, week)
                if await _last(connection, week) != last:
                    raise _StaysError("something was added to it just now")
                await _drop(connection, week)
                reach(Failpoint.RETAIN_STEP)
        except (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError, asyncpg.DeadlockDetectedError):
            await asyncio.sleep(PAUSE_SECONDS)
        else:
            reach(Failpoint.RETAIN_STEP)
            return facts
    raise RetainingError(
        f"others use the tables all the time ({await _holders(connection)}): try again when that is over,"
        " and not beside a dump"
    )


async def _drop(connection: Connection, week: _Week) -> None:
    await connection.execute("DELETE FROM hookledger.baseline_hour WHERE hour < $1", week.ends)
    await connection.execute("""
        INSERT INTO hookledger.baseline_hour AS b (app, endpoint, hour, result, attempts, total_us)
        SELECT app, endpoint, hour, result, attempts, total_us FROM pg_temp.late_hour
        ON CONFLICT (app, endpoint, hour, result) DO UPDATE
        SET attempts = b.attempts + excluded.attempts, total_us = b.total_us + excluded.total_us
    """)
    await connection.execute("UPDATE hookledger.baseline SET kept_from = greatest(kept_from, $1)", week.ends)
    await connection.execute("DELETE FROM hookledger.body_expiry WHERE message >= $1 AND message < $2", *week.bounds)
    parts = [part for parent in _TABLES if (part := week.part(parent)) is not None]
    await connection.execute(f"DROP TABLE {', '.join(parts)}")


async def _forget_hours(connection: Connection) -> None:
    """Delete the statistics of hours before what is kept, some at a time: followers wait for each transaction."""
    since = await kept_from(connection)
    deleted = _HOURS_AT_ONCE
    while deleted == _HOURS_AT_ONCE:
        status = await connection.execute(
            """
            DELETE FROM projection_1.endpoint_hour WHERE ctid = ANY(ARRAY(
                SELECT ctid FROM projection_1.endpoint_hour WHERE hour < $1 LIMIT $2))
            """,
            since,
            _HOURS_AT_ONCE,
            timeout=_SECONDS,
        )
        deleted = int(status.removeprefix("DELETE "))


async def _holders(connection: Connection) -> str:
    """Who has had a transaction open for longest, for the operator."""
    rows = await connection.fetch(
        """
        SELECT pid, application_name FROM pg_stat_activity
        WHERE xact_start IS NOT NULL AND pid <> pg_backend_pid() AND datname = current_database()
        ORDER BY xact_start LIMIT 3
        """
    )
    return ", ".join(f"process {row['pid']} {row['application_name']}".rstrip() for row in rows) or "no longer"


def _lowest(at: datetime) -> UUID:
    return ids.lowest(round(at.timestamp() * 1000))
