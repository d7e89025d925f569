"""How much this process may have in flight: a limit for all, and for each endpoint its share over all replicas."""

import asyncio
from collections import Counter
from uuid import UUID

from libs.common.domain.endpoint import Endpoint


class Capacity:
    """Counts attempts in flight here.

    Args:
        most: attempts under way at the same time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._direct: Counter[UUID] = Counter()
        self._total = 0
        self.freed = asyncio.Event()

    @property
    def free(self) -> int:
        """Attempts that may begin now."""
        return max(0, self._most - self._total)

    @property
    def in_flight(self) -> int:
        """Attempts under way."""
        return self._total

    def take_direct(self, endpoint: Endpoint, dispatchers: int) -> bool:
        """Take a place for a first attempt, which touches no lane, out of this replica's share of the endpoint's."""
        share = max(1, endpoint.max_inflight // max(1, dispatchers))
        if not self.free or self._direct[endpoint.id] >= share:
            return False
        self._direct[endpoint.id] += 1
        self._total += 1
        return True

    def take_claimed(self) -> None:
        """Take a place for an attempt that a lane counts; the claim asked for no more than `free`."""
        self._total += 1

    def give_back(self, endpoint: UUID, *, direct: bool) -> None:
        """The attempt is over."""
        self._total -= 1
        if direct:
            self._direct[endpoint] -= 1
            if not self._direct[endpoint]:
                del self._direct[endpoint]
        self.freed.set()
