"""When to try again: a schedule of waits, spread by jitter, lengthened by what the receiver asks for."""

from datetime import timedelta
from typing import Final

from msgspec import Struct

JITTER_SHARE: Final = 0.2
MOST_UNKNOWN_IN_A_ROW: Final = 5
LONGEST_LIFE: Final = timedelta(days=30)
MOST_RETRIES: Final = 100
_RETRY_AFTER_FACTOR: Final = 2
_RETRY_AFTER_LEAST_CAP: Final = timedelta(hours=1)

STANDARD_SCHEDULE: Final = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=10),
)
"""Source: Standard Webhooks, "Deliverability and reliability"."""

QUICK_SCHEDULE: Final = (timedelta(seconds=1), timedelta(seconds=5), timedelta(seconds=30))


def exponential(*, first: timedelta, factor: float, most: timedelta, retries: int) -> tuple[timedelta, ...]:
    """A schedule whose waits grow by `factor`, from `first` up to `most`."""
    waits: list[timedelta] = []
    wait = min(first, most)
    for _ in range(retries):
        waits.append(wait)
        wait = most if wait > most / factor else wait * factor
    return tuple(waits)


class Wait(Struct, frozen=True, kw_only=True):
    """A wait that was decided, with what it was decided from, as the ledger records it."""

    delay: timedelta
    base: timedelta
    jitter: float
    retry_after: timedelta | None


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """The waits between attempts of a run: after the first failure `schedule[0]`, and so on; none left: exhausted.

    Attributes:
        schedule: the waits.
        retry_client_errors: whether a 4xx that would be final is tried again.
        jitter_share: how much of itself a wait is spread by, either way; from 0 to 1.
        max_age: from its schedule on; what is older is not tried again.
        holds: whether a delivery that is exhausted or refused keeps its place in its ordered lane.
    """

    schedule: tuple[timedelta, ...] = STANDARD_SCHEDULE
    retry_client_errors: bool = False
    jitter_share: float = JITTER_SHARE
    max_age: timedelta = LONGEST_LIFE
    holds: bool = False

    def wait(self, failures: int, *, jitter: float, retry_after: timedelta | None) -> Wait | None:
        """The wait after failure number `failures` (1 or more), or None where the schedule is spent.

        Args:
            failures: how many attempts of this run have failed, the last one included.
            jitter: chance in [-1, 1]; a wait is spread by `jitter_share` of itself either way.
            retry_after: what the receiver asked for. It never shortens the wait, and lengthens it by at most twice
                the scheduled one or an hour, whichever is more.
        """
        if failures > len(self.schedule):
            return None
        base = self.schedule[failures - 1]
        spread = base * (1 + self.jitter_share * max(-1.0, min(1.0, jitter)))
        if retry_after is None:
            return Wait(delay=spread, base=base, jitter=jitter, retry_after=None)
        cap = base + max(_RETRY_AFTER_FACTOR * base, _RETRY_AFTER_LEAST_CAP)
        return Wait(delay=max(spread, min(retry_after, cap)), base=base, jitter=jitter, retry_after=retry_after)
