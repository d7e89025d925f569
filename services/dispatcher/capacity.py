"""How much this process may have in flight: a limit for all, and its share of what endpoints and applications may.

First attempts and claimed ones come out of the same shares, so that an endpoint has one account, and an application
too, though nobody asks the database before a first attempt.
"""

import asyncio
from collections import Counter
from uuid import UUID

from libs.common.domain.endpoint import Endpoint
from libs.common.domain.lanes import Standing, share


class Capacity:
    """Counts attempts in flight here.

    Args:
        most: attempts under way at the same time.

    Attributes:
        freed: set when an attempt is over.
        room: set when an endpoint or an application that had its whole share in flight has room again. Who claims
            sleeps on it.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._in_flight: Counter[UUID] = Counter()
        self._total = 0
        self._full: set[UUID] = set()
        self.freed = asyncio.Event()
        self.room = asyncio.Event()

    @property
    def free(self) -> int:
        """Attempts that may begin now."""
        return max(0, self._most - self._total)

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

    def full(self) -> list[UUID]:
        """Endpoints and applications that were found without room, and of which nothing is over since."""
        return list(self._full)

    def take_direct(self, endpoint: Endpoint, standing: Standing) -> bool:
        """Take a place for a first attempt, which touches no lane."""
        if not self.free or not self.room_for(endpoint, standing) or self.app_room_for(endpoint, standing) == 0:
            return False
        self.take(endpoint.id, endpoint.app)
        return True

    def take(self, endpoint: UUID, app: UUID) -> None:
        """Take a place for an attempt that a claim has begun: it asked for no more than there was room for."""
        self._in_flight[endpoint] += 1
        self._in_flight[app] += 1
        self._total += 1

    def give_back(self, endpoint: UUID, app: UUID) -> None:
        """The attempt is over."""
        self._total -= 1
        for owner in (endpoint, app):
            self._in_flight[owner] -= 1
            if not self._in_flight[owner]:
                del self._in_flight[owner]
            if owner in self._full:
                self._full.discard(owner)
                self.room.set()
        self.freed.set()

    def _left(self, owner: UUID, most: int, standing: Standing) -> int:
        left = share(most, standing) - self._in_flight[owner]
        if left > 0:
            self._full.discard(owner)
        else:
            self._full.add(owner)
        return max(0, left)

    def shared_anew(self) -> None:
        """The number of replicas has changed, and with it every share."""
        self._full.clear()
        self.room.set()
