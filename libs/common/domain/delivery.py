"""The life of one delivery: `evolve` folds facts, `decide` makes new ones. Nothing else changes a delivery.

                    ┌──────────── RetryScheduled ────────────┐
                    ▼                                        │
    DeliveryScheduled → WAITING ── AttemptStarted ──▶ SENDING ── AttemptEnded, …Abandoned, …OutcomeUnknown
                          │                             │
             Cancelled, Expired                         └─▶ SUCCEEDED, EXHAUSTED, REFUSED, GONE, or HELD

HELD, at the head of an ordered lane that nothing may pass, ends as CANCELLED, EXPIRED or EXHAUSTED.

`evolve` trusts the ledger and never validates; `decide` judges commands and never mutates.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from functools import reduce
from typing import Final, assert_never
from uuid import UUID

from libs.common.domain.facts import (
    AttemptAbandoned,
    AttemptEnded,
    AttemptOutcomeUnknown,
    AttemptStarted,
    CancelReason,
    DeliveryCancelled,
    DeliveryExhausted,
    DeliveryExpired,
    DeliveryFact,
    DeliveryGone,
    DeliveryHeld,
    DeliveryRefused,
    DeliveryScheduled,
    RetryScheduled,
    Timings,
    Trigger,
)
from libs.common.domain.outcome import Answer, Outcome, classify
from libs.common.domain.retry import MOST_UNKNOWN_IN_A_ROW, RetryPolicy


class Status(StrEnum):
    """Where a delivery is in its life."""

    WAITING = "waiting"
    SENDING = "sending"
    HELD = "held"
    SUCCEEDED = "succeeded"
    EXHAUSTED = "exhausted"
    REFUSED = "refused"
    GONE = "gone"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def terminal(self) -> bool:
        """Whether nothing more happens in this run."""
        return self not in _OPEN

    @property
    def idle(self) -> bool:
        """Whether it can be cancelled: open, and not in flight."""
        return self in _IDLE


_OPEN: Final = frozenset({Status.WAITING, Status.SENDING, Status.HELD})
_IDLE: Final = frozenset({Status.WAITING, Status.HELD})


class StaleAttemptError(Exception):
    """The attempt reported is not the one in flight: its process lost the lease, and another went on."""


class NotWaitingError(Exception):
    """The delivery is not in a state for this: it is in flight, or over, or held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The fold of one delivery's stream: a row of the projection.

    `attempts` counts starts of this run; `failures` the places of the schedule that are used; `unknowns` the attempts
    in a row whose outcome nobody knows. `attempt` and `process` are set while one is in flight.
    """

    app: UUID
    message: UUID
    endpoint: UUID
    status: Status
    version: int
    created_at: datetime
    updated_at: datetime
    due_at: datetime | None
    run: int = 1
    attempts: int = 0
    failures: int = 0
    unknowns: int = 0
    attempt: UUID | None = None
    process: UUID | None = None
    last_status: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StartAttempt:
    """Begin the next attempt; refused unless the delivery waits."""

    at: datetime
    attempt: UUID
    config_version: int
    signing_key: UUID | None
    process: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordAnswer:
    """An attempt came to an end. `jitter` in [-1, 1] is drawn by the caller."""

    at: datetime
    attempt: UUID
    answer: Answer
    policy: RetryPolicy
    jitter: float
    url: str
    peer: str | None
    sends: int
    timings: Timings


@dataclass(frozen=True, slots=True, kw_only=True)
class AbandonAttempt:
    """The attempt was begun and surely not sent."""

    at: datetime
    attempt: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclareUnknown:
    """The process that held the attempt is dead."""

    at: datetime
    attempt: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """The endpoint is no longer there, or no longer enabled; or an operator skips the delivery."""

    at: datetime
    reason: CancelReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Expire:
    """The delivery is older than its endpoint's policy allows."""

    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LetGo:
    """A held delivery's endpoint does not hold any more: it is exhausted like any other."""

    at: datetime


Command = StartAttempt | RecordAnswer | AbandonAttempt | DeclareUnknown | Cancel | Expire | LetGo


def scheduled(fact: DeliveryScheduled) -> Delivery:
    """The state after a stream's first fact."""
    return Delivery(
        app=fact.app,
        message=fact.message,
        endpoint=fact.endpoint,
        status=Status.WAITING,
        version=1,
        created_at=fact.at,
        updated_at=fact.at,
        due_at=fact.due_at,
    )


def evolve(state: Delivery, fact: DeliveryFact) -> Delivery:
    """The state after `fact`."""
    seen = replace(state, version=state.version + 1, updated_at=fact.at)
    match fact:
        case DeliveryScheduled():
            return scheduled(fact)
        case AttemptStarted():
            return replace(
                seen,
                status=Status.SENDING,
                run=fact.run,
                attempts=fact.number,
                attempt=fact.attempt,
                process=fact.process,
                due_at=None,
            )
        case AttemptEnded(outcome=Outcome.SUCCEEDED):
            ended = replace(seen, attempt=None, process=None, last_status=fact.status, unknowns=0)
            return replace(ended, status=Status.SUCCEEDED)
        case AttemptEnded():
            failures = state.failures + 1
            return replace(seen, attempt=None, process=None, last_status=fact.status, failures=failures, unknowns=0)
        case AttemptAbandoned():
            return replace(seen, attempt=None, process=None)
        case AttemptOutcomeUnknown():
            return replace(seen, attempt=None, process=None, last_status=None, unknowns=state.unknowns + 1)
        case RetryScheduled():
            return replace(seen, status=Status.WAITING, due_at=fact.due_at)
        case DeliveryExhausted():
            return _over(seen, Status.EXHAUSTED)
        case DeliveryRefused():
            return _over(seen, Status.REFUSED)
        case DeliveryGone():
            return _over(seen, Status.GONE)
        case DeliveryHeld():
            return _over(seen, Status.HELD)
        case DeliveryCancelled():
            return _over(seen, Status.CANCELLED)
        case DeliveryExpired():
            return _over(seen, Status.EXPIRED)
        case _:
            assert_never(fact)


