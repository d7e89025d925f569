"""When to try again: a schedule of waits, spread by jitter, lengthened by what the receiver asks for."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

JITTER_SHARE: Final = 0.2
MOST_UNKNOWN_IN_A_ROW: Final = 5
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """A wait that was decided, with what it was decided from, as the ledger records it."""

    delay: timedelta
    base: timedelta
    jitter: float
    retry_after: timedelta | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """The waits between attempts of a run: after the first failure `schedule[0]`, and so on; none left: exhausted."""

    schedule: tuple[timedelta, ...] = STANDARD_SCHEDULE
    retry_client_errors: bool = False

    def wait(self, failures: int, *, jitter: float, retry_after: timedelta | None) -> Wait | None:
        """The wait after failure number `failures` (1 or more), or None where the schedule is spent.

        Args:
            failures: how many attempts of this run have failed, the last one included.
            jitter: chance in [-1, 1]; a wait is spread by 20 % of itself either way.
            retry_after: what the receiver asked for. It never shortens the wait, and lengthens it by at most twice
                the scheduled one or an hour, whichever is more.
        """
        if failures > len(self.schedule):
            return None
        base = self.schedule[failures - 1]
        spread = base * (1 + JITTER_SHARE * max(-1.0, min(1.0, jitter)))
        if retry_after is None:
            return Wait(delay=spread, base=base, jitter=jitter, retry_after=None)
        cap = base + max(_RETRY_AFTER_FACTOR * base, _RETRY_AFTER_LEAST_CAP)
        return Wait(delay=max(spread, min(retry_after, cap)), base=base, jitter=jitter, retry_after=retry_after)
