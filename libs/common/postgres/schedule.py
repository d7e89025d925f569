"""The schedule made again: what the ledger says of the queue, its lanes, their turns and the owners.

The queue of a delivery follows from its row in `delivery_state`, which was made again before. Locks are taken in the
order in which dispatchers take them: states by id, then the queue; lanes by id, then turns by id.
"""

from typing import Final
from uuid import UUID

from libs.common.domain.endpoint import DEFAULT_MAX_INFLIGHT
from libs.common.postgres.chunks import Chunk
from libs.common.postgres.pool import Connection

LANES_AT_ONCE: Final = 50
"""Lanes that one transaction locks. It passes over the whole queue to count what is in flight, and whoever serves one
of its lanes waits for as long: so few that the other endpoints go on meanwhile."""

# What the queue ought to hold of the deliveries `d`. A first attempt that began in the transaction of its fan-out is
# counted by no lane; each other attempt in flight is.
_OUGHT: Final = """
    SELECT d.delivery, d.message, d.endpoint, least(d.due_at, d.resend_at) AS due_at, d.updated_at, d.process AS owner,
        d.status = 'sending' AND NOT EXISTS (
            SELECT FROM hookledger.fact one JOIN hookledger.fact two USING (stream, epoch, xact)
            WHERE d.run = 1 AND d.attempts = 1 AND d.beside IS NULL AND two.kind = 'AttemptStarted'
                AND one.stream = d.delivery AND one.version = 1 AND two.version = 2
        ) AS counted
    FROM projection_1.delivery_state d
    WHERE (d.status IN ('waiting', 'sending', 'held') OR d.resend_at IS NOT NULL)
"""


async def find_misplaced(connection: Connection, chunk: Chunk) -> list[UUID]:
    """Deliveries of a range that are open and not in the queue as they ought to be, or in it and not open.

    What stands in an ordered lane stays there, though its endpoint may be ordered no more.
    """
    rows = await connection.fetch(
        f"""
        SELECT delivery
        FROM ({_OUGHT} AND d.delivery > $1 AND d.delivery <= $2) o
        FULL JOIN (SELECT * FROM hookledger.queue WHERE delivery > $1 AND delivery <= $2) q USING (delivery)
        WHERE (o.endpoint, o.owner, o.counted)
                IS DISTINCT FROM (CASE WHEN q.xact IS NULL THEN q.lane ELSE o.endpoint END, q.owner, q.counted)
            OR o.owner IS NULL AND q.due_at <> o.due_at -- what is held has none
        ORDER BY delivery
        """,  # noqa: S608  a constant
        chunk.after,
        chunk.last,
    )
    return [row["delivery"] for row in rows]


async def requeue(connection: Connection, deliveries: list[UUID]) -> None:
    """Put these deliveries into the queue as they ought to be there, in a transaction that the caller has begun."""
    await connection.execute(
        "SELECT FROM projection_1.delivery_state WHERE delivery = ANY($1) ORDER BY delivery FOR UPDATE", deliveries
    )
    await connection.execute(
        """
        DELETE FROM hookledger.queue q WHERE q.delivery = ANY($1) AND NOT EXISTS (
            SELECT FROM projection_1.delivery_state d
            WHERE d.delivery = q.delivery AND (d.status IN ('waiting', 'sending', 'held') OR d.resend_at IS NOT NULL)
        )
        """,
        deliveries,
    )
    await connection.execute(
        f"""
        INSERT INTO hookledger.queue AS q (delivery, lane, due_at, owner, counted, epoch, xact, position)
        SELECT o.delivery, coalesce(a.lane, o.endpoint), coalesce(o.due_at, o.updated_at), o.owner, o.counted,
            a.epoch, a.xact, a.position
        FROM ({_OUGHT} AND d.delivery = ANY($1)) o
        LEFT JOIN LATERAL (
            SELECT hookledger.ordering_lane(o.endpoint, m.ordering_key) AS lane, f.epoch, f.xact, f.position
            FROM hookledger.registry_object r
            JOIN hookledger.message m ON m.id = o.message
            JOIN hookledger.fact f ON f.stream = o.message AND f.version = 1
            WHERE r.id = o.endpoint AND (r.data ->> 'ordered')::boolean
                AND (o.owner IS NULL OR o.counted) -- a first attempt that asked no lane is in none
        ) a ON true
        ON CONFLICT (delivery) DO UPDATE SET lane = excluded.lane, due_at = excluded.due_at,
            owner = excluded.owner, counted = excluded.counted, epoch = excluded.epoch, xact = excluded.xact,
            position = excluded.position
        """,  # noqa: S608  a constant
        deliveries,
    )


