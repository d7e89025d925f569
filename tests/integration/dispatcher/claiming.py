"""A claim as `Claims` makes it, without attempts."""

from collections import Counter
from uuid import UUID

from libs.common.postgres.pool import Connection
from libs.common.runtime.clock import new_id
from services.dispatcher import lanes, turns


class Unlimited:
    """The terms of endpoints that nothing limits."""

    def bounds(self, _endpoint: UUID) -> turns.Bounds:
        """None."""
        return turns.Bounds()

    def full(self) -> list[UUID]:
        """None."""
        return []

    def room(self, _endpoint: UUID) -> int | None:
        """As much as one likes."""
        return None

    def app_room(self, _endpoint: UUID) -> int | None:
        """As much as one likes."""
        return None

    def reserve(self, endpoint: UUID, app: UUID, places: int) -> None:
        """Nobody else takes any."""


async def claim(connection: Connection, *, most: int, owner: UUID | None = None) -> tuple[turns.Claimed, ...]:
    """Claim, in a transaction that the caller has begun; without an `owner`, for one that nobody knows."""
    now = await connection.fetchval("SELECT clock_timestamp()")
    taken = await turns.claim(connection, now, most=most, owner=owner or new_id(), terms=Unlimited(), epoch=1)
    started = Counter(item.lane for item in taken.deliveries)
    await lanes.refresh(connection, taken.served, now, served=True, parked=taken.parked, started=started)
    await lanes.refresh_turns(connection, taken.idle, now, served=True, parked=taken.parked)
    return taken.deliveries
