"""Operational messages: which of the facts about endpoints and deliveries an organisation is told of, and as what.

What is told of a delivery follows from its own stream alone, so that it comes out the same whoever asks and whenever.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final, assert_never
from uuid import UUID

from libs.common.domain.facts import (
    AttemptAbandoned,
    AttemptEnded,
    AttemptOutcomeUnknown,
    AttemptStarted,
    DeliveryCancelled,
    DeliveryExhausted,
    DeliveryExpired,
    DeliveryFact,
    DeliveryGone,
    DeliveryHeld,
    DeliveryRefused,
    DeliveryReopened,
    DeliveryScheduled,
    DeliverySkipped,
    ResendDelayed,
    ResendDropped,
    ResendRequested,
    RetryScheduled,
    Trigger,
)
from libs.common.domain.outcome import Outcome

APPLICATION: Final = "operational"
"""The uid of the application whose endpoints are told. Nothing is told of its own endpoints and deliveries."""

FAILING_AFTER: Final = 4
"""So many failures of a delivery that is to be tried again are told. Source: Svix, `message.attempt.failing`."""


class News(StrEnum):
    """What is told, by the names of event types."""

    ENDPOINT_CREATED = "endpoint.created"
    ENDPOINT_UPDATED = "endpoint.updated"
    ENDPOINT_DELETED = "endpoint.deleted"
    ENDPOINT_DISABLED = "endpoint.disabled"
    ENDPOINT_FAILING = "endpoint.failing"
    ENDPOINT_RECOVERED = "endpoint.recovered"
    EXHAUSTED = "message.attempt.exhausted"
    FAILING = "message.attempt.failing"
    RECOVERED = "message.attempt.recovered"


NAMES: Final = frozenset(str(news) for news in News)

ENDPOINT_FACTS: Final[Mapping[str, News]] = {
    "EndpointCreated": News.ENDPOINT_CREATED,
    "EndpointUpdated": News.ENDPOINT_UPDATED,
    "EndpointSecretRotated": News.ENDPOINT_UPDATED,
    "EndpointEnabled": News.ENDPOINT_UPDATED,
    "EndpointDisabled": News.ENDPOINT_DISABLED,
    "EndpointFailing": News.ENDPOINT_FAILING,
    "EndpointRecovered": News.ENDPOINT_RECOVERED,
    "EndpointDeleted": News.ENDPOINT_DELETED,
}

DELIVERY_FACTS: Final[Mapping[str, int]] = {
    "AttemptEnded": 7,  # scheduled, started, ended, refused; resend requested, started, ended
    "RetryScheduled": 1 + 3 * FAILING_AFTER,
    "DeliveryExhausted": 4,
    "DeliveryRefused": 4,
    "DeliveryGone": 4,
    "DeliveryHeld": 4,
    "DeliveryExpired": 5,
}
"""The kinds of fact that may be news, each with the least version in its stream at which it may."""


def of_endpoint(kind: str, *, fail_since: datetime | None) -> News | None:
    """What a fact of an endpoint's is told as, if at all.

    Only one that its failures disabled is told as disabled (Svix, `endpoint.disabled`): what somebody did is an update.
    """
    news = ENDPOINT_FACTS.get(kind)
    return News.ENDPOINT_UPDATED if news is News.ENDPOINT_DISABLED and fail_since is None else news


@dataclass(frozen=True, slots=True, kw_only=True)
class LastAttempt:
    """The attempt that news is about; `status` is None where no answer came. `at` is when it began."""

    id: UUID
    status: int | None
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is told after the fact with this version in its stream."""

    version: int
    news: News
    last: LastAttempt


def of_delivery(facts: Iterable[DeliveryFact]) -> list[Told]:
    """All that is told of a delivery, given its stream from the first fact on.

    Failing is told once in a run, and not where that failure is the last; recovered, when it succeeds after failing or
    exhausted was told. A delivery that ends without an attempt is not told of.
    """
    course = _Course()
    told: list[Told] = []
    for version, fact in enumerate(facts, start=1):
        news = _news(course, fact)
        course = _evolve(course, fact)
        if news is not None and course.last is not None:
            told.append(Told(version=version, news=news, last=course.last))
    return told


@dataclass(frozen=True, slots=True, kw_only=True)
class _Course:
    """How a delivery has gone so far.

    Attributes:
        started: its last attempt.
        last: the last attempt that came to an outcome, or to an end that nobody knows.
        failures: of this run's schedule.
        failing: told in this run.
        held: it is over but for its place, which was told as exhausted.
        troubled: failing or exhausted was told, and no recovery since.
    """

    started: AttemptStarted | None = None
    last: LastAttempt | None = None
    failures: int = 0
    failing: bool = False
    held: bool = False
    troubled: bool = False


def _news(before: _Course, fact: DeliveryFact) -> News | None:
    match fact:
        case AttemptEnded(outcome=Outcome.SUCCEEDED):
            return News.RECOVERED if before.troubled else None
        case RetryScheduled():
            return News.FAILING if before.failures >= FAILING_AFTER and not before.failing else None
        case DeliveryHeld() | DeliveryRefused() | DeliveryGone():
            return News.EXHAUSTED
        case DeliveryExhausted() | DeliveryExpired():
            return None if before.held else News.EXHAUSTED
        case _:
            return None


def _evolve(course: _Course, fact: DeliveryFact) -> _Course:
    match fact:
        case AttemptStarted():
            return replace(course, started=fact)
        case AttemptEnded(outcome=Outcome.SUCCEEDED):
            return replace(course, last=_last(course, fact.status), troubled=False)
        case AttemptEnded():
            scheduled = course.started is not None and course.started.trigger is Trigger.SCHEDULED
            return replace(course, last=_last(course, fact.status), failures=course.failures + scheduled)
        case AttemptOutcomeUnknown():
            return replace(course, last=_last(course, None))
        case RetryScheduled():
            failing = course.failures >= FAILING_AFTER
            return replace(course, failing=failing, troubled=course.troubled or failing)
        case DeliveryHeld():
            return replace(course, troubled=True, held=True)
        case DeliveryExhausted() | DeliveryRefused() | DeliveryGone() | DeliveryExpired():
            return replace(course, troubled=course.last is not None)
        case DeliveryReopened():
            return replace(course, failures=0, failing=False, held=False)
        case (
            DeliveryScheduled()
            | AttemptAbandoned()
            | DeliveryCancelled()
            | DeliverySkipped()
            | ResendRequested()
            | ResendDelayed()
            | ResendDropped()
        ):
            return course
        case _:
            assert_never(fact)


def _last(course: _Course, status: int | None) -> LastAttempt | None:
    begun = course.started
    return None if begun is None else LastAttempt(id=begun.attempt, status=status, at=begun.at)
