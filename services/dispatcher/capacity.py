"""How much this process may have in flight: a limit for all, and for each endpoint its share over all replicas.

First attempts and claimed ones come out of the same share, so that an endpoint has one account, though nobody asks the
database before a first attempt.
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
        room: set when an endpoint that had its whole share in flight has room again. Who claims sleeps on it.
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
        left = share(endpoint.max_inflight, standing) - self._in_flight[endpoint.id]
        if left > 0:
            self._full.discard(endpoint.id)
        else:
            self._full.add(endpoint.id)
        return max(0, left)

    def full(self) -> list[UUID]:
        """Endpoints that were found without room, and of which nothing is over since."""
        return list(self._full)

    def take_direct(self, endpoint: Endpoint, standing: Standing) -> bool:
        """Take a place for a first attempt, which touches no lane."""
        if not self.free or not self.room_for(endpoint, standing):
            return False
        self.take(endpoint.id)
        return True

    def take(self, endpoint: UUID) -> None:
        """Take a place for an attempt that a claim has begun: it asked for no more than there was room for."""
        self._in_flight[endpoint] += 1
        self._total += 1

    def give_back(self, endpoint: UUID) -> None:
        """The attempt is over."""
        self._total -= 1
        self._in_flight[endpoint] -= 1
        if not self._in_flight[endpoint]:
            del self._in_flight[endpoint]
        self.freed.set()
        if endpoint in self._full:
            self._full.discard(endpoint)
            self.room.set()

    def shared_anew(self) -> None:
        """The number of replicas has changed, and with it every share."""
        self._full.clear()
        self.room.set()