def fold(facts: Iterable[DeliveryFact]) -> Delivery:
    """The state after all of a stream's facts, in the order of their versions.

    Raises:
        ValueError: the stream is empty, or does not begin with `DeliveryScheduled`.
    """
    stream = iter(facts)
    first = next(stream, None)
    if not isinstance(first, DeliveryScheduled):
        raise ValueError("a delivery's stream begins with DeliveryScheduled")  # noqa: TRY004  it is the data that is wrong
    return reduce(evolve, stream, scheduled(first))


def decide(state: Delivery, command: Command) -> list[DeliveryFact]:
    """The facts that follow from `command`, given everything already recorded. Times never run backwards in a stream.

    Raises:
        StaleAttemptError: the attempt named is not the one in flight.
        NotWaitingError: the command needs a delivery that waits.
    """
    at = max(command.at, state.updated_at)
    match command:
        case StartAttempt():
            _must_wait(state)
            return [start(state, replace(command, at=at))]
        case RecordAnswer():
            _must_fly(state, command.attempt)
            return _record(state, replace(command, at=at))
        case AbandonAttempt(attempt=attempt):
            _must_fly(state, attempt)
            return [AttemptAbandoned(at=at, attempt=attempt), RetryScheduled(at=at, due_at=at)]
        case DeclareUnknown(attempt=attempt):
            _must_fly(state, attempt)
            unknown = AttemptOutcomeUnknown(at=at, attempt=attempt)
            if state.unknowns + 1 >= MOST_UNKNOWN_IN_A_ROW:
                return [unknown, DeliveryExhausted(at=at)]
            return [unknown, RetryScheduled(at=at, due_at=at)]
        case Cancel(reason=reason):
            _must_be_idle(state)
            return [DeliveryCancelled(at=at, reason=reason)]
        case Expire():
            _must_be_idle(state)
            return [DeliveryExpired(at=at)]
        case LetGo():
            if state.status is not Status.HELD:
                raise NotWaitingError(state.status)
            return [DeliveryExhausted(at=at)]
        case _:
            assert_never(command)


def start(state: Delivery, command: StartAttempt) -> AttemptStarted:
    """The fact that the next attempt of this run has begun."""
    return AttemptStarted(
        at=command.at,
        attempt=command.attempt,
        run=state.run,
        number=state.attempts + 1,
        trigger=Trigger.SCHEDULED,
        config_version=command.config_version,
        signing_key=command.signing_key,
        process=command.process,
    )


def _record(state: Delivery, command: RecordAnswer) -> list[DeliveryFact]:
    outcome = classify(command.answer, retry_client_errors=command.policy.retry_client_errors)
    wait = None
    if outcome is Outcome.RETRYABLE:
        retry_after = command.answer.retry_after
        wait = command.policy.wait(state.failures + 1, jitter=command.jitter, retry_after=retry_after)
    ended = AttemptEnded(
        at=command.at,
        attempt=command.attempt,
        outcome=outcome,
        status=command.answer.status,
        failure=command.answer.failure,
        url=command.url,
        peer=command.peer,
        sends=command.sends,
        timings=command.timings,
        base_delay=wait.base if wait else None,
        jitter=wait.jitter if wait else None,
        retry_after=command.answer.retry_after,
    )
    match outcome:
        case Outcome.SUCCEEDED:
            return [ended]
        case Outcome.GONE:
            return [ended, DeliveryGone(at=command.at)]
        case Outcome.REFUSED if not command.policy.holds:
            return [ended, DeliveryRefused(at=command.at)]
        case Outcome.RETRYABLE if wait is not None:
            return [ended, RetryScheduled(at=command.at, due_at=command.at + wait.delay)]
        case Outcome.RETRYABLE if not command.policy.holds:
            return [ended, DeliveryExhausted(at=command.at)]
        case Outcome.REFUSED | Outcome.RETRYABLE:
            return [ended, DeliveryHeld(at=command.at)]
        case _:
            assert_never(outcome)


def _over(state: Delivery, status: Status) -> Delivery:
    return replace(state, status=status, due_at=None, attempt=None, process=None)


def _must_wait(state: Delivery) -> None:
    if state.status is not Status.WAITING:
        raise NotWaitingError(state.status)


def _must_be_idle(state: Delivery) -> None:
    if not state.status.idle:
        raise NotWaitingError(state.status)


def _must_fly(state: Delivery, attempt: UUID) -> None:
    if state.status is not Status.SENDING or state.attempt != attempt:
        raise StaleAttemptError(f"attempt {attempt} is not in flight")
