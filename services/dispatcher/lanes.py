"""Lanes: who waits where, and whose turn it is. Runtime state, outside the ledger.

Every delivery that is not over has a row in `queue`. A row without an owner waits in its lane; a lane is ready when its
head is due and it may have one more in flight; an application's turn is ready when one of its lanes is.

Each change of a lane goes in separate statements: first the lane's row is locked, then what it is computed from is
read. In one statement the reading would use a snapshot from before the lock was had. Locks are taken in the order
lanes, then turns, each by id; the claim takes turns first but waits for none (SKIP LOCKED), so nobody waits in a
circle.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from libs.common.postgres.pool import Connection

TURNS_AT_ONCE: Final = 16
LANES_OF_A_TURN: Final = 8
QUANTUM: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneChange:
    """A lane that is touched: `finished` of the deliveries that it counted are no longer in flight."""

    app: UUID
    endpoint: UUID
    max_inflight: int
    finished: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A delivery that this process now owns."""

    delivery: UUID
    lane: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a claim took, and what it locked.

    Attributes:
        deliveries: now this process's.
        served: lanes that go to the back of the line, those among them that turned out to be full.
        idle: applications whose turn came although none of their lanes can be served now.
    """

    deliveries: tuple[Claimed, ...]
    served: Mapping[UUID, LaneChange]
    idle: frozenset[UUID]


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
        SELECT u.lane, u.app, u.endpoint, 'infinity', u.finished, u.max_inflight
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
        [changes[lane].max_inflight for lane in ordered],
    )


async def refresh(connection: Connection, changes: Mapping[UUID, LaneChange], now: datetime, *, served: bool) -> None:
    """Compute head and readiness of lanes that this transaction has locked, and of their applications' turns.

    Args:
        connection: in the transaction that holds the locks.
        changes: the lanes.
        now: the database's time.
        served: whether they were just served, and so go to the back of the line.
    """
    if not changes:
        return
    await connection.execute(
        """
        UPDATE hookledger.lane l
        SET head_due = h.head,
            ready_at = CASE
                WHEN h.head IS NULL OR l.inflight >= l.max_inflight THEN 'infinity'
                WHEN $3 THEN greatest(h.head, $2)
                ELSE least(l.ready_at, greatest(h.head, $2))
            END
        FROM unnest($1::uuid[]) AS u (lane)
        LEFT JOIN LATERAL (
            SELECT min(q.due_at) AS head FROM hookledger.queue q WHERE q.lane = u.lane AND q.owner IS NULL
        ) h ON true
        WHERE l.lane = u.lane
        """,
        sorted(changes),
        now,
        served,
    )
    await refresh_turns(connection, {change.app for change in changes.values()}, now, served=served)


async def refresh_turns(connection: Connection, apps: Collection[UUID], now: datetime, *, served: bool) -> None:
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
        SET ready_at = CASE WHEN $3 THEN greatest(r.ready_at, $2) ELSE least(t.ready_at, r.ready_at) END
        FROM unnest($1::uuid[]) AS u (app)
        CROSS JOIN LATERAL (
            SELECT coalesce(min(l.ready_at), 'infinity') AS ready_at FROM hookledger.lane l WHERE l.app = u.app
        ) r
        WHERE t.app = u.app
        """,
        ordered,
        now,
        served,
    )


async def claim(connection: Connection, now: datetime, *, most: int, owner: UUID) -> Claim:
    """Take due deliveries, fairly: a few applications, a few of their lanes, a quantum from each lane's head."""
    turns = await connection.fetch(
        """
        SELECT app FROM hookledger.app_turn WHERE ready_at <= $1
        ORDER BY ready_at LIMIT $2 FOR UPDATE SKIP LOCKED
        """,
        now,
        TURNS_AT_ONCE,
    )
    if not turns:
        return Claim(deliveries=(), served={}, idle=frozenset())
    lanes = await connection.fetch(
        """
        SELECT l.lane, l.app, l.endpoint, l.max_inflight, l.max_inflight - l.inflight AS free
        FROM unnest($1::uuid[]) AS u (app)
        CROSS JOIN LATERAL (
            SELECT * FROM hookledger.lane WHERE app = u.app AND ready_at <= $2
            ORDER BY ready_at LIMIT $3 FOR UPDATE SKIP LOCKED
        ) l
        """,
        [row["app"] for row in turns],
        now,
        LANES_OF_A_TURN,
    )
    changes: dict[UUID, LaneChange] = {}
    limits: dict[UUID, int] = {}
    for row in lanes:
        limit = min(QUANTUM, row["free"], most)
        if limit <= 0 < row["free"]:
            continue  # no room for it this time, so that it keeps its place in the line
        if limit > 0:
            most -= limit
            limits[row["lane"]] = limit
        changes[row["lane"]] = LaneChange(app=row["app"], endpoint=row["endpoint"], max_inflight=row["max_inflight"])
    claimed = await connection.fetch(
        """
        WITH heads AS (
            SELECT c.delivery
            FROM unnest($1::uuid[], $2::int[]) AS u (lane, most)
            CROSS JOIN LATERAL (
                SELECT q.delivery FROM hookledger.queue q
                WHERE q.lane = u.lane AND q.owner IS NULL AND q.due_at <= $3 ORDER BY q.due_at LIMIT u.most
            ) c
        )
        UPDATE hookledger.queue q SET owner = $4, counted = true FROM heads
        WHERE q.delivery = heads.delivery RETURNING q.delivery, q.lane
        """,
        list(limits),
        list(limits.values()),
        now,
        owner,
    )
    return Claim(
        deliveries=tuple(Claimed(delivery=row["delivery"], lane=row["lane"]) for row in claimed),
        served=changes,
        idle=frozenset(row["app"] for row in turns) - {row["app"] for row in lanes},
    )


async def count(connection: Connection, started: Mapping[UUID, int]) -> None:
    """Count attempts that begin in their lanes, which this transaction has locked."""
    if started:
        await connection.execute(
            """
            UPDATE hookledger.lane l SET inflight = l.inflight + u.started
            FROM unnest($1::uuid[], $2::int[]) AS u (lane, started) WHERE l.lane = u.lane
            """,
            list(started),
            list(started.values()),
        )


async def next_ready(connection: Connection) -> datetime | None:
    """When the next turn is ready, as far as is known now."""
    ready: datetime | None = await connection.fetchval(
        "SELECT ready_at FROM hookledger.app_turn WHERE ready_at < 'infinity' ORDER BY ready_at LIMIT 1"
    )
    return ready


async def waiting_endpoints(connection: Connection) -> list[UUID]:
    """Endpoints in whose lanes something waits."""
    rows = await connection.fetch("SELECT DISTINCT endpoint FROM hookledger.lane WHERE head_due IS NOT NULL")
    return [row["endpoint"] for row in rows]


async def take_waiting(
    connection: Connection, endpoint: UUID, *, most: int
) -> tuple[dict[UUID, LaneChange], list[UUID]]:
    """Deliveries that wait for an endpoint, due or not, and their lanes, which are locked until the transaction ends.

    Lanes that others have locked are left to them. It takes from the far end: claims find the head where it was.
    """
    rows = await connection.fetch(
        """
        SELECT lane, app, max_inflight FROM hookledger.lane WHERE endpoint = $1 AND head_due IS NOT NULL
        ORDER BY lane LIMIT $2 FOR UPDATE SKIP LOCKED
        """,
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
    changes = {
        row["lane"]: LaneChange(app=row["app"], endpoint=endpoint, max_inflight=row["max_inflight"]) for row in rows
    }
    return changes, [row["delivery"] for row in waiting]
