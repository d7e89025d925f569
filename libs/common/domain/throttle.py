"""Throttles: so many sends per second, over all replicas, with bursts of a tenth of a second's worth.

The state is one moment: until when the time of sends is spent (the generic cell rate algorithm, ATM Forum TM 4.0). Time
in which nothing was due is kept for `BURST`, no longer; time in which something was due and nobody looked, for
`LATENESS`. So in any span of time no more is sent than it, `BURST` and what its first look is late by are worth, and
one more.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

BURST: Final = timedelta(milliseconds=100)
LATENESS: Final = timedelta(milliseconds=500)
"""A claim that comes so late to what is due loses nothing of the rate."""
_LOOK: Final = timedelta(milliseconds=25)
LONGEST_PROMISE: Final = timedelta(seconds=10)
"""How far ahead a lane is sent away at most: then it looks again, in case the rate was raised meanwhile."""
_SECOND_US: Final = 1_000_000
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttle:
    """The account of one rate.

    Attributes:
        rate: sends per second, 1 or more.
        spent_until: up to when the time of sends is spent.
        promised_until: up to when moments are promised to lanes that were turned away.
    """

    rate: int
    spent_until: datetime
    promised_until: datetime

    def looked_at(self, now: datetime, due_since: datetime) -> "Throttle":
        """The account of a look at `now`, at what has been due since `due_since`: without the time that is lost."""
        # Half a burst more than one send is worth: otherwise each look at a low rate would lose what it comes late by.
        kept = max(BURST, self._time_of(1) + BURST / 2)
        lost_until = max(min(due_since, now) - kept, now - LATENESS - self._time_of(1))
        return replace(self, spent_until=max(self.spent_until, lost_until))

    def available(self, now: datetime) -> int:
        """Sends that may begin now, at a look."""
        return max(0, (now - self.spent_until) * self.rate // timedelta(seconds=1))

    def take(self, count: int) -> "Throttle":
        """The account after `count` sends have begun, of those that were available."""
        return replace(self, spent_until=self.spent_until + self._time_of(count)) if count else self

    def next_at(self) -> datetime:
        """When to look again: for one send, or for what gathers in a moment, so that few looks serve a high rate."""
        return self.spent_until + max(self._time_of(1), _LOOK)

    def promise(self, now: datetime) -> tuple[datetime, "Throttle"]:
        """A moment for one more lane that was turned away, each after the one promised before."""
        at = min(max(self.promised_until + self._time_of(1), self.next_at()), now + LONGEST_PROMISE)
        return at, replace(self, promised_until=at)

    def _time_of(self, count: int) -> timedelta:
        return -(-count * _SECOND_US // self.rate) * _MICROSECOND  # rounded up: a rate is never exceeded
