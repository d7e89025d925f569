"""The rows of breakers that are not closed, over all dispatchers.

A probe's lease is its process's: it is under way for as long as the queue says that the process has the delivery.
Rows are locked in the order of their ids, after lanes and before throttles.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg

from libs.common.domain.breaker import NO_ANSWER, Breaker, Evidence
from libs.common.domain.ids import lowest
from libs.common.postgres.pool import Connection, Pool

_SKEW: Final = timedelta(seconds=2)
_MILLISECOND: Final = timedelta(milliseconds=1)
_EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")

EVIDENCE: Final = """
    WITH lately AS MATERIALIZED (
        SELECT started_at, ended_at, status < 500 AS up, status >= 500 OR failure = ANY($5) AS down
        FROM projection_1.attempt
        WHERE endpoint = $1 AND attempt >= $2 AND started_at >= $3 AND config_version = $4
    )
    SELECT clock_timestamp() AS now, count(*) AS down,
        coalesce(max(l.ended_at) - min(l.ended_at), '0') AS lasted
    FROM lately l
    WHERE l.down AND l.started_at >= coalesce((SELECT max(ended_at) FROM lately WHERE up), '-infinity')
"""
"""Of attempts of endpoint $1, with ids from $2 on, that began at $3 or later with configuration $4; $5: `NO_ANSWER`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A breaker that is not closed; `abandoned` is the delivery of a probe whose process is gone."""

    app: UUID
    breaker: Breaker
    abandoned: UUID | None


async def read(pool: Pool) -> dict[UUID, Row]:
    """All of them, by endpoint."""
    rows = await pool.fetch("""
        SELECT b.endpoint, b.app, b.config_version, b.openings, b.opened_at, b.open_until, b.probe,
            q.delivery IS NOT NULL AS probing
        FROM hookledger.breaker b LEFT JOIN hookledger.queue q ON q.delivery = b.probe AND q.owner = b.prober
    """)
    return {
        row["endpoint"]: Row(app=row["app"], breaker=_breaker(row), abandoned=None if row["probing"] else row["probe"])
        for row in rows
    }


async def lock(connection: Connection, endpoints: Collection[UUID]) -> dict[UUID, Breaker]:
    """The breakers of these endpoints that are not closed, locked until the transaction ends."""
    if not endpoints:
        return {}
    await connection.execute(
        "SELECT FROM hookledger.breaker WHERE endpoint = ANY($1) ORDER BY endpoint FOR UPDATE", sorted(endpoints)
    )
    # What has committed before the lock was had: in one statement, a probe that ended meanwhile would seem abandoned.
    rows = await connection.fetch(
        """
        SELECT b.endpoint, b.config_version, b.openings, b.opened_at, b.open_until,
            q.delivery IS NOT NULL AS probing
        FROM hookledger.breaker b LEFT JOIN hookledger.queue q ON q.delivery = b.probe AND q.owner = b.prober
        WHERE b.endpoint = ANY($1)
        """,
        list(endpoints),
    )
    return {row["endpoint"]: _breaker(row) for row in rows}


async def begin(connection: Connection, probes: Mapping[UUID, UUID], process: UUID) -> None:
    """Enter probes, deliveries by endpoint, that this process begins; the transaction has locked their breakers."""
    if probes:
        await connection.execute(
            """
            UPDATE hookledger.breaker b SET probe = u.delivery, prober = $3
            FROM unnest($1::uuid[], $2::uuid[]) AS u (endpoint, delivery) WHERE b.endpoint = u.endpoint
            """,
            list(probes),
            list(probes.values()),
            process,
        )


async def lock_probed(connection: Connection, probes: Mapping[UUID, UUID]) -> tuple[datetime, dict[UUID, Breaker]]:
    """The database's time, and the breakers, locked, of those endpoints whose probe is still this delivery's."""
    rows = await connection.fetch(
        """
        SELECT b.endpoint, b.config_version, b.openings, b.opened_at, b.open_until, b.probe, true AS probing
        FROM hookledger.breaker b WHERE b.endpoint = ANY($1) ORDER BY b.endpoint FOR UPDATE
        """,
        list(probes),
    )
    now = await connection.fetchval("SELECT clock_timestamp()")
    return now, {row["endpoint"]: _breaker(row) for row in rows if row["probe"] == probes[row["endpoint"]]}


async def save(connection: Connection, breakers: Mapping[UUID, Breaker | None]) -> None:
    """Write breakers whose probe is over and that this transaction has locked; None: closed."""
    closed = [endpoint for endpoint, breaker in breakers.items() if breaker is None]
    if closed:
        await connection.execute("DELETE FROM hookledger.breaker WHERE endpoint = ANY($1)", closed)
    left = {endpoint: breaker for endpoint, breaker in breakers.items() if breaker is not None}
    if left:
        await connection.execute(
            """
            UPDATE hookledger.breaker b
            SET openings = u.openings, open_until = u.open_until, probe = NULL, prober = NULL
            FROM unnest($1::uuid[], $2::int[], $3::timestamptz[]) AS u (endpoint, openings, open_until)
            WHERE b.endpoint = u.endpoint
            """,
            list(left),
            [breaker.openings for breaker in left.values()],
            [breaker.open_until for breaker in left.values()],
        )


async def add(pool: Pool, endpoint: UUID, app: UUID, breaker: Breaker) -> bool:
    """Enter a breaker that opens; False if another dispatcher has."""
    added = await pool.fetchval(
        """
        INSERT INTO hookledger.breaker (endpoint, app, config_version, openings, opened_at, open_until)
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (endpoint) DO NOTHING RETURNING true
        """,
        endpoint,
        app,
        breaker.config_version,
        breaker.openings,
        breaker.opened_at,
        breaker.open_until,
    )
    return bool(added)


async def forget(pool: Pool, endpoint: UUID, config_version: int) -> bool:
    """Close a breaker of an earlier configuration, or of an endpoint that is gone; False if another dispatcher has."""
    return bool(
        await pool.fetchval(
            "DELETE FROM hookledger.breaker WHERE endpoint = $1 AND config_version = $2 RETURNING true",
            endpoint,
            config_version,
        )
    )


async def give_up(pool: Pool, endpoint: UUID, probe: UUID) -> bool:
    """Take out a probe whose process is gone; False if another dispatcher has."""
    return bool(
        await pool.fetchval(
            """
            UPDATE hookledger.breaker b SET probe = NULL, prober = NULL
            WHERE b.endpoint = $1 AND b.probe = $2
                AND NOT EXISTS (SELECT FROM hookledger.queue q WHERE q.delivery = b.probe AND q.owner = b.prober)
            RETURNING true
            """,
            endpoint,
            probe,
        )
    )


async def evidence(
    connection: "Connection | Pool", endpoint: UUID, *, config_version: int, since: datetime
) -> tuple[datetime, Evidence]:
    """The database's time, and what attempts of a configuration that began at `since` or later say of the receiver."""
    row = await connection.fetchrow(
        EVIDENCE,
        endpoint,
        lowest((since - _SKEW - _EPOCH) // _MILLISECOND),  # ids begin with the time at which they were made
        since,
        config_version,
        sorted(NO_ANSWER),
    )
    assert row is not None, "it counts"
    return row["now"], Evidence(down=row["down"], lasted=row["lasted"])


def _breaker(row: asyncpg.Record) -> Breaker:
    return Breaker(
        config_version=row["config_version"],
        openings=row["openings"],
        opened_at=row["opened_at"],
        open_until=row["open_until"],
        probing=row["probing"],
    )
