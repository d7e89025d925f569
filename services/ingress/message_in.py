"""The publish API's document: what a message looks like when it comes, and when it is answered."""

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import UnsetType

from libs.common.contracts import messages as documents
from libs.common.contracts import strictjson
from libs.common.contracts.cloudevents.event import is_json
from libs.common.domain import ids
from libs.common.domain.ids import Prefix
from libs.common.domain.message import CONTENT_TYPE, JSON
from libs.common.runtime.http import ApiError, invalid

MAX_CHANNELS: Final = 5
MAX_TAGS: Final = 8
LONGEST_DELAY: Final = timedelta(days=30)
_UNSET: Final = datetime.min.replace(tzinfo=UTC)
_NULL: Final = b"null"
_DECODER: Final = msgspec.json.Decoder(documents.MessageIn)
_ENCODER: Final = msgspec.json.Encoder()
_NO_CONTENT: Final = msgspec.Raw(b"{}")


class MessageIn(msgspec.Struct, frozen=True, kw_only=True):
    """A message as its producer gave it. `body` is the slice of the request, or the raw payload's bytes."""

    event_type: str
    body: bytes
    content_type: str
    event_id: str | None
    channels: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    ordering_key: str | None = None
    deliver_at: datetime | None = None
    keep_body: timedelta | None = None
    application: bytes | None = None

    def __repr__(self) -> str:
        """Without the body, which is nobody's to log."""
        return f"MessageIn(event_type={self.event_type!r}, event_id={self.event_id!r})"

    def answer(self, message: UUID, accepted_at: datetime, *, with_content: bool) -> bytes:
        """The JSON of the accepted message."""
        return _ENCODER.encode(self.shown(message, accepted_at, with_content=with_content))

    def shown(self, message: UUID, accepted_at: datetime, *, with_content: bool) -> documents.MessageOut:
        """The accepted message as the API shows it."""
        return documents.MessageOut(
            id=ids.encode(Prefix.MESSAGE, message),
            event_type=self.event_type,
            event_id=self.event_id,
            channels=list(self.channels) or None,
            tags=list(self.tags) or None,
            payload=_shown(self.body, self.content_type) if with_content else _NO_CONTENT,
            timestamp=accepted_at,
            ordering_key=self.ordering_key,
            deliver_at=self.deliver_at,
        )


def parse(data: bytes, now: Callable[[], datetime]) -> MessageIn:
    """The message that a request's body spells; what is unknown in it is passed over.

    Args:
        data: the body.
        now: tells the time, which matters only where a message has one of its own.

    Raises:
        ApiError: 422.
    """
    try:
        strictjson.parse(data)
        found = _DECODER.decode(data)
    except strictjson.BadJsonError as error:
        raise invalid(["body"], str(error), "value_error.jsondecode") from None
    except msgspec.ValidationError as error:
        raise _located(str(error)) from None
    channels, tags = _distinct(found.channels), _distinct(found.tags)
    if len(channels) > MAX_CHANNELS:
        raise invalid(["body", "channels"], f"at most {MAX_CHANNELS} channels")
    if len(tags) > MAX_TAGS:
        raise invalid(["body", "tags"], f"at most {MAX_TAGS} tags")
    if found.deliver_at is not None and found.deliver_at > now() + LONGEST_DELAY:
        raise invalid(["body", "deliverAt"], f"at most {LONGEST_DELAY.days} days from now")
    payload = bytes(found.payload)
    if not payload.startswith(b"{"):
        raise invalid(["body", "payload"], "the payload is not a JSON object", "type_error.object")
    body, content_type = _content(payload, found.transformations_params)
    return MessageIn(
        event_type=found.event_type,
        body=body,
        content_type=content_type,
        event_id=found.event_id,
        channels=channels,
        tags=tags,
        ordering_key=found.ordering_key,
        deliver_at=awaited(found.deliver_at),
        keep_body=_kept(found),
        application=_given(found.application),
    )


def awaited(deliver_at: datetime | None) -> datetime | None:
    """The time in UTC that a producer asks to wait for, of the time (aware) that it gave; None: it is not set.

    Go and .NET write the first instant of the year 1 for a time that is not set. It must not be stored: asyncpg writes
    it as `-infinity`, and reads that back without a zone. What lies before it, by its offset, has no form in UTC.
    """
    return None if deliver_at is None or deliver_at <= _UNSET else deliver_at.astimezone(UTC)


def _distinct(names: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(sorted(set(names))) if names else ()


def _kept(found: documents.MessageIn) -> timedelta | None:
    """How long the body is kept: the finer word counts where both are given."""
    if found.payload_retention_hours is not None:
        return timedelta(hours=found.payload_retention_hours)
    if found.payload_retention_period is not None:
        return timedelta(days=found.payload_retention_period)
    return None


def _given(member: msgspec.Raw | UnsetType) -> bytes | None:
    if isinstance(member, UnsetType) or (given := bytes(member)) == _NULL:
        return None
    if not given.startswith(b"{"):
        raise invalid(["body", "application"], "the application is not a JSON object", "type_error.object")
    return given


def _content(payload: bytes, parameters: documents.Transformation | None) -> tuple[bytes, str]:
    """What is delivered, and as what: the payload, or the text that stands in for it."""
    if parameters is None or parameters.raw_payload is None:
        return payload, JSON
    place: list[str | int] = ["body", "transformationsParams"]
    content_type = _header(parameters.headers or {}, "content-type") or JSON
    if not CONTENT_TYPE.fullmatch(content_type):
        raise invalid([*place, "headers", "content-type"], "not a content type")
    body = parameters.raw_payload.encode()
    if is_json(content_type):
        try:
            strictjson.parse(body)
        except strictjson.BadJsonError as error:
            raise invalid([*place, "rawPayload"], f"{error}; or say its content type in headers") from None
    return body, content_type


def _header(headers: Mapping[str, str], wanted: str) -> str | None:
    return next((value for name, value in headers.items() if name.lower() == wanted), None)


def _shown(body: bytes, content_type: str) -> msgspec.Raw:
    """A body that is not a JSON object reads back in base64, since the API's payload is an object."""
    if is_json(content_type) and body.lstrip(b" \t\r\n").startswith(b"{"):
        return msgspec.Raw(body)
    form: dict[str, Any] = {"base64": base64.b64encode(body).decode(), "contentType": content_type}
    return msgspec.Raw(_ENCODER.encode(form))


def _located(text: str) -> ApiError:
    """A 422 from what msgspec says, such as "Expected `str`, got `int` - at `$.channels[0]`"."""
    said, _, path = text.partition(" - at `$")
    place: list[str | int] = ["body"]
    for name, index in re.findall(r"\.([A-Za-z_]+)|\[(\d+)\]", path):
        place.append(name or int(index))
    missing = re.fullmatch(r"Object missing required field `(\w+)`", said)
    if missing:
        return invalid([*place, missing[1]], "field required", "value_error.missing")
    return invalid(place, said)
