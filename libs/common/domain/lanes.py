"""Lanes: which one a delivery waits in, what a replica's share of a limit is, and who is served how much."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
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


def allot(ready: Iterable[Ready], *, most: int, rooms: Mapping[UUID, int], available: Mapping[UUID, int]) -> Allotment:
    """Share out `most` places among ready lanes, in their order, a quantum each at most.

    Args:
        ready: the lanes, those that have waited longest first.
        most: places in this replica.
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
        limit = min(QUANTUM, lane.free, most)
        for bounds, owner in _bounds(lane, rooms, available):
            limit = min(limit, bounds.get(owner, limit))
        if limit <= 0:
            continue
        allotted.limits[lane.lane] = limit
        most -= limit
        for bounds, owner in _bounds(lane, rooms, available):
            if owner in bounds:
                bounds[owner] -= limit
    return allotted


def _bounds(
    lane: Ready, rooms: dict[UUID, int], available: dict[UUID, int]
) -> tuple[tuple[dict[UUID, int], UUID], ...]:
    """What bounds a lane, and under which name it stands there."""
    return tuple((bounds, owner) for bounds in (rooms, available) for owner in (lane.endpoint, lane.app))
