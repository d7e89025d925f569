"""Lanes: who waits where, and whose turn it is. Runtime state, outside the ledger.

Every delivery that is not over has a row in `queue`. A row without an owner waits in its lane; a lane is ready when its
head is due, it may have one more in flight and it is not parked; an application's turn is ready when one of its lanes
is. An endpoint has one lane, named as it is, whose head is what is due first; an ordered endpoint has one for each
ordering key, whose head is what was accepted first, due or not, and which has one in flight at most.

Each change of a lane goes in separate statements: first the lane's row is locked, then what it is computed from is
read. In one statement the reading would use a snapshot from before the lock was had. Locks are taken in the order
lanes, then turns, each by id; the claim takes turns first but waits for none (SKIP LOCKED), so nobody waits in a
circle. A claim that finds every turn taken takes lanes alone, and waits for the turns at its end as anybody does.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Final
from uuid import UUID

from msgspec import Struct

from libs.common.domain.endpoint import DEFAULT_MAX_INFLIGHT
from libs.common.postgres.pool import Connection


class LaneChange(Struct, frozen=True, kw_only=True):
    """A lane that is touched: `finished` of the deliveries that it counted are no longer in flight.

    `max_inflight` is the endpoint's, or None to leave it as it is; a lane that is ordered has 1.
    """

    app: UUID
    endpoint: UUID
    max_inflight: int | None = None
    finished: int = 0


# In the lane `l`. While the head of an ordered one is in flight, the others wait behind it and nothing is due.
_SOMETHING_WAITS: Final = """(l.head_due IS NOT NULL OR l.lane <> l.endpoint AND EXISTS (
    SELECT FROM hookledger.queue q WHERE q.lane = l.lane AND q.owner IS NULL))"""
LOOKED_AT_MOST: Final = 1_000
"""Lanes that are told together from when on to look: an ordered endpoint may have very many. The others come later."""
_NOT_PARKED: Final[Mapping[UUID, datetime]] = MappingProxyType({})
_NONE_STARTED: Final[Mapping[UUID, int]] = MappingProxyType({})


def is_ordered(lane: UUID, endpoint: UUID) -> bool:
    """Whether a lane is one of an ordering key: any other has its endpoint's id."""
    return lane != endpoint


async def enqueue(connection: Connection, rows: Sequence[tuple[UUID, UUID, datetime]], owner: UUID | None) -> None:
    """Add deliveries: (delivery, lane, due). With an owner they are in flight, uncounted by their lane."""
    if not rows:
        return
    await connection.execute(
        """
        INSERT INTO hookledger.queue (delivery, lane, due_at, owner)
        SELECT u.delivery, u.lane, u.due_at, $4
        FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) AS u (delivery, lane, due_at)
        """,
        [delivery for delivery, _, _ in rows],
        [lane for _, lane, _ in rows],
        [due_at for _, _, due_at in rows],
        owner,
    )


async def enqueue_ordered(connection: Connection, rows: Sequence[tuple[UUID, UUID, datetime, UUID]]) -> None:
    """Add deliveries to ordered lanes: (delivery, lane, due, message), where they stand as their messages came in."""
    if not rows:
        return
    await connection.execute(
        """
        INSERT INTO hookledger.queue (delivery, lane, due_at, epoch, xact, position)
        SELECT u.delivery, u.lane, u.due_at, f.epoch, f.xact, f.position
        FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::uuid[]) AS u (delivery, lane, due_at, message)
        JOIN hookledger.fact f ON f.stream = u.message AND f.version = 1
        """,
        [delivery for delivery, _, _, _ in rows],
        [lane for _, lane, _, _ in rows],
        [due_at for _, _, due_at, _ in rows],
        [message for _, _, _, message in rows],
    )


async def finish(connection: Connection, deliveries: Sequence[UUID]) -> None:
    """Remove deliveries that are over."""
    if deliveries:
        await connection.execute("DELETE FROM hookledger.queue WHERE delivery = ANY($1)", deliveries)


async def release(connection: Connection, rows: Sequence[tuple[UUID, datetime]]) -> None:
    """Let deliveries wait in their lanes again: (delivery, due). Their lanes are locked before and refreshed after."""
    if not rows:
        return
    await connection.execute(
        """
        UPDATE hookledger.queue q SET owner = NULL, counted = false, due_at = u.due_at
        FROM unnest($1::uuid[], $2::timestamptz[]) AS u (delivery, due_at)
        WHERE q.delivery = u.delivery
        """,
        [delivery for delivery, _ in rows],
        [due_at for _, due_at in rows],
    )


