"""Looking at what waits, for the metrics: how much is due, and for how long the oldest is.

Each dispatcher looks by itself, so that the figures are there as long as one runs: take the greatest, not the sum.
"""

import asyncio
from typing import Final

import asyncpg

from libs.common.postgres.pool import CONNECTION_ERRORS, Pool
from libs.common.runtime.logs import logger
from libs.common.runtime.waiting import set_within
from services.dispatcher.metrics import DUE, OLDEST_DUE_SECONDS, OLDEST_UNFANNED_SECONDS

_LOG: Final = logger("backlog")
LOOK_SECONDS: Final = 10.0
COUNTED_A_LANE: Final = 10_000


async def run(pool: Pool, stopping: asyncio.Event) -> None:
    """Look until told to stop."""
    while not stopping.is_set():
        try:
            await look(pool)
        except (*CONNECTION_ERRORS, asyncpg.PostgresError) as error:
            _LOG.warning("backlog.interrupted", reason=str(error) or type(error).__name__)
        await set_within(stopping, LOOK_SECONDS)


async def look(pool: Pool) -> None:
    """Set the gauges to what waits now.

    A lane that is ready waits for dispatchers. One that is not has as many in flight as its endpoint may: what waits
    there waits for the receiver.
    """
    async with pool.acquire() as connection:
        rows = await connection.fetch(
            """
            SELECT l.ready_at <= t.now AS ready, sum(d.due)::bigint AS due,
                extract(epoch FROM max(t.now - l.head_due))::double precision AS oldest
            FROM (SELECT clock_timestamp() AS now) t
            JOIN hookledger.lane l ON l.head_due <= t.now
            CROSS JOIN LATERAL (
                SELECT count(*) AS due FROM (
                    SELECT FROM hookledger.queue q
                    WHERE q.lane = l.lane AND q.owner IS NULL AND q.due_at <= t.now LIMIT $1
                ) counted
            ) d
            GROUP BY 1
            """,
            COUNTED_A_LANE,
        )
        unfanned = await connection.fetchval("""
            SELECT extract(epoch FROM clock_timestamp() - accepted_at)::double precision
            FROM hookledger.outbox ORDER BY message LIMIT 1
        """)
    found = {row["ready"]: row for row in rows}
    for label, ready in (("ready", True), ("full", False)):
        row = found.get(ready)
        DUE.labels(label).set(row["due"] if row else 0)
        OLDEST_DUE_SECONDS.labels(label).set(row["oldest"] if row else 0)
    OLDEST_UNFANNED_SECONDS.set(max(0.0, unfanned or 0.0))
