"""Claiming, fairly: a few applications in their turn, a few of the lanes of each, a quantum from each lane's head.

What limits a claim (the endpoint's share of this process, its throttle and its application's) is asked before anything
is taken, so that what may not go now stays where it is: no attempt, no memory and no connection is spent on it.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, Protocol
from uuid import UUID

import asyncpg
import msgspec
from msgspec import Struct

from libs.common.domain.breaker import Gate
from libs.common.domain.lanes import QUANTUM, Allotment, Ready, allot, settling, trim
from libs.common.domain.throttle import Throttle
from libs.common.postgres.pool import Connection
from services.dispatcher import breakers, throttles
from services.dispatcher.lanes import LaneChange, is_ordered

TURNS_AT_ONCE: Final = 16
LANES_OF_A_TURN: Final = 8


class Bounds(Struct, frozen=True, kw_only=True):
    """What limits an endpoint now. None: no bound, as for what is only to be cancelled.

    Attributes:
        rate: its sends per second.
        app_rate: its application's.
        config_version: of the endpoint, whose breaker may keep it from getting more than a probe.
    """

    rate: int | None = None
    app_rate: int | None = None
    config_version: int | None = None

    @property
    def rated(self) -> bool:
        """Whether an account is to be asked."""
        return self.rate is not None or self.app_rate is not None


class Terms(Protocol):
    """What a claim asks of the configuration and of this process."""

    def bounds(self, endpoint: UUID) -> Bounds:
        """Of this endpoint."""

    def full(self) -> Collection[UUID]:
        """Endpoints and applications that have no room in this process."""

    def room(self, endpoint: UUID) -> int | None:
        """Places for attempts of this endpoint in this process; None for as many as one likes."""

    def app_room(self, endpoint: UUID) -> int | None:
        """The same for all endpoints of its application together."""

    def reserve(self, endpoint: UUID, app: UUID, places: int) -> None:
        """Take places before anything is claimed, so that first attempts do not take them meanwhile."""


class Claimed(Struct, frozen=True, kw_only=True):
    """A delivery that this process now owns."""

    delivery: UUID
    lane: UUID


class Claim(Struct, frozen=True, kw_only=True):
    """What a claim took, and what it locked.

    Attributes:
        deliveries: now this process's.
        served: lanes that go to the back of the line, those among them that turned out to be full.
        idle: applications whose turn came although none of their lanes can be served now.
        parked: lanes and applications that are not to be looked at before that time.
        full: endpoints and applications that have no room in this process, so that their lanes were left out.
        probes: endpoints to which one attempt may go, a probe; and when to look at their lanes once it has begun.
    """

    deliveries: tuple[Claimed, ...] = ()
    served: Mapping[UUID, LaneChange] = msgspec.field(default_factory=dict)
    idle: frozenset[UUID] = frozenset()
    parked: Mapping[UUID, datetime] = msgspec.field(default_factory=dict)
    full: Collection[UUID] = ()
    probes: Mapping[UUID, datetime] = msgspec.field(default_factory=dict)


async def claim(connection: Connection, now: datetime, *, most: int, owner: UUID, terms: Terms, epoch: int) -> Claim:
    """Take due deliveries.

    Args:
        connection: in a transaction.
        now: the database's time.
        most: places in this process.
        owner: this process.
        terms: what limits endpoints.
        epoch: of the ledger.
    """
    full = terms.full()
    turns = await connection.fetch(
        """
        SELECT app FROM hookledger.app_turn WHERE ready_at <= $1
        ORDER BY ready_at LIMIT $2 FOR UPDATE SKIP LOCKED
        """,
        now,
        TURNS_AT_ONCE,
    )
    joins = not turns
    if joins:
        turns = await _turns_of_others(connection, now)
    if not turns:
        return Claim(full=full)
    apps = frozenset(row["app"] for row in turns)
    rows = await _lanes(connection, [row["app"] for row in turns], now, most=most, full=full)
    bounds = {row["endpoint"]: terms.bounds(row["endpoint"]) for row in rows}
    if joins:
        rows = [row for row in rows if not row["broken"] and not bounds[row["endpoint"]].rated]
    gates = await _gates(connection, rows, bounds, now)
    rates = _rates(rows, bounds)
    accounts = await throttles.lock(connection, rates, _due_since(rows, rates), now)
    available = {identity: account.available(now) for identity, account in accounts.items()}
    available |= {endpoint: min(gate.heads, available.get(endpoint, gate.heads)) for endpoint, gate in gates.items()}
    allotted = allot(
        [Ready(lane=row["lane"], app=row["app"], endpoint=row["endpoint"], free=row["free"]) for row in rows],
        rooms=_rooms(rows, terms),
        available=available,
    )
    of_lane = {row["lane"]: row for row in rows}
    if sum(allotted.limits.values()) > most:
        allotted = trim(allotted, most=most, due={row["lane"]: row["due"] for row in rows})
    for lane, limit in allotted.limits.items():
        terms.reserve(of_lane[lane]["endpoint"], of_lane[lane]["app"], limit)
    taken = _Taking(rows, bounds, allotted, now)
    await taken.take(connection, owner, epoch)
    taken.settle(accounts)
    taken.park(gates)
    await throttles.save(connection, accounts)
    return Claim(
        deliveries=tuple(taken.claimed),
        served=taken.served(),
        idle=frozenset() if joins else apps - {row["app"] for row in rows} | allotted.spent,
        parked=taken.parked,
        full=full,
        probes={endpoint: gate.look_at for endpoint, gate in gates.items() if gate.heads},
    )


async def _turns_of_others(connection: Connection, now: datetime) -> list[asyncpg.Record]:
    """Applications whose turn others have in hand, where there is no other: their lanes are served side by side.

    Such a turn is waited for at the end, when it is computed anew, with lanes in hand. So whoever has it must not wait
    for anything else of those who join: they leave out the lanes whose breakers and accounts they would lock.
    """
    return await connection.fetch(
        "SELECT app FROM hookledger.app_turn WHERE ready_at <= $1 ORDER BY ready_at LIMIT $2", now, TURNS_AT_ONCE
    )


async def _lanes(
    connection: Connection, apps: Sequence[UUID], now: datetime, *, most: int, full: Collection[UUID]
) -> list[asyncpg.Record]:
    """A few lanes of each application, locked; as many as there are places, where these have little due."""
    rows = await _locked(connection, apps, now, each=LANES_OF_A_TURN, most=most, full=full)
    more = most // len(apps)
    if more > LANES_OF_A_TURN <= len(rows) and sum(min(row["due"], row["free"]) for row in rows) < most:
        rows = await _locked(connection, apps, now, each=more, most=most, full=full)
    return rows


async def _locked(
    connection: Connection, apps: Sequence[UUID], now: datetime, *, each: int, most: int, full: Collection[UUID]
) -> list[asyncpg.Record]:
    """Lanes that are ready, `each` of an application at most, with how much of it is due, up to a quantum or `most`.

    What is due is read with the lock, and others may have taken some of it before: it only says how far to go on.
    """
    return await connection.fetch(
        """
        SELECT l.lane, l.app, l.endpoint, coalesce(l.head_due, $2) AS head_due, l.max_inflight - l.inflight AS free,
            EXISTS (SELECT FROM hookledger.breaker b WHERE b.endpoint = l.endpoint) AS broken,
            CASE WHEN l.lane <> l.endpoint THEN 1 ELSE (
                SELECT count(*) FROM (
                    SELECT FROM hookledger.queue q
                    WHERE q.lane = l.lane AND q.owner IS NULL AND q.due_at <= $2 ORDER BY q.due_at LIMIT $5
                ) counted
            ) END AS due
        FROM unnest($1::uuid[]) AS u (app)
        CROSS JOIN LATERAL (
            SELECT * FROM hookledger.lane
            WHERE app = u.app AND ready_at <= $2 AND endpoint <> ALL($4) AND app <> ALL($4)
            ORDER BY ready_at LIMIT $3 FOR UPDATE SKIP LOCKED
        ) l
        """,
        apps,
        now,
        each,
        list(full),
        min(QUANTUM, most),
    )


def _rooms(rows: Iterable[asyncpg.Record], terms: Terms) -> dict[UUID, int]:
    """What is left in this process, by endpoint and application; who is not named has no bound."""
    owners = {(row["endpoint"], row["app"]) for row in rows}
    rooms = {endpoint: terms.room(endpoint) for endpoint, _ in owners}
    rooms |= {app: room for endpoint, app in owners if (room := terms.app_room(endpoint)) is not None}
    return {owner: room for owner, room in rooms.items() if room is not None}


async def _gates(
    connection: Connection, rows: Sequence[asyncpg.Record], bounds: Mapping[UUID, Bounds], now: datetime
) -> dict[UUID, Gate]:
    """What may go through the breakers of these lanes' endpoints, by endpoint; a closed one stops nothing."""
    versions = {
        row["endpoint"]: version
        for row in rows
        if row["broken"] and (version := bounds[row["endpoint"]].config_version) is not None
    }
    found = await breakers.lock(connection, versions)
    return {endpoint: it.gate(now) for endpoint, it in found.items() if it.concerns(versions[endpoint])}


