"""What can be asked of a delivery. `at` is the database's time; `decide` judges whether it can be."""

from datetime import datetime
from uuid import UUID

from msgspec import Struct

from libs.common.domain.facts import CancelReason, DropReason, Timings
from libs.common.domain.outcome import Answer
from libs.common.domain.retry import RetryPolicy


class StartAttempt(Struct, frozen=True, kw_only=True, gc=False):
    """Begin the next attempt, the manual one first; refused unless the delivery waits or a manual one is to come."""

    at: datetime
    attempt: UUID
    config_version: int
    signing_key: UUID | None
    process: UUID


class RecordAnswer(Struct, frozen=True, kw_only=True, gc=False):
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


class AbandonAttempt(Struct, frozen=True, kw_only=True, gc=False):
    """The attempt was begun and surely not sent."""

    at: datetime
    attempt: UUID


class DeclareUnknown(Struct, frozen=True, kw_only=True, gc=False):
    """The process that had the attempt in flight is dead, or cannot say what came of it.

    `holds` says that the endpoint holds what is exhausted.
    """

    at: datetime
    attempt: UUID
    holds: bool


class Cancel(Struct, frozen=True, kw_only=True, gc=False):
    """It can no longer be sent: its endpoint is no longer there or no longer enabled, or its content is erased."""

    at: datetime
    reason: CancelReason


class Skip(Struct, frozen=True, kw_only=True, gc=False):
    """Somebody wants it passed over, so that its lane goes on."""

    at: datetime
    actor: str


class Expire(Struct, frozen=True, kw_only=True, gc=False):
    """The delivery is older than its endpoint's policy allows."""

    at: datetime


class LetGo(Struct, frozen=True, kw_only=True, gc=False):
    """A held delivery's endpoint does not hold any more: it is exhausted like any other."""

    at: datetime


class RequestResend(Struct, frozen=True, kw_only=True, gc=False):
    """Ask for one manual attempt, at any time of the delivery's life and after it; refused while another is to come."""

    at: datetime
    job: UUID


class DropResend(Struct, frozen=True, kw_only=True, gc=False):
    """Give up the manual attempt that was asked for, of a delivery that is over."""

    at: datetime
    reason: DropReason


class Reopen(Struct, frozen=True, kw_only=True, gc=False):
    """Start the schedule of a delivery anew that is over, or held; its first attempt is due at once, or at `due_at`."""

    at: datetime
    due_at: datetime
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
