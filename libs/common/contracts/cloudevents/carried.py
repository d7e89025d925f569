"""What one message carries: an event in structured or binary form, or a batch of them; told by its content type.

Source: CloudEvents 1.0.2, "AMQP Protocol Binding", section 3 (content mode).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from libs.common.contracts.cloudevents import batch, binary, structured
from libs.common.contracts.cloudevents.event import CloudEvent, MalformedCloudEventError, check_charset, media_type
from libs.common.domain.message import MAX_BODY_BYTES

# Room for the attributes, and for data in base64, which is a third longer.
MAX_EVENT_BYTES: Final = 2 * MAX_BODY_BYTES
MAX_BATCH_BYTES: Final = 5 * MAX_BODY_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """One event of a message, with the bytes that spell it, by which it can be sent again alone.

    Attributes:
        event: the event, or why it is none.
    """

    event: CloudEvent | MalformedCloudEventError
    content_type: str | None
    body: bytes = field(repr=False)


def read(content_type: str | None, headers: Mapping[str, Any], body: bytes) -> list[Carried]:
    """The events of a message, in its order; an empty batch has none.

    Raises:
        MalformedCloudEventError: the message as a whole is in none of the three forms, or too large.
    """
    match media_type(content_type):
        case structured.CONTENT_TYPE:
            check_charset(content_type or "")
            return [Carried(event=_structured(body), content_type=content_type, body=body)]
        case batch.CONTENT_TYPE:
            check_charset(content_type or "")
            _check_size("batch", body, MAX_BATCH_BYTES)
            return [
                Carried(event=_structured(element), content_type=structured.CONTENT_TYPE, body=element)
                for element in batch.split(body)
            ]
        case kind if kind.startswith("application/cloudevents") or not binary.is_binary(headers):
            raise MalformedCloudEventError(
                f"the content type is neither {structured.CONTENT_TYPE} nor {batch.CONTENT_TYPE},"
                f" and no header {binary.PREFIXES[0]}specversion says that this is a CloudEvent in binary form"
            )
        case _:
            _check_size("event", body, MAX_BODY_BYTES)
            return [Carried(event=binary.decode(content_type, headers, body), content_type=content_type, body=body)]


def _structured(body: bytes) -> CloudEvent | MalformedCloudEventError:
    try:
        _check_size("event", body, MAX_EVENT_BYTES)
        return structured.decode(body)
    except MalformedCloudEventError as error:
        return error


def _check_size(what: str, body: bytes, most: int) -> None:
    if len(body) > most:
        raise MalformedCloudEventError(f"the {what} is larger than {most} bytes")