def _rates(rows: Iterable[asyncpg.Record], bounds: Mapping[UUID, Bounds]) -> dict[UUID, int]:
    rates: dict[UUID, int] = {}
    for row in rows:
        said = bounds[row["endpoint"]]
        if said.rate is not None:
            rates[row["endpoint"]] = said.rate
        if said.app_rate is not None:
            rates[row["app"]] = said.app_rate
    return rates


def _due_since(rows: Iterable[asyncpg.Record], rates: Collection[UUID]) -> dict[UUID, datetime]:
    """Since when something has been due, by endpoint and application with a rate, as far as these lanes show it."""
    since: dict[UUID, datetime] = {}
    if rates:
        for row in rows:
            for owner in (row["endpoint"], row["app"]):
                since[owner] = min(row["head_due"], since.get(owner, row["head_due"]))
    return since


class _Taking:
    """The lanes of one claim, what was taken from them, and who is parked."""

    def __init__(
        self, rows: Sequence[asyncpg.Record], bounds: Mapping[UUID, Bounds], allotted: Allotment, now: datetime
    ) -> None:
        self._lanes = {row["lane"]: row for row in rows}
        self._bounds = bounds
        self._allotted = allotted
        self._now = now
        self.claimed: list[Claimed] = []
        self.parked: dict[UUID, datetime] = {}

    async def take(self, connection: Connection, owner: UUID, epoch: int) -> None:
        """Claim from each lane what was allotted to it."""
        limits = self._allotted.limits
        in_order = {lane for lane in limits if is_ordered(lane, self._lanes[lane]["endpoint"])}
        plain = {lane: limit for lane, limit in limits.items() if lane not in in_order}
        rows = []
        if plain:
            rows = await connection.fetch(
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
                list(plain),
                list(plain.values()),
                self._now,
                owner,
            )
        if in_order:
            rows += await self._take_heads(connection, sorted(in_order), owner, epoch)
        self.claimed = [Claimed(delivery=row["delivery"], lane=row["lane"]) for row in rows]

    async def _take_heads(
        self, connection: Connection, in_order: Sequence[UUID], owner: UUID, epoch: int
    ) -> list[asyncpg.Record]:
        """Claim the heads of ordered lanes: each the first that was accepted, if nothing older may still come.

        One snapshot sees it all: what has a smaller transaction id than the oldest that is still open is committed, and
        then stands in the outbox or in the lane. The lanes were locked before, so that nobody adds to them meanwhile.
        """
        heads = await connection.fetch(
            """
            SELECT u.lane, h.delivery, h.due_at, (h.epoch < $3 OR h.xact < pg_snapshot_xmin(pg_current_snapshot()))
                AND NOT EXISTS (SELECT FROM hookledger.outbox o WHERE o.app IS NULL)
                AND NOT EXISTS (
                    SELECT FROM hookledger.outbox o
                    JOIN hookledger.message m ON m.id = o.message
                    JOIN hookledger.fact f ON f.stream = o.message AND f.version = 1
                    WHERE o.app = l.app AND o.xact <= h.xact AND (f.epoch, f.xact, f.position)
                            < (h.epoch, h.xact, h.position)
                        AND hookledger.ordering_lane(l.endpoint, m.ordering_key) = l.lane
                ) AS settled
            FROM unnest($1::uuid[]) AS u (lane)
            JOIN hookledger.lane l ON l.lane = u.lane
            CROSS JOIN LATERAL (
                SELECT q.delivery, q.owner, q.due_at, q.epoch, q.xact, q.position FROM hookledger.queue q
                WHERE q.lane = u.lane AND q.xact IS NOT NULL ORDER BY q.epoch, q.xact, q.position LIMIT 1
            ) h
            WHERE h.owner IS NULL AND h.due_at <= $2
            """,
            in_order,
            self._now,
            epoch,
        )
        for row in heads:
            if not row["settled"]:
                self.parked[row["lane"]] = self._now + settling(self._now - row["due_at"])
        return await connection.fetch(
            """
            UPDATE hookledger.queue q SET owner = $2, counted = true
            WHERE q.delivery = ANY($1) RETURNING q.delivery, q.lane
            """,
            [row["delivery"] for row in heads if row["settled"]],
            owner,
        )

    def settle(self, accounts: dict[UUID, Throttle]) -> None:
        """Book what was taken with the throttles, and park whom they turned away."""
        spent: Counter[UUID] = Counter()
        for item in self.claimed:
            row = self._lanes[item.lane]
            said = self._bounds[row["endpoint"]]
            spent[row["endpoint"]] += said.rate is not None
            spent[row["app"]] += said.app_rate is not None
        for identity, account in accounts.items():
            accounts[identity] = account.take(spent[identity])
        for lane in (*self._allotted.throttled, *self._allotted.limits):
            endpoint = self._lanes[lane]["endpoint"]
            if endpoint in accounts and not accounts[endpoint].available(self._now):
                promised, accounts[endpoint] = accounts[endpoint].promise(self._now)
                self.parked[lane] = max(promised, self.parked.get(lane, promised))
        for app in {row["app"] for row in self._lanes.values()} & accounts.keys():
            if not accounts[app].available(self._now):
                self.parked[app] = accounts[app].next_at()

    def park(self, gates: Mapping[UUID, Gate]) -> None:
        """Park the lanes of endpoints whose breaker lets nothing through."""
        for lane in self._allotted.throttled:
            gate = gates.get(self._lanes[lane]["endpoint"])
            if gate is not None and not gate.heads:
                self.parked[lane] = max(gate.look_at, self.parked.get(lane, gate.look_at))

    def served(self) -> dict[UUID, LaneChange]:
        """The lanes that go to the back of the line."""
        allotted = self._allotted
        return {
            lane: LaneChange(app=self._lanes[lane]["app"], endpoint=self._lanes[lane]["endpoint"])
            for lane in (*allotted.limits, *allotted.full, *allotted.throttled)
        }