async def add_missing_lanes(connection: Connection) -> None:
    """Make the lanes in which deliveries wait, or are counted, and that are not there."""
    await connection.execute(
        """
        INSERT INTO hookledger.lane (lane, app, endpoint, ready_at, max_inflight)
        SELECT m.lane, m.app, m.endpoint, 'infinity'::timestamptz,
            CASE WHEN m.ordered THEN 1 ELSE coalesce((r.data ->> 'maxInflight')::int, $1) END
        FROM (
            SELECT DISTINCT ON (q.lane) q.lane, q.xact IS NOT NULL AS ordered, d.app, d.endpoint
            FROM hookledger.queue q JOIN projection_1.delivery_state d USING (delivery)
            WHERE (q.owner IS NULL OR q.counted) AND NOT EXISTS (SELECT FROM hookledger.lane l WHERE l.lane = q.lane)
            ORDER BY q.lane
        ) m LEFT JOIN hookledger.registry_object r ON r.id = m.endpoint
        ORDER BY m.lane
        ON CONFLICT DO NOTHING
        """,
        DEFAULT_MAX_INFLIGHT,
    )


async def recount_lanes(connection: Connection, after: UUID) -> UUID | None:
    """Compute the next lanes above `after`, and their turns, from the queue; the last of these lanes.

    In a transaction of their own: first they are locked, then what they are computed from is read. A lane that is ready
    already keeps its place in the line.
    """
    lanes = await connection.fetch(
        "SELECT lane, app FROM hookledger.lane WHERE lane > $1 ORDER BY lane LIMIT $2 FOR UPDATE", after, LANES_AT_ONCE
    )
    if not lanes:
        return None
    await connection.execute(
        """
        WITH now_so AS (
            SELECT l.lane, coalesce(c.counted, 0) AS inflight, h.head,
                CASE WHEN h.head IS NULL OR coalesce(c.counted, 0) >= l.max_inflight THEN 'infinity'
                    ELSE least(l.ready_at, greatest(h.head, clock_timestamp())) END AS ready_at
            FROM hookledger.lane l
            LEFT JOIN (
                SELECT lane, count(*) AS counted FROM hookledger.queue WHERE lane = ANY($1) AND counted GROUP BY lane
            ) c USING (lane)
            LEFT JOIN LATERAL (
                (SELECT q.due_at AS head FROM hookledger.queue q
                 WHERE l.lane = l.endpoint AND q.lane = l.lane AND q.owner IS NULL ORDER BY q.due_at LIMIT 1)
                UNION ALL
                (SELECT CASE WHEN q.owner IS NULL THEN q.due_at END FROM hookledger.queue q
                 WHERE l.lane <> l.endpoint AND q.lane = l.lane AND q.xact IS NOT NULL
                 ORDER BY q.epoch, q.xact, q.position LIMIT 1)
            ) h ON true
            WHERE l.lane = ANY($1)
        )
        UPDATE hookledger.lane l SET inflight = n.inflight, head_due = n.head, ready_at = n.ready_at
        FROM now_so n
        WHERE n.lane = l.lane
            AND (l.inflight, l.head_due, l.ready_at) IS DISTINCT FROM (n.inflight, n.head, n.ready_at)
        """,
        [row["lane"] for row in lanes],
    )
    await _recount_turns(connection, sorted({row["app"] for row in lanes}))
    last: UUID = lanes[-1]["lane"]
    return last


async def _recount_turns(connection: Connection, apps: list[UUID]) -> None:
    await connection.execute(
        """
        INSERT INTO hookledger.app_turn (app, ready_at)
        SELECT u.app, 'infinity' FROM unnest($1::uuid[]) AS u (app) ORDER BY u.app ON CONFLICT DO NOTHING
        """,
        apps,
    )
    await connection.execute("SELECT FROM hookledger.app_turn WHERE app = ANY($1) ORDER BY app FOR UPDATE", apps)
    await connection.execute(
        """
        UPDATE hookledger.app_turn t SET ready_at = r.ready_at
        FROM (SELECT app, min(ready_at) AS ready_at FROM hookledger.lane WHERE app = ANY($1) GROUP BY app) r
        WHERE t.app = r.app AND t.ready_at > r.ready_at
        """,
        apps,
    )


async def add_missing_owners(connection: Connection) -> int:
    """Enter owners of deliveries that no process row stands for, as dead, so that dispatchers take over from them.

    A process leaves, or is reclaimed, with all that it owns in the queue; what was not in the queue was left behind.
    """
    owners = await connection.fetch("""
        INSERT INTO hookledger.process (id, epoch, service, host, started_at, alive_until)
        SELECT DISTINCT q.owner, 0, 'dispatcher', 'unknown', clock_timestamp(), clock_timestamp()
        FROM hookledger.queue q
        WHERE q.owner IS NOT NULL AND NOT EXISTS (SELECT FROM hookledger.process p WHERE p.id = q.owner)
        ON CONFLICT DO NOTHING RETURNING id
    """)
    return len(owners)
