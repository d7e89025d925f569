"""The publish API's documents: a message as its producer sends it, and as the API shows it."""

from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from libs.common.contracts.operations import ErrorItem, Time

LONGEST_KEPT_HOURS: Final = 90 * 24
MAX_BATCH_MESSAGES: Final = 1000
_NAME: Final = r"^[a-zA-Z0-9\-_.]+\Z"

EventType = Annotated[str, Meta(pattern=_NAME, max_length=256, examples=["order.completed"])]
EventId = Annotated[str, Meta(pattern=_NAME, max_length=256)]
Channel = Annotated[str, Meta(pattern=_NAME, max_length=128)]
OrderingKey = Annotated[str, Meta(pattern=_NAME, max_length=256)]
_Object = Annotated[msgspec.Raw, Meta(extra_json_schema={"type": "object"})]
_Application = Annotated[msgspec.Raw, Meta(extra_json_schema={"type": ["object", "null"]})]


class Transformation(msgspec.Struct, rename="camel"):
    """Another body than the payload: the text `raw_payload`, under the content type among `headers`."""

    raw_payload: str | None = None
    headers: dict[str, str] | None = None


class MessageIn(msgspec.Struct, rename="camel"):
    """A message. Its payload's bytes are kept and sent exactly as they came; `application` is created if it is new."""

    event_type: EventType
    payload: _Object
    event_id: EventId | None = None
    channels: Annotated[list[Channel], Meta(min_length=1)] | None = None
    tags: list[Channel] | None = None
    ordering_key: OrderingKey | None = None
    deliver_at: Annotated[datetime, Meta(tz=True)] | None = None
    payload_retention_period: Annotated[int, Meta(ge=5, le=90)] | None = None
    payload_retention_hours: Annotated[int, Meta(ge=1, le=LONGEST_KEPT_HOURS)] | None = None
    transformations_params: Transformation | None = None
    application: _Application | UnsetType = UNSET


class SchemaViolationOut(msgspec.Struct, rename="camel"):
    """Where in a payload something is wrong, and what."""

    path: list[str | int]
    message: str


class MessageOut(msgspec.Struct, rename="camel", kw_only=True):
    """A message as the API shows it. `payload` is the slice of bytes that came, where that is a JSON object."""

    id: str
    event_id: str | None
    event_type: str
    payload: Annotated[Any, Meta(extra_json_schema={"type": "object"})]
    channels: list[str] | None
    tags: list[str] | None
    timestamp: Time
    ordering_key: str | None = None
    deliver_at: Time | None = None
    schema_violations: list[SchemaViolationOut] | UnsetType | None = UNSET


class MessageBatchIn(msgspec.Struct):
    """Messages that are accepted together, each with its own result."""

    messages: Annotated[list[MessageIn], Meta(min_length=1, max_length=MAX_BATCH_MESSAGES)]


class MessageResultOut(msgspec.Struct, rename="camel", kw_only=True, omit_defaults=True):
    """What became of one message of a batch: the status of a request of its own, and the message or the refusal."""

    status: int
    message: MessageOut | UnsetType = UNSET
    replayed: bool = False
    code: str | UnsetType = UNSET
    detail: str | list[ErrorItem] | UnsetType = UNSET


class MessageBatchOut(msgspec.Struct):
    """The results, in the order of the request."""

    data: list[MessageResultOut]
