"""Lanes: which one a delivery waits in, what a replica's share of a limit is, and who is served how much."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final
from uuid import UUID

QUANTUM: Final = 32
_SHORTEST_SETTLING: Final = timedelta(milliseconds=5)
_LONGEST_SETTLING: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A replica among those that live: number `rank`, from 0, `of` so many."""

    rank: int = 0
    of: int = 1


def share(limit: int, standing: Standing) -> int:
    """This replica's part of a limit that holds over all of them; the parts add up to the limit."""
    return limit // standing.of + (standing.rank < limit % standing.of)


def ordering_lane(endpoint: UUID, key: str | None) -> UUID:
    """The lane of an ordering key within an ordered endpoint; without a key, of all that has none.

    Any other endpoint has one lane, whose id is the endpoint's. `hookledger.ordering_lane` is the same in SQL.
    """
    return UUID(bytes=hashlib.sha256(endpoint.bytes + (key or "").encode()).digest()[:16])


def settling(waited: timedelta) -> timedelta:
    """When to look again at a head that may not go yet, since an older message of its lane may still come."""
    return min(_LONGEST_SETTLING, max(_SHORTEST_SETTLING, waited / 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A lane whose head is due, and how many more it may have in flight over all replicas."""

    lane: UUID
    app: UUID
    endpoint: UUID
    free: int


@dataclass(slots=True, kw_only=True)
class Allotment:
    """What ready lanes get. A lane that is in none of these keeps its place in the line.

    Attributes:
        limits: how much to claim, by lane.
        full: lanes with as much in flight as they may have.
        throttled: lanes whose endpoint's throttle gives nothing now.
        spent: applications whose throttle gives nothing now.
    """

    limits: dict[UUID, int] = field(default_factory=dict)
    full: list[UUID] = field(default_factory=list)
    throttled: list[UUID] = field(default_factory=list)
    spent: set[UUID] = field(default_factory=set)


def allot(ready: Iterable[Ready], *, rooms: Mapping[UUID, int], available: Mapping[UUID, int]) -> Allotment:
    """How much each of the ready lanes may get, in their order: a quantum at most. `trim` keeps it to the places.

    Args:
        ready: the lanes, those that have waited longest first.
        rooms: what is left of this replica's shares, by endpoint and application; who is not named has no bound.
        available: what throttles give now, by endpoint and application; who is not named has none.
    """
    allotted = Allotment()
    rooms, available = dict(rooms), dict(available)
    for lane in ready:
        if lane.free <= 0:
            allotted.full.append(lane.lane)
            continue
        if available.get(lane.app, 1) <= 0:
            allotted.spent.add(lane.app)
            continue
        if available.get(lane.endpoint, 1) <= 0:
            allotted.throttled.append(lane.lane)
            continue
        owners = (lane.endpoint, lane.app)
        named = [(bound, owner) for bound in (rooms, available) for owner in owners if owner in bound]
        limit = min(QUANTUM, lane.free, *(bound[owner] for bound, owner in named))
        if limit <= 0:
            continue
        allotted.limits[lane.lane] = limit
        for bound, owner in named:
            bound[owner] -= limit
    return allotted


def trim(allotted: Allotment, *, most: int, due: Mapping[UUID, int]) -> Allotment:
    """Keep to `most` places in all, by what is really due.

    Were each lane taken to have all that it may get, a few lanes of which each has little would use up every place.

    Args:
        allotted: with as much for each lane as it may get.
        most: places in this replica.
        due: how much of that is due, by lane; who is not named has nothing.
    """
    limits: dict[UUID, int] = {}
    for lane, limit in allotted.limits.items():
        if most <= 0:
            break  # the others keep their places in the line
        limits[lane] = min(limit, due.get(lane, 0), most)
        most -= limits[lane]
    return replace(allotted, limits=limits)
