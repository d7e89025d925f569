"""The life of one delivery: `evolve` folds facts, `decide` makes new ones. Nothing else changes a delivery.

                    ┌──────────── RetryScheduled ────────────┐
                    ▼                                        │
    DeliveryScheduled → WAITING ── AttemptStarted ──▶ SENDING ── AttemptEnded, …Abandoned, …OutcomeUnknown
                    ▲     │                             │
                    │  Cancelled, Expired               └─▶ SUCCEEDED, EXHAUSTED, REFUSED, GONE, or HELD
                    └────────────────── DeliveryReopened (a replay: the next run) ──┘

HELD, at the head of an ordered lane that nothing may pass, is reopened, or ends as CANCELLED, EXPIRED or EXHAUSTED.

A manual attempt stands beside all this: from WAITING, HELD or any end to SENDING, and back to where it came from. Only
one that succeeds changes that: then the delivery is SUCCEEDED.

`evolve` trusts the ledger and never validates; `decide` judges commands and never mutates.
"""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from functools import reduce
from typing import Final, assert_never
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from libs.common.domain.commands import (
    AbandonAttempt,
    Cancel,
    Command,
    DeclareUnknown,
    DropResend,
    Expire,
    LetGo,
    RecordAnswer,
    Reopen,
    RequestResend,
    Skip,
    StartAttempt,
)
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
    DropReason,
    ResendDelayed,
    ResendDropped,
    ResendRequested,
    RetryScheduled,
    Trigger,
)
from libs.common.domain.outcome import Outcome, classify
from libs.common.domain.retry import MOST_UNKNOWN_IN_A_ROW


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

    @property
    def at_rest(self) -> bool:
        """Whether no attempt of this run is in flight or to come."""
        return self.terminal or self is Status.HELD


_OPEN: Final = frozenset({Status.WAITING, Status.SENDING, Status.HELD})
_IDLE: Final = frozenset({Status.WAITING, Status.HELD})


class StaleAttemptError(Exception):
    """The attempt reported is not the one in flight: its process lost the lease, and another went on."""


class NotWaitingError(Exception):
    """The delivery is not in a state for this: it is in flight, or over, or held."""


class UnderWayError(Exception):
    """What is asked for is under way already: a manual attempt that is still to come, or a run that is not over."""


