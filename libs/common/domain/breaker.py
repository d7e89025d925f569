"""Circuit breakers: an endpoint that is down gets one attempt now and then, until one is answered.

Closed: attempts go as they come. Open: none goes. Half open, once the wait is over: one goes, over all dispatchers, the
probe. What it comes to closes the breaker or opens it again, for longer.

To answer is to be up, whatever the answer says: a 4xx is about the message. Down is who answers with 5xx or not at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from libs.common.domain.outcome import Answer, Failure

WINDOW: Final = timedelta(seconds=60)
"""A failure that comes so long after the one before is held together with none: so few attempts burden nobody.

It is longer than an attempt takes, so that an endpoint with one connection, whose attempts all time out, is found too.
"""
PROBE_HEADS: Final = 8
"""Deliveries that are looked at for a probe: some may be too old to be sent, and the others stay where they are."""
LONGEST_PROBE: Final = timedelta(seconds=35)
"""More than an attempt takes. Before that a lane need not be looked at again: who ends the probe says so."""
_FIRST_ERROR: Final = 500
_MOST_DOUBLINGS: Final = 20
_OF_OURS: Final = frozenset({Failure.CONFIGURATION, Failure.TRANSFORMATION})
NO_ANSWER: Final = frozenset(Failure) - _OF_OURS
"""Failures that are the receiver's: the others come to pass before anything is sent."""


class Sign(StrEnum):
    """What an attempt's end says of the receiver."""

    UP = "up"
    DOWN = "down"


def sign(answer: Answer) -> Sign | None:
    """What an answer, or its absence, says of the receiver; None if nothing."""
    if answer.status is not None:
        return Sign.UP if answer.status < _FIRST_ERROR else Sign.DOWN
    return Sign.DOWN if answer.failure in NO_ANSWER else None


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """When breakers open, and for how long.

    Attributes:
        failures: so many attempts in a row must have met with a receiver that is down.
        after: and for so long, from the first one's end to the last one's.
        wait: until the first probe.
        longest_wait: between probes; the wait doubles from one to the next.
    """

    failures: int = 10
    after: timedelta = timedelta(seconds=3)
    wait: timedelta = timedelta(seconds=10)
    longest_wait: timedelta = timedelta(minutes=5)

    def wait_after(self, openings: int, schedule: Sequence[timedelta]) -> timedelta:
        """The wait for the next probe, when the breaker has opened for the `openings`th time in a row (1 or more).

        It is no longer than the longest wait in the endpoint's retry schedule: who wants to be tried often, is.
        """
        wait: timedelta = self.wait * 2 ** min(openings - 1, _MOST_DOUBLINGS)
        return min(wait, self.longest_wait, max(schedule, default=self.wait))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """An attempt that has ended here, and what it says of the receiver."""

    config_version: int
    started_at: datetime
    ended_at: datetime
    sign: Sign


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Attempts in a row, of those that ended here, that met with a receiver that is down.

    Attributes:
        config_version: with which they began.
        since: when the first of them began.
        first_at: when it ended.
        last_at: when the last of them ended.
        failures: how many there are.
    """

    config_version: int
    since: datetime
    first_at: datetime
    last_at: datetime
    failures: int


def note(run: Run | None, ended: Ended) -> Run | None:
    """The run after one more attempt, in whatever order they end; None: there is none.

    An attempt of an earlier configuration says nothing of the present one.
    """
    if run is not None and ended.config_version < run.config_version:
        return run
    if ended.sign is Sign.UP:
        return None
    if run is None or ended.config_version > run.config_version or ended.ended_at - run.last_at > WINDOW:
        return Run(
            config_version=ended.config_version,
            since=ended.started_at,
            first_at=ended.ended_at,
            last_at=ended.ended_at,
            failures=1,
        )
    return replace(
        run,
        since=min(run.since, ended.started_at),
        last_at=max(run.last_at, ended.ended_at),
        failures=run.failures + 1,
    )


def is_suspicious(run: Run, policy: BreakerPolicy, dispatchers: int) -> bool:
    """Whether to look what the others have met with: this dispatcher has its part of the failures that it takes."""
    return run.failures >= max(1, policy.failures // dispatchers) and run.last_at - run.first_at >= policy.after


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The attempts, over all dispatchers, that began since the receiver last answered and met with one that is down.

    What began before says nothing: the receiver has answered since.

    Attributes:
        down: how many there are.
        lasted: from the first one's end to the last one's.
    """

    down: int
    lasted: timedelta

    def is_down(self, policy: BreakerPolicy) -> bool:
        """Whether the breaker opens."""
        return self.down >= policy.failures and self.lasted >= policy.after


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What may go through a breaker that is not closed.

    Attributes:
        heads: deliveries that may be looked at to find one for a probe; 0: none goes now.
        look_at: when to look again: where none goes now, or else once a probe has begun.
    """

    heads: int
    look_at: datetime


class Circuit(StrEnum):
    """What a breaker is."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


def circuit(open_until: datetime | None, now: datetime) -> Circuit:
    """What the breaker is that is open until then, or that is none."""
    if open_until is None:
        return Circuit.CLOSED
    return Circuit.OPEN if now < open_until else Circuit.HALF_OPEN


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """A breaker that is not closed.

    Attributes:
        config_version: of the endpoint, as it was when it was found to be down. Another one is to be tried afresh.
        openings: how often it has opened in a row.
        opened_at: when it did so first.
        open_until: when the next probe may go.
        probing: whether one is under way.
    """

    config_version: int
    openings: int
    opened_at: datetime
    open_until: datetime
    probing: bool = False

    def concerns(self, config_version: int) -> bool:
        """Whether it says anything of this configuration. It may be of a newer one than somebody knows yet."""
        return self.config_version >= config_version

    def gate(self, now: datetime) -> Gate:
        """What may go now."""
        if circuit(self.open_until, now) is Circuit.OPEN:
            return Gate(heads=0, look_at=self.open_until)
        return Gate(heads=0 if self.probing else PROBE_HEADS, look_at=now + LONGEST_PROBE)

    def after_probe(
        self, found: Sign | None, now: datetime, policy: BreakerPolicy, schedule: Sequence[timedelta]
    ) -> "Breaker | None":
        """The breaker once its probe is over; None: it is closed. After one that says nothing, another may go."""
        if found is Sign.UP:
            return None
        if found is None:
            return replace(self, probing=False)
        openings = self.openings + 1
        until = now + policy.wait_after(openings, schedule)
        return replace(self, probing=False, openings=openings, open_until=until)


def opened(config_version: int, now: datetime, policy: BreakerPolicy, schedule: Sequence[timedelta]) -> Breaker:
    """A breaker that opens now."""
    return Breaker(
        config_version=config_version, openings=1, opened_at=now, open_until=now + policy.wait_after(1, schedule)
    )