async def lock(connection: Connection, changes: Mapping[UUID, LaneChange]) -> None:
    """Lock these lanes, making those that are not there yet, and take off what has finished."""
    if not changes:
        return
    ordered = sorted(changes)
    await connection.execute(
        """
        INSERT INTO hookledger.lane AS l (lane, app, endpoint, ready_at, inflight, max_inflight)
        SELECT u.lane, u.app, u.endpoint, 'infinity', u.finished,
            coalesce(u.max_inflight, (SELECT max_inflight FROM hookledger.lane WHERE lane = u.lane), $6)
        FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[], $5::int[])
            AS u (lane, app, endpoint, finished, max_inflight)
        ORDER BY u.lane
        ON CONFLICT (lane) DO UPDATE
        SET inflight = greatest(0, l.inflight - excluded.inflight), max_inflight = excluded.max_inflight
        """,  # a lane that is new has counted nothing, so that nothing of it has finished
        ordered,
        [changes[lane].app for lane in ordered],
        [changes[lane].endpoint for lane in ordered],
        [changes[lane].finished for lane in ordered],
        [1 if is_ordered(lane, changes[lane].endpoint) else changes[lane].max_inflight for lane in ordered],
        DEFAULT_MAX_INFLIGHT,
    )


async def hold(connection: Connection, deliveries: Sequence[UUID]) -> None:
    """Lock the lanes in which these deliveries are."""
    await connection.execute(
        """
        SELECT FROM hookledger.lane WHERE lane IN (SELECT lane FROM hookledger.queue WHERE delivery = ANY($1))
        ORDER BY lane FOR UPDATE
        """,
        deliveries,
    )


async def refresh(
    connection: Connection,
    changes: Mapping[UUID, LaneChange],
    now: datetime,
    *,
    served: bool,
    parked: Mapping[UUID, datetime] = _NOT_PARKED,
    started: Mapping[UUID, int] = _NONE_STARTED,
) -> None:
    """Count what starts in lanes that this transaction has locked; compute their heads and readiness, and their turns.

    Args:
        connection: in the transaction that holds the locks.
        changes: the lanes.
        now: the database's time.
        served: whether they were just served, and so go to the back of the line.
        parked: lanes and applications of those served that are not to be looked at before that time.
        started: attempts that begin, by lane.
    """
    if not changes:
        return
    ordered = sorted(lane for lane, change in changes.items() if is_ordered(lane, change.endpoint))
    await connection.execute(
        """
        UPDATE hookledger.lane l
        SET head_due = h.head,
            inflight = l.inflight + u.started,
            not_before = CASE WHEN $3 THEN u.not_before ELSE l.not_before END,
            ready_at = CASE
                WHEN h.head IS NULL OR l.inflight + u.started >= l.max_inflight THEN 'infinity'
                WHEN $3 THEN greatest(h.head, $2, u.not_before)
                ELSE least(l.ready_at, greatest(h.head, $2, l.not_before))
            END
        FROM unnest($1::uuid[], $4::timestamptz[], $5::bool[], $6::int[]) AS u (lane, not_before, ordered, started)
        LEFT JOIN LATERAL (
            (SELECT q.due_at AS head FROM hookledger.queue q
             WHERE NOT u.ordered AND q.lane = u.lane AND q.owner IS NULL ORDER BY q.due_at LIMIT 1)
            UNION ALL
            (SELECT CASE WHEN q.owner IS NULL THEN q.due_at END FROM hookledger.queue q
             WHERE u.ordered AND q.lane = u.lane AND q.xact IS NOT NULL ORDER BY q.epoch, q.xact, q.position LIMIT 1)
        ) h ON true
        WHERE l.lane = u.lane
        """,
        sorted(changes),
        now,
        served,
        [parked.get(lane, now) for lane in sorted(changes)],
        [is_ordered(lane, changes[lane].endpoint) for lane in sorted(changes)],
        [started.get(lane, 0) for lane in sorted(changes)],
    )
    if ordered:
        # There are as many as there are keys: they go when they are empty, and come again.
        await connection.execute(
            """
            DELETE FROM hookledger.lane l
            WHERE l.lane = ANY($1) AND l.inflight = 0
                AND NOT EXISTS (SELECT FROM hookledger.queue q WHERE q.lane = l.lane)
            """,
            ordered,
        )
    await refresh_turns(connection, {change.app for change in changes.values()}, now, served=served, parked=parked)


