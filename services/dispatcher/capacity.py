"""How much this process may have in flight: a limit for all, and its share of what endpoints and applications may.

First attempts and claimed ones come out of the same shares, so that an endpoint has one account, and an application
too, though nobody asks the database before a first attempt.
"""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from math import inf
from typing import Final
from uuid import UUID

from libs.common.domain.allowance import Look, beginning
from libs.common.domain.endpoint import Endpoint
from libs.common.domain.lanes import Standing, share
from libs.common.runtime import clock

_NOTHING: Final = nullcontext()
_TICK_SECONDS: Final = 0.01
_TICKS: Final = 10
"""Of one look."""
_FRESH_SECONDS: Final = 2.0
"""For so long after a first attempt began at once, others may be expected."""


class Capacity:
    """Counts attempts in flight here.

    Args:
        most: attempts under way at the same time.

    Attributes:
        freed: set when an attempt is over, or one that was claimed waits for its receiver.
        room: set when an endpoint or an application that had its whole share in flight has room again. Who claims
            sleeps on it.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._in_flight: dict[UUID, int] = {}
        self._total = 0
        self._in_hand = 0
        self._asked_at = -inf
        self._allowance = beginning(most)
        self._busy = asyncio.Event()
        self._full: set[UUID] = set()
        self._judged_by = -1
        self.freed = asyncio.Event()
        self.room = asyncio.Event()

    @property
    def free(self) -> int:
        """Attempts that may begin now."""
        return max(0, self._most - self._total)

    @property
    def claimable(self) -> int:
        """Attempts that may be claimed now. Where first attempts begin as well, a backlog leaves them time."""
        return min(self.free, self._allowance.left(self._in_hand)) if self._fresh else self.free

    @property
    def in_flight(self) -> int:
        """Attempts under way."""
        return self._total

    def room_for(self, endpoint: Endpoint, standing: Standing) -> int:
        """What is left of this replica's share of an endpoint's attempts in flight."""
        return self._left(endpoint.id, endpoint.max_inflight, standing)

    def app_room_for(self, endpoint: Endpoint, standing: Standing) -> int | None:
        """What is left of its share of those of the endpoint's application; None if that has no limit."""
        most = endpoint.app_max_inflight
        return None if most is None else self._left(endpoint.app, most, standing)

    def full(self, version: int) -> list[UUID]:
        """Endpoints and applications that were found without room, and of which nothing is over since.

        What was found by another version of the registry than this one is forgotten: limits may have changed.
        """
        if version != self._judged_by:
            self._judged_by = version
            self._full.clear()
        return list(self._full)

    def take_direct(self, endpoint: Endpoint, standing: Standing) -> bool:
        """Take a place for a first attempt, which touches no lane."""
        self._asked_at = clock.monotonic()
        if not self.free or not self.room_for(endpoint, standing) or self.app_room_for(endpoint, standing) == 0:
            return False
        self._take(endpoint.id, endpoint.app)
        return True

    def take(self, endpoint: UUID, app: UUID) -> None:
        """Take a place for an attempt that is claimed: it asked for no more than there was room for."""
        self._in_hand += 1
        self._busy.set()
        self._take(endpoint, app)

    def _take(self, endpoint: UUID, app: UUID) -> None:
        for owner in (endpoint, app):
            self._in_flight[owner] = self._in_flight.get(owner, 0) + 1
        self._total += 1

    def give_back(self, endpoint: UUID, app: UUID, *, claimed: bool = False) -> None:
        """The attempt is over; `claimed` says that it came from a lane."""
        self._total -= 1
        self._in_hand -= claimed
        for owner in (endpoint, app):
            left = self._in_flight.pop(owner) - 1
            if left:
                self._in_flight[owner] = left
            if self._full and owner in self._full:
                self._full.discard(owner)
                self.room.set()
        self.freed.set()

    def sending(self, *, claimed: bool) -> AbstractContextManager[None]:
        """While an attempt waits for its receiver, which takes a place and no time."""
        return self._out_of_hand() if claimed else _NOTHING

    @contextmanager
    def _out_of_hand(self) -> Iterator[None]:
        self._in_hand -= 1
        self.freed.set()
        try:
            yield
        finally:
            self._in_hand += 1
            self._busy.set()

    @property
    def _fresh(self) -> bool:
        """Whether first attempts begin these days."""
        return clock.monotonic() - self._asked_at < _FRESH_SECONDS

    async def watch(self) -> None:
        """See how much time what is claimed leaves to what is fresh, and have it keep to that, until cancelled."""
        while True:
            await self._busy.wait()
            look = await self._look()
            if self._fresh:
                self._allowance = self._allowance.after(look)
            if self.claimable:
                self.freed.set()
            if not self._in_hand:
                self._busy.clear()

    async def _look(self) -> Look:
        """See for a moment how late this process comes to what is ready."""
        late, in_hand = 0.0, 0
        for _ in range(_TICKS):
            due = clock.monotonic() + _TICK_SECONDS
            await asyncio.sleep(_TICK_SECONDS)
            late += max(0.0, clock.monotonic() - due)
            in_hand = max(in_hand, self._in_hand)
        return Look(late=late / _TICKS, in_hand=in_hand)

    def _left(self, owner: UUID, most: int, standing: Standing) -> int:
        left = share(most, standing) - self._in_flight.get(owner, 0)
        if left <= 0:
            self._full.add(owner)
        elif self._full:
            self._full.discard(owner)
        return max(0, left)

    def shared_anew(self) -> None:
        """The number of replicas has changed, and with it every share."""
        self._full.clear()
        self.room.set()
