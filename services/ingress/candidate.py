"""What wants to be accepted, and what may become of it."""

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, TypeAlias
from uuid import UUID

from msgspec import Struct

from libs.common.domain.facts import Origin
from libs.common.domain.message import JSON, Message
from libs.common.runtime.http import ApiError
from libs.common.runtime.schemas.payload import Violation


class KeyKind(StrEnum):
    """By what a repetition is recognised."""

    IDEMPOTENCY_KEY = "idempotency_key"
    EVENT_ID = "event_id"
    PROVIDER_EVENT = "provider_event"
    CLOUD_EVENT = "cloud_event"
    REJECTED = "rejected"


class Claim(Struct, frozen=True, kw_only=True):
    """A key that only one message may have: the first. `request_hash` tells a repetition from another request."""

    app: UUID
    kind: KeyKind
    key: bytes
    request_hash: bytes

    @property
    def place(self) -> tuple[UUID, str, bytes]:
        """What is unique."""
        return self.app, self.kind, self.key


def claim(app: UUID, kind: KeyKind, parts: tuple[bytes, ...], request: bytes) -> Claim:
    """The claim on a key that is made of `parts` by the request with that body."""
    return Claim(app=app, kind=kind, key=key_of(parts), request_hash=hashlib.sha256(request).digest())


def key_of(parts: tuple[bytes, ...]) -> bytes:
    """The key that is made of `parts`."""
    # Each part's own digest has a fixed length, so that no two keys are spelled alike.
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()


class Admission(Struct, frozen=True, kw_only=True):
    """An operator's decision to accept what was rejected at `rejected_at`. `actor` is as in `registry_fact`."""

    rejected: UUID
    rejected_at: datetime
    actor: str


class Finding(Struct, frozen=True, kw_only=True):
    """How a payload violates the schema of its event type, and whether the message is refused for it."""

    enforced: bool
    violations: tuple[Violation, ...]


FAULTLESS: Final = Finding(enforced=False, violations=())


class Candidate(Struct, frozen=True, kw_only=True):
    """A verified event that is to become a message.

    Attributes:
        registry_version: of the snapshot by which it was authorised.
        authorise: judges it again by the snapshot as it is then; what forbids it, or None.
        keep_body: how long its body is kept, where its producer says so.
        admission: where it was rejected before, and an operator admits it.
        finding: about its payload, by the same snapshot.
        claims: its keys; the first one that is taken decides what the sender hears.
    """

    org: UUID
    app: UUID
    event_type: str
    body: bytes
    origin: Origin
    registry_version: int
    authorise: Callable[[], ApiError | None]
    content_type: str = JSON
    channels: tuple[str, ...] = ()
    event_id: str | None = None
    source: UUID | None = None
    tags: tuple[str, ...] = ()
    ordering_key: str | None = None
    deliver_at: datetime | None = None
    keep_body: timedelta | None = None
    publish: bool = False
    admission: Admission | None = None
    finding: Finding = FAULTLESS
    claims: tuple[Claim, ...] = ()

    def __repr__(self) -> str:
        """Without the body, which is nobody's to log."""
        return f"Candidate(app={self.app!r}, event_type={self.event_type!r}, event_id={self.event_id!r})"


class Accepted(Struct, frozen=True, kw_only=True):
    """It is committed. `violations` are those of its event type's schema, where those are only warned of."""

    message: Message
    violations: tuple[Violation, ...] = ()


class Duplicate(Struct, frozen=True, kw_only=True):
    """An earlier message has its key. `same_request` says whether that one came with the same body."""

    kind: KeyKind
    first: UUID
    accepted_at: datetime
    same_request: bool


class Forbidden(Struct, frozen=True, kw_only=True):
    """It is no longer allowed: its key, application or source went while it waited."""

    error: ApiError


class Violating(Struct, frozen=True, kw_only=True):
    """Its payload violates the schema of its event type, which the organisation enforces."""

    violations: tuple[Violation, ...]


Acceptance: TypeAlias = Accepted | Duplicate | Forbidden | Violating
