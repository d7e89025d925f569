"""Jobs: what a person asks to be sent once more, over a range of an endpoint's history. Pure: which message gets what.

A resend and a recovery make one manual attempt each and leave the schedule alone; a replay starts the schedule anew.
Each resend makes one of its own: a delivery has one to come at a time, and who asks for another waits for its turn.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never
from uuid import UUID

from libs.common.domain.delivery import Delivery, Status
from libs.common.domain.facts import (
    CancelReason,
    DeliveryCancelled,
    DeliveryFact,
    DeliveryScheduled,
    ResendRequested,
)


class Task(StrEnum):
    """The kinds of job, by the reference's names where it has them.

    `RESEND` and `EXAMPLE` are about one message; `RECOVER` about what failed and what the endpoint missed while it was
    disabled; `REPLAY_MISSING` about what was never sent to the endpoint; `REPLAY` about any part of the history. Only a
    `RESEND` and a whole `REPLAY` are about what was skipped by hand, too.
    """

    RESEND = "message.resend"
    EXAMPLE = "endpoint.send-example"
    RECOVER = "endpoint.recover"
    REPLAY_MISSING = "endpoint.replay"
    REPLAY = "endpoint.bulk-replay"


class Wish(StrEnum):
    """What a job wants for one message: a manual attempt, or the schedule anew."""

    ATTEMPT = "attempt"
    RUN = "run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A message at the job's endpoint: its delivery, if there is one.

    `matches` says that the endpoint's configuration takes the message; `missed` that the endpoint was disabled when the
    message was fanned out; `skipped` that the delivery is cancelled because somebody had it passed over; `early` that
    the time before which nothing of the message is to be sent is still to come.
    """

    delivery: Delivery | None
    matches: bool
    missed: bool
    skipped: bool
    early: bool


def wish(task: Task, candidate: Candidate, *, only_failed: bool = False) -> Wish | None:
    """What the job wants for the message; None to leave it alone."""
    delivery = candidate.delivery
    missing = delivery is None and candidate.matches
    failed = _is_over(delivery) and not _is_good(delivery) and not candidate.skipped
    wanted: Wish | None
    match task:
        case Task.RESEND:
            wanted = Wish.ATTEMPT
        case Task.EXAMPLE:
            wanted = Wish.RUN if delivery is None else None
        case Task.RECOVER if failed or (missing and candidate.missed):
            # An attempt is made at once. What was cancelled before its time has its schedule still before it.
            wanted = Wish.RUN if candidate.early else Wish.ATTEMPT
        case Task.RECOVER:
            wanted = None
        case Task.REPLAY_MISSING:
            wanted = Wish.RUN if missing or (failed and _never_sent(delivery)) else None
        case Task.REPLAY if only_failed:
            wanted = Wish.RUN if failed or (missing and candidate.missed) else None
        case Task.REPLAY:
            wanted = Wish.RUN if missing or _is_over(delivery) else None
        case _:
            assert_never(task)
    return wanted


def begin(first: DeliveryScheduled, wanted: Wish, job: UUID) -> Sequence[DeliveryFact]:
    """The facts with which a delivery begins that is there because of a job.

    For a manual attempt alone nothing is scheduled: if it fails, the delivery stays as it is, and can be recovered.
    """
    match wanted:
        case Wish.RUN:
            return [first]
        case Wish.ATTEMPT:
            never = DeliveryCancelled(at=first.at, reason=CancelReason.NEVER_SCHEDULED)
            return [first, never, ResendRequested(at=first.at, job=job)]
        case _:
            assert_never(wanted)


def within(spans: Iterable[tuple[int, int]], version: int) -> bool:
    """Whether the registry's `version` lies in one of these half-open spans."""
    return any(begin <= version < end for begin, end in spans)


def _is_over(delivery: Delivery | None) -> bool:
    return delivery is not None and delivery.status.at_rest


def _is_good(delivery: Delivery | None) -> bool:
    return delivery is not None and delivery.status is Status.SUCCEEDED


def _never_sent(delivery: Delivery | None) -> bool:
    return delivery is not None and delivery.run == 1 and delivery.attempts == 0 and delivery.last_status is None
