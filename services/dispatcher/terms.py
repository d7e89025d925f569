"""The terms of a claim: what the registry says of an endpoint, and what this process has room for."""

from collections import Counter
from collections.abc import Collection, Sequence
from uuid import UUID

from libs.common.domain.endpoint import Endpoint
from libs.common.postgres.snapshot import RegistrySnapshot
from services.dispatcher.capacity import Capacity
from services.dispatcher.flight import Flight
from services.dispatcher.lease import Lease
from services.dispatcher.turns import Bounds


class ClaimTerms:
    """As they are at this moment, and the places that one claim has reserved."""

    def __init__(self, snapshot: RegistrySnapshot, capacity: Capacity, lease: Lease, *, with_breakers: bool) -> None:
        self._snapshot = snapshot
        self._capacity = capacity
        self._lease = lease
        self._with_breakers = with_breakers
        self._reserved: Counter[tuple[UUID, UUID]] = Counter()
        self._unwanted: set[UUID] = set()

    def wants(self, endpoint: UUID) -> bool:
        """Whether attempts may begin: it is there, enabled, and was so whenever this claim has asked.

        Who was found unwanted once stays so for this claim, since nothing was reserved for it.
        """
        return self._wanted(endpoint) is not None

    def bounds(self, endpoint: UUID) -> Bounds:
        """Of an endpoint; what waits for one that is not wanted is cancelled, which nothing limits."""
        known = self._wanted(endpoint)
        if known is None:
            return Bounds()
        return Bounds(
            rate=known.throttle_rate,
            app_rate=known.app_throttle_rate,
            config_version=known.version if self._with_breakers else None,
        )

    def full(self) -> Collection[UUID]:
        """Endpoints and applications with all that they may have in flight here."""
        return self._capacity.full(self._snapshot.version)

    def room(self, endpoint: UUID) -> int | None:
        """What is left of this process's share of an endpoint; what is only cancelled needs no room."""
        known = self._wanted(endpoint)
        return None if known is None else self._capacity.room_for(known, self._lease.standing)

    def app_room(self, endpoint: UUID) -> int | None:
        """What is left of its share of the endpoint's application, where that has a limit."""
        known = self._wanted(endpoint)
        return None if known is None else self._capacity.app_room_for(known, self._lease.standing)

    def reserve(self, endpoint: UUID, app: UUID, places: int) -> None:
        """Take places."""
        for _ in range(places):
            self._capacity.take(endpoint, app)
        self._reserved[endpoint, app] += places

    def hand_over(self, flights: Sequence[Flight]) -> None:
        """These attempts have begun in reserved places, and give them back themselves."""
        self._reserved -= Counter((flight.endpoint.id, flight.endpoint.app) for flight in flights)

    def give_back(self) -> None:
        """What is left of the reserved places was not needed."""
        for endpoint, app in self._reserved.elements():
            self._capacity.give_back(endpoint, app, claimed=True)
        self._reserved.clear()

    def _wanted(self, endpoint: UUID) -> Endpoint | None:
        known = self._snapshot.wanted(endpoint)
        if known is None:
            self._unwanted.add(endpoint)
        return None if endpoint in self._unwanted else known
