"""Statistics: attempts and their durations for each endpoint and hour, counted by following the ledger.

A batch of facts is added in the transaction that moves the checkpoint, so that each fact is counted exactly once,
whoever follows and whenever it dies.
"""

from typing import Final

from libs.common.postgres.checkpoint import Checkpoint, Cursor
from libs.common.postgres.pool import Connection

FOLLOWER: Final = "statistics"
BATCH: Final = 5_000


async def count(connection: Connection, checkpoint: Checkpoint) -> int:
    """Count the next facts, in a transaction of their own; how many there were. `BATCH`: there may be more.

    None are counted while another process owns the checkpoint.
    """
    async with connection.transaction():
        cursor = await checkpoint.own(connection)
        if cursor is None:
            return 0
        facts, last = await _add(connection, cursor)
        if facts:
            await checkpoint.move(connection, last)
    return facts


async def forget(connection: Connection, checkpoint: Checkpoint) -> None:
    """Count again from the ledger's first fact: takes the checkpoint from its owner, in the caller's transaction."""
    await checkpoint.rewind(connection)
    await connection.execute("DELETE FROM projection_1.endpoint_hour")


async def _add(connection: Connection, cursor: Cursor) -> tuple[int, Cursor]:
    """Add what the next `BATCH` facts after `cursor` say; how many there were, and the place of the last of them.

    The data of `AttemptEnded` are read here as schema 1 has them: the one reader of facts that is not the codec, since
    it is several times cheaper. `hookledger verify` compares what it counts with what the codec reads.
    """
    row = await connection.fetchrow(
        """
        WITH batch AS MATERIALIZED (
            SELECT f.epoch, f.xact, f.position, f.app, f.endpoint, f.kind, f.at,
                CASE WHEN f.kind = 'AttemptEnded' THEN convert_from(f.data, 'utf8')::jsonb END AS ended
            FROM hookledger.fact f
            WHERE (f.epoch, f.xact, f.position) > ($1, $2, $3)
              AND (f.epoch, f.xact) < ((SELECT max(epoch) FROM hookledger.ledger_epoch),
                  pg_snapshot_xmin(pg_current_snapshot()))
            ORDER BY f.epoch, f.xact, f.position LIMIT $4
        ), counted AS (
            SELECT app, endpoint, date_trunc('hour', at, 'UTC') AS hour,
                CASE kind WHEN 'AttemptEnded' THEN ended ->> 'outcome' WHEN 'AttemptAbandoned' THEN 'abandoned'
                    ELSE 'unknown' END AS result,
                count(*) AS attempts,
                coalesce(sum(extract(epoch FROM (ended #>> '{timings,total}')::interval) * 1000000), 0) AS total_us
            FROM batch WHERE kind IN ('AttemptEnded', 'AttemptAbandoned', 'AttemptOutcomeUnknown')
            GROUP BY app, endpoint, hour, result
        ), added AS (
            INSERT INTO projection_1.endpoint_hour AS e (app, endpoint, hour, result, attempts, total_us)
            SELECT app, endpoint, hour, result, attempts, total_us FROM counted
            ON CONFLICT (app, endpoint, hour, result) DO UPDATE
            SET attempts = e.attempts + excluded.attempts, total_us = e.total_us + excluded.total_us
        )
        SELECT count(*) OVER () AS facts, epoch, xact, position
        FROM batch ORDER BY epoch DESC, xact DESC, position DESC LIMIT 1
        """,
        *cursor,
        BATCH,
    )
    return (0, cursor) if row is None else (row["facts"], Cursor(row["epoch"], row["xact"], row["position"]))
