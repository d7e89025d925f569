"""The terms of claims: what the registry says of an endpoint, and what this process has room for."""

from collections.abc import Collection
from uuid import UUID

from libs.common.postgres.snapshot import RegistrySnapshot
from services.dispatcher.capacity import Capacity
from services.dispatcher.lease import Lease
from services.dispatcher.turns import Bounds


class CurrentTerms:
    """As they are at this moment."""

    def __init__(self, snapshot: RegistrySnapshot, capacity: Capacity, lease: Lease) -> None:
        self._snapshot = snapshot
        self._capacity = capacity
        self._lease = lease

    def bounds(self, endpoint: UUID) -> Bounds:
        """Of an endpoint; what waits for one that is not wanted is cancelled, which nothing limits."""
        known = self._snapshot.endpoint(endpoint)
        if known is None or not known.enabled:
            return Bounds(ordered=False)
        return Bounds(
            room=self._capacity.room_for(known, self._lease.standing),
            rate=known.throttle_rate,
            app_rate=known.app_throttle_rate,
        )

    def full(self) -> Collection[UUID]:
        """Endpoints with all that they may have in flight here."""
        return self._capacity.full()
