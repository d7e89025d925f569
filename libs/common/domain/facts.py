"""The ledger events: a closed set, past tense, each one a fact that is never changed.

A message's stream holds `MessageAccepted` and `MessageFannedOut`. A delivery's stream begins with `DeliveryScheduled`;
then each attempt is an `AttemptStarted` and one end: `AttemptEnded`, `AttemptAbandoned` or `AttemptOutcomeUnknown`. A
success needs no decision and ends the delivery; every other end is followed, in the same transaction, by the decision
that was taken: a `RetryScheduled` or a terminal fact.

A manual attempt stands beside that: `ResendRequested`, then its start and its end. Where it ends with an outcome,
nothing but a success changes the delivery, so that no decision follows; where it ends without one, `ResendDelayed` says
that it is made again, or `ResendDropped` that it is not. `DeliveryReopened` begins a new run of one that is over.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from msgspec import Struct

from libs.common.domain.endpoint import Rule
from libs.common.domain.outcome import Failure, Outcome


class Trigger(StrEnum):
    """What made an attempt: the schedule, or a person."""

    SCHEDULED = "scheduled"
    MANUAL = "manual"


class Origin(StrEnum):
    """The way by which a message came in."""

    API = "api"
    SOURCE = "source"
    BROKER = "broker"
    EXAMPLE = "example"
    OPERATIONAL = "operational"


class CancelReason(StrEnum):
    """Why a waiting delivery is no longer wanted.

    `NEVER_SCHEDULED`: the message was not sent to the endpoint by itself; it gets manual attempts only.
    """

    ENDPOINT_DISABLED = "endpoint_disabled"
    ENDPOINT_DELETED = "endpoint_deleted"
    CONTENT_ERASED = "content_erased"
    NEVER_SCHEDULED = "never_scheduled"


class DropReason(StrEnum):
    """Why a manual attempt that was asked for is not made."""

    ENDPOINT_DISABLED = "endpoint_disabled"
    ENDPOINT_DELETED = "endpoint_deleted"
    CONTENT_ERASED = "content_erased"
    OUTCOME_UNKNOWN = "outcome_unknown"


class Timings(Struct, frozen=True, kw_only=True, gc=False):
    """How long the parts of a send took; None where a part did not happen (a reused connection) or was not reached."""

    dns: timedelta | None = None
    connect: timedelta | None = None
    tls: timedelta | None = None
    first_byte: timedelta | None = None
    total: timedelta = timedelta(0)


class MessageAccepted(Struct, frozen=True, kw_only=True, gc=False):
    """A message was verified and committed; `publish` says that it also goes out on the accepted exchange."""

    at: datetime
    event_type: str
    origin: Origin
    source: UUID | None
    registry_version: int
    publish: bool


class MessageFannedOut(Struct, frozen=True, kw_only=True, gc=False):
    """The message met the registry as of `registry_version`; `counts` says how many endpoints each rule decided."""

    at: datetime
    registry_version: int
    counts: Mapping[Rule, int]


class DeliveryScheduled(Struct, frozen=True, kw_only=True, gc=False):
    """A message is to go to an endpoint, because of `rule` in the endpoint's configuration of that version."""

    at: datetime
    app: UUID
    message: UUID
    endpoint: UUID
    config_version: int
    rule: Rule
    due_at: datetime


class AttemptStarted(Struct, frozen=True, kw_only=True, gc=False):
    """Committed before the socket opens. `process` owns the attempt for as long as its lease lasts.

    `number` counts the attempts of the run; a manual attempt stands beside it and has the number 0.
    """

    at: datetime
    attempt: UUID
    run: int
    number: int
    trigger: Trigger
    config_version: int
    signing_key: UUID | None
    process: UUID


class AttemptEnded(Struct, frozen=True, kw_only=True, gc=False):
    """The attempt has an outcome. `url` is without its query, which may hold a secret and can be erased."""

    at: datetime
    attempt: UUID
    outcome: Outcome
    status: int | None
    failure: Failure | None
    url: str
    peer: str | None
    sends: int
    timings: Timings
    base_delay: timedelta | None
    jitter: float | None
    retry_after: timedelta | None


class AttemptAbandoned(Struct, frozen=True, kw_only=True, gc=False):
    """The attempt surely sent nothing: its process stopped first."""

    at: datetime
    attempt: UUID


class AttemptOutcomeUnknown(Struct, frozen=True, kw_only=True, gc=False):
    """The attempt's process died; whether the receiver saw the request cannot be known."""

    at: datetime
    attempt: UUID


class RetryScheduled(Struct, frozen=True, kw_only=True, gc=False):
    """The delivery waits for `due_at`."""

    at: datetime
    due_at: datetime


class DeliveryExhausted(Struct, frozen=True, kw_only=True, gc=False):
    """Retries are spent."""

    at: datetime


class DeliveryRefused(Struct, frozen=True, kw_only=True, gc=False):
    """The receiver answered with a final 4xx, or the endpoint's transformation failed: a retry would not help."""

    at: datetime


class DeliveryGone(Struct, frozen=True, kw_only=True, gc=False):
    """The receiver answered 410: it asks for no more."""

    at: datetime


class DeliveryHeld(Struct, frozen=True, kw_only=True, gc=False):
    """Retries are spent, or the receiver refused; the delivery keeps its place at the head of its ordered lane."""

    at: datetime


class DeliveryCancelled(Struct, frozen=True, kw_only=True, gc=False):
    """The delivery waited or was held, and is no longer wanted, or can no longer be sent."""

    at: datetime
    reason: CancelReason


class DeliverySkipped(Struct, frozen=True, kw_only=True, gc=False):
    """Somebody had the delivery passed over while it waited or was held. `actor` is as the change history has it."""

    at: datetime
    actor: str


class DeliveryExpired(Struct, frozen=True, kw_only=True, gc=False):
    """The delivery waited for longer than the platform keeps trying."""

    at: datetime


class DeliveryReopened(Struct, frozen=True, kw_only=True, gc=False):
    """A delivery that was over starts its schedule anew, as run number `run`, because `job` asked for it."""

    at: datetime
    run: int
    due_at: datetime
    job: UUID


class ResendRequested(Struct, frozen=True, kw_only=True, gc=False):
    """One manual attempt is asked for by `job`, whatever the schedule says, and beside it."""

    at: datetime
    job: UUID


class ResendDelayed(Struct, frozen=True, kw_only=True, gc=False):
    """The manual attempt came to no outcome, because its process stopped or died, and is made again."""

    at: datetime


class ResendDropped(Struct, frozen=True, kw_only=True, gc=False):
    """The manual attempt that was asked for is not made."""

    at: datetime
    reason: DropReason


MessageFact = MessageAccepted | MessageFannedOut
DeliveryFact = (
    DeliveryScheduled
    | AttemptStarted
    | AttemptEnded
    | AttemptAbandoned
    | AttemptOutcomeUnknown
    | RetryScheduled
    | DeliveryExhausted
    | DeliveryRefused
    | DeliveryGone
    | DeliveryHeld
    | DeliveryCancelled
    | DeliverySkipped
    | DeliveryExpired
    | DeliveryReopened
    | ResendRequested
    | ResendDelayed
    | ResendDropped
)
Fact = MessageFact | DeliveryFact
