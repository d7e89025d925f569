"""What can be asked of a delivery. `at` is the database's time; `decide` judges whether it can be."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from libs.common.domain.facts import CancelReason, DropReason, Timings
from libs.common.domain.outcome import Answer
from libs.common.domain.retry import RetryPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class StartAttempt:
    """Begin the next attempt, the manual one first; refused unless the delivery waits or a manual one is to come."""

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
    """The process that had the attempt in flight is dead. `holds` says that the endpoint holds what is exhausted."""

    at: datetime
    attempt: UUID
    holds: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """It can no longer be sent: its endpoint is no longer there or no longer enabled, or its content is erased."""

    at: datetime
    reason: CancelReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """Somebody wants it passed over, so that its lane goes on."""

    at: datetime
    actor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Expire:
    """The delivery is older than its endpoint's policy allows."""

    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LetGo:
    """A held delivery's endpoint does not hold any more: it is exhausted like any other."""

    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestResend:
    """Ask for one manual attempt, at any time of the delivery's life and after it."""

    at: datetime
    job: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class DropResend:
    """Give up the manual attempt that was asked for, of a delivery that is over."""

    at: datetime
    reason: DropReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Reopen:
    """Start the schedule of a delivery anew that is over, or held."""

    at: datetime
    job: UUID


Command = (
    StartAttempt
    | RecordAnswer
    | AbandonAttempt
    | DeclareUnknown
    | Cancel
    | Skip
    | Expire
    | LetGo
    | RequestResend
    | DropResend
    | Reopen
)
