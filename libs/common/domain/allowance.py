"""How much of a backlog may be in hand in one process: no more than leaves time to what is accepted just now.

Attempts under way take turns on one processor, and the more there are, the longer each step of each waits. So does what
has just been accepted, and begins at once. How long that is can be measured: how late the process comes to what is
ready. What a backlog may have in hand follows it, as a window of TCP follows losses: it grows while the process comes
in time, and shrinks by a good part as soon as it does not.
"""

from typing import Final

from msgspec import Struct
from msgspec.structs import replace

LEAST: Final = 16
"""Places that are there in any case: a backlog always goes on."""
MOST: Final = 64
"""Places beside what is fresh, however well it goes: those who are claimed together begin together, in one go."""
LATE_SECONDS: Final = 0.001
"""What is ready waits longer than this, on average: more is under way than there is time for."""
_GROWTH: Final = 8
"""By one part of so many it grows, and by one."""
_RETREAT: Final = 4
"""By one part of so many it shrinks."""


class Look(Struct, frozen=True, kw_only=True):
    """What was seen of a process, while something fresh was there to be kept waiting.

    Attributes:
        late: by how many seconds it came late to what was ready, on average.
        in_hand: attempts of a backlog that were not waiting for their receivers.
    """

    late: float
    in_hand: int


class Allowance(Struct, frozen=True, kw_only=True):
    """Attempts of a backlog that may be in hand beside what is fresh: `places`, and never more than `most`."""

    places: int
    most: int

    def left(self, in_hand: int) -> int:
        """Places for what is to be claimed now: half of them at least or none, since few cost a claim much as well."""
        left = self.places - in_hand
        return left if 2 * left >= self.places else 0

    def after(self, look: Look) -> "Allowance":
        """What follows from a look."""
        if look.late > LATE_SECONDS:
            return replace(self, places=max(min(LEAST, self.most), self.places - self.places // _RETREAT))
        if 2 * look.in_hand < self.places:
            return self  # in time with what was in hand, which says nothing of more
        return replace(self, places=min(self.most, self.places + self.places // _GROWTH + 1))


def beginning(most: int) -> Allowance:
    """Before anything was seen, where the process has `most` places for all that it does."""
    return Allowance(places=min(LEAST, most), most=min(MOST, most))