async def refresh_turns(
    connection: Connection,
    apps: Collection[UUID],
    now: datetime,
    *,
    served: bool,
    parked: Mapping[UUID, datetime] = _NOT_PARKED,
) -> None:
    """Compute when these applications' turns come, from their lanes."""
    if not apps:
        return
    ordered = sorted(apps)
    await connection.execute(
        """
        INSERT INTO hookledger.app_turn AS t (app, ready_at)
        SELECT u.app, 'infinity' FROM unnest($1::uuid[]) AS u (app) ORDER BY u.app
        ON CONFLICT (app) DO UPDATE SET ready_at = t.ready_at
        """,
        ordered,
    )
    await connection.execute(
        """
        UPDATE hookledger.app_turn t
        SET not_before = CASE WHEN $3 THEN u.not_before ELSE t.not_before END,
            ready_at = CASE
                WHEN $3 THEN greatest(r.ready_at, $2, u.not_before)
                ELSE least(t.ready_at, greatest(r.ready_at, t.not_before))
            END
        FROM unnest($1::uuid[], $4::timestamptz[]) AS u (app, not_before)
        CROSS JOIN LATERAL (
            SELECT coalesce(min(l.ready_at), 'infinity') AS ready_at FROM hookledger.lane l WHERE l.app = u.app
        ) r
        WHERE t.app = u.app
        """,
        ordered,
        now,
        served,
        [parked.get(app, now) for app in ordered],
    )


async def look_from(connection: Connection, app: UUID, endpoint: UUID, at: datetime) -> None:
    """Have the lanes of an endpoint looked at from that time on, or from now on if that is past."""
    rows = await connection.fetch(
        """
        SELECT lane FROM hookledger.lane WHERE app = $1 AND endpoint = $2 ORDER BY lane LIMIT $3 FOR UPDATE
        """,
        app,
        endpoint,
        LOOKED_AT_MOST,
    )
    now = await connection.fetchval("SELECT clock_timestamp()")
    await connection.execute(
        """
        UPDATE hookledger.lane
        SET not_before = $2, ready_at = CASE WHEN ready_at < 'infinity' THEN greatest(head_due, $2) ELSE ready_at END
        WHERE lane = ANY($1)
        """,
        [row["lane"] for row in rows],
        max(at, now),
    )
    await refresh_turns(connection, [app], now, served=False)


async def next_ready(
    connection: Connection, *, idle: Collection[UUID] = (), full: Collection[UUID] = ()
) -> datetime | None:
    """When the next turn is ready, as far as is known now.

    Args:
        connection: to read with.
        idle: applications of which this process can serve nothing now, but for their lanes that are ready later.
        full: endpoints and applications of which this process can have no more in flight: it hears when one is over.
    """
    ready: datetime | None = await connection.fetchval(
        """
        SELECT least(
            (SELECT ready_at FROM hookledger.app_turn
             WHERE ready_at < 'infinity' AND app <> ALL($1) ORDER BY ready_at LIMIT 1),
            (SELECT min(l.ready_at) FROM unnest($1::uuid[]) AS u (app) CROSS JOIN LATERAL (
                SELECT ready_at FROM hookledger.lane
                WHERE app = u.app AND ready_at < 'infinity' AND endpoint <> ALL($2) AND app <> ALL($2)
                ORDER BY ready_at LIMIT 1) l))
        """,
        list(idle),
        list(full),
    )
    return ready


async def waiting_endpoints(connection: Connection) -> list[UUID]:
    """Endpoints in whose lanes something waits."""
    rows = await connection.fetch(
        f"SELECT DISTINCT endpoint FROM hookledger.lane l WHERE {_SOMETHING_WAITS}"  # noqa: S608  a constant
    )
    return [row["endpoint"] for row in rows]


async def take_waiting(
    connection: Connection, endpoint: UUID, *, most: int
) -> tuple[dict[UUID, LaneChange], list[UUID]]:
    """Deliveries that wait for an endpoint, due or not, and their lanes, which are locked until the transaction ends.

    Lanes that others have locked are left to them. It takes from the far end: claims find the head where it was.
    """
    rows = await connection.fetch(
        f"""
        SELECT lane, app FROM hookledger.lane l WHERE endpoint = $1 AND {_SOMETHING_WAITS}
        ORDER BY lane LIMIT $2 FOR UPDATE SKIP LOCKED
        """,  # noqa: S608  a constant
        endpoint,
        most,
    )
    waiting = await connection.fetch(
        """
        SELECT q.delivery FROM unnest($1::uuid[]) AS u (lane)
        CROSS JOIN LATERAL (
            SELECT delivery FROM hookledger.queue
            WHERE lane = u.lane AND owner IS NULL ORDER BY due_at DESC LIMIT $2
        ) q
        LIMIT $2
        """,
        [row["lane"] for row in rows],
        most,
    )
    changes = {row["lane"]: LaneChange(app=row["app"], endpoint=endpoint) for row in rows}
    return changes, [row["delivery"] for row in waiting]
