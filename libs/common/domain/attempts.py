"""Attempts that have ended, as rows: the projection `attempt` is this fold of each delivery's stream."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from msgspec import Struct

from libs.common.domain.facts import (
    AttemptAbandoned,
    AttemptEnded,
    AttemptOutcomeUnknown,
    AttemptStarted,
    DeliveryFact,
    DeliveryScheduled,
    Trigger,
)
from libs.common.domain.outcome import Failure

ABANDONED: Final = "abandoned"
UNKNOWN: Final = "unknown"

_MICROSECOND: Final = timedelta(microseconds=1)

End = AttemptEnded | AttemptAbandoned | AttemptOutcomeUnknown


class AttemptRow(Struct, frozen=True, kw_only=True, gc=False):
    """One attempt and how it ended.

    `result` is the value of an `Outcome`, or `abandoned` (surely nothing was sent) or `unknown` (something may have
    been). `total_us` is the duration of the attempt in microseconds; like `url`, it is None where no outcome was seen.
    """

    delivery: UUID
    attempt: UUID
    app: UUID
    message: UUID
    endpoint: UUID
    run: int
    number: int
    trigger: Trigger
    config_version: int
    signing_key: UUID | None
    process: UUID
    result: str
    status: int | None
    failure: Failure | None
    url: str | None
    peer: str | None
    sends: int
    total_us: int | None
    started_at: datetime
    ended_at: datetime


def result(end: End) -> str:
    """See `AttemptRow`."""
    match end:
        case AttemptEnded():
            return end.outcome
        case AttemptAbandoned():
            return ABANDONED
        case AttemptOutcomeUnknown():
            return UNKNOWN


def total_us(end: End) -> int | None:
    """See `AttemptRow`."""
    return end.timings.total // _MICROSECOND if isinstance(end, AttemptEnded) else None


def ended(started: AttemptStarted, end: End, *, delivery: UUID, app: UUID, message: UUID, endpoint: UUID) -> AttemptRow:
    """The row of the attempt that began with `started` and came to `end`."""
    outcome = end if isinstance(end, AttemptEnded) else None
    match end:
        case AttemptEnded():
            sends = end.sends
        case AttemptAbandoned():
            sends = 0
        case AttemptOutcomeUnknown():
            sends = 1
    return AttemptRow(
        delivery=delivery,
        attempt=started.attempt,
        app=app,
        message=message,
        endpoint=endpoint,
        run=started.run,
        number=started.number,
        trigger=started.trigger,
        config_version=started.config_version,
        signing_key=started.signing_key,
        process=started.process,
        result=result(end),
        status=outcome.status if outcome else None,
        failure=outcome.failure if outcome else None,
        url=outcome.url if outcome else None,
        peer=outcome.peer if outcome else None,
        sends=sends,
        total_us=total_us(end),
        started_at=started.at,
        ended_at=end.at,
    )


def attempt_rows(delivery: UUID, facts: Iterable[DeliveryFact]) -> list[AttemptRow]:
    """The rows of one delivery's stream, in the order in which its attempts ended.

    Args:
        delivery: the stream's id.
        facts: all of its facts, in the order of their versions.

    Raises:
        ValueError: an end without a beginning, or a stream that does not begin with `DeliveryScheduled`.
    """
    rows: list[AttemptRow] = []
    scheduled: DeliveryScheduled | None = None
    begun: dict[UUID, AttemptStarted] = {}
    for fact in facts:
        match fact:
            case DeliveryScheduled():
                scheduled = fact
            case AttemptStarted():
                begun[fact.attempt] = fact
            case AttemptEnded() | AttemptAbandoned() | AttemptOutcomeUnknown():
                started = begun.pop(fact.attempt, None)
                if scheduled is None or started is None:
                    raise ValueError(f"attempt {fact.attempt} ends without having been started")
                rows.append(
                    ended(
                        started,
                        fact,
                        delivery=delivery,
                        app=scheduled.app,
                        message=scheduled.message,
                        endpoint=scheduled.endpoint,
                    )
                )
            case _:
                pass
    return rows