class Delivery(Struct, frozen=True, kw_only=True, gc=False):
    """The fold of one delivery's stream: a row of the projection.

    `attempts` counts starts of this run; `failures` the places of the schedule that are used; `unknowns` the attempts
    in a row whose outcome nobody knows. `attempt` and `process` are set while one is in flight. `resend_at` is since
    when a manual attempt is asked for; `beside` is set while one is in flight, to the status that it stands beside.
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
    resend_at: datetime | None = None
    beside: Status | None = None
    reopened_at: datetime | None = None

    @property
    def open(self) -> bool:
        """Whether an attempt is in flight or to come."""
        return not self.status.terminal or self.resend_at is not None

    @property
    def asked(self) -> bool:
        """Whether a manual attempt is asked for, or in flight. It may yet come to no outcome, and be made again."""
        return self.resend_at is not None or self.beside is not None

    @property
    def next_at(self) -> datetime | None:
        """From when on its next attempt may begin; None while one is in flight, and where none is to come."""
        times = (self.resend_at, self.due_at)
        return None if self.status is Status.SENDING else min((at for at in times if at is not None), default=None)

    @property
    def begun_at(self) -> datetime:
        """When its present run began."""
        return self.reopened_at or self.created_at


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
        case AttemptStarted(trigger=Trigger.MANUAL):
            begun = replace(seen, status=Status.SENDING, beside=state.status, resend_at=None)
            return replace(begun, attempt=fact.attempt, process=fact.process)
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
            ended = replace(seen, last_status=fact.status, unknowns=0, beside=None)
            return _over(ended, Status.SUCCEEDED)
        case AttemptEnded():
            failures = state.failures + (state.beside is None)
            return _landed(replace(seen, last_status=fact.status, failures=failures, unknowns=0))
        case AttemptAbandoned():
            return _landed(seen)
        case AttemptOutcomeUnknown():
            return _landed(replace(seen, last_status=None, unknowns=state.unknowns + 1))
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
        case DeliveryCancelled() | DeliverySkipped():
            return _over(replace(seen, resend_at=None), Status.CANCELLED)
        case DeliveryExpired():
            return _over(seen, Status.EXPIRED)
        case DeliveryReopened():
            anew = replace(seen, status=Status.WAITING, run=fact.run, due_at=fact.due_at, reopened_at=fact.at)
            return replace(anew, attempts=0, failures=0, unknowns=0)
        case ResendRequested():
            return replace(seen, resend_at=fact.at, unknowns=0)
        case ResendDelayed():
            return replace(seen, resend_at=fact.at)
        case ResendDropped():
            return replace(seen, resend_at=None, unknowns=0)
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
        UnderWayError: what the command asks for is under way already.
    """
    at = max(command.at, state.updated_at)
    match command:
        case StartAttempt():
            if state.next_at is None:
                raise NotWaitingError(state.status)
            return [start(state, command if at == command.at else replace(command, at=at))]
        case RecordAnswer():
            _must_fly(state, command.attempt)
            return _record(state, command if at == command.at else replace(command, at=at))
        case AbandonAttempt(attempt=attempt):
            _must_fly(state, attempt)
            return [AttemptAbandoned(at=at, attempt=attempt), _again(state, at)]
        case DeclareUnknown(attempt=attempt, holds=holds):
            _must_fly(state, attempt)
            unknown = AttemptOutcomeUnknown(at=at, attempt=attempt)
            if state.unknowns + 1 < MOST_UNKNOWN_IN_A_ROW:
                return [unknown, _again(state, at)]
            if state.beside is not None:
                return [unknown, ResendDropped(at=at, reason=DropReason.OUTCOME_UNKNOWN)]
            return [unknown, DeliveryHeld(at=at) if holds else DeliveryExhausted(at=at)]
        case Cancel(reason=reason):
            _must_be_idle(state)
            return [DeliveryCancelled(at=at, reason=reason)]
        case Skip(actor=actor):
            _must_be_idle(state)
            return [DeliverySkipped(at=at, actor=actor)]
        case Expire():
            _must_be_idle(state)
            return [DeliveryExpired(at=at)]
        case LetGo():
            if state.status is not Status.HELD:
                raise NotWaitingError(state.status)
            return [DeliveryExhausted(at=at)]
        case RequestResend(job=job):
            if state.asked:
                raise UnderWayError("a manual attempt is asked for already, or in flight")
            return [ResendRequested(at=at, job=job)]
        case DropResend(reason=reason):
            if state.resend_at is None or not state.status.terminal:
                raise NotWaitingError(state.status)
            return [ResendDropped(at=at, reason=reason)]
        case Reopen(job=job, due_at=due_at):
            if not state.status.at_rest:
                raise UnderWayError(state.status)
            return [DeliveryReopened(at=at, run=state.run + 1, due_at=max(at, due_at), job=job)]
        case _:
            assert_never(command)


def start(state: Delivery, command: StartAttempt) -> AttemptStarted:
    """The fact that the next attempt has begun: the manual one that is asked for, or else the next of this run."""
    manual = state.resend_at is not None
    return AttemptStarted(
        at=command.at,
        attempt=command.attempt,
        run=state.run,
        number=0 if manual else state.attempts + 1,
        trigger=Trigger.MANUAL if manual else Trigger.SCHEDULED,
        config_version=command.config_version,
        signing_key=command.signing_key,
        process=command.process,
    )


def _record(state: Delivery, command: RecordAnswer) -> list[DeliveryFact]:
    outcome = classify(command.answer, retry_client_errors=command.policy.retry_client_errors)
    wait = None
    if outcome is Outcome.RETRYABLE and state.beside is None:
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
    if state.beside is not None:
        return [ended]  # it leaves the schedule alone
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


def _landed(state: Delivery) -> Delivery:
    """No longer in flight; after a manual attempt, back where it came from."""
    status = state.status if state.beside is None else state.beside
    return replace(state, status=status, beside=None, attempt=None, process=None)


def _again(state: Delivery, at: datetime) -> DeliveryFact:
    """An attempt that came to no outcome is made again, and uses no place of the schedule."""
    return RetryScheduled(at=at, due_at=at) if state.beside is None else ResendDelayed(at=at)


def _must_be_idle(state: Delivery) -> None:
    if not state.status.idle:
        raise NotWaitingError(state.status)


def _must_fly(state: Delivery, attempt: UUID) -> None:
    if state.status is not Status.SENDING or state.attempt != attempt:
        raise StaleAttemptError(f"attempt {attempt} is not in flight")
