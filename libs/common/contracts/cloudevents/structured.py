"""CloudEvents in structured JSON: what producers publish to us, and what we publish about messages.

JSON data stays the slice of bytes that it is, in both directions; nothing is parsed and written anew. Other content is
text or base64, as the format has it.
Source: CloudEvents 1.0.2, "JSON Event Format".
"""

import base64
import binascii
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from libs.common.contracts import strictjson
from libs.common.contracts.cloudevents.event import (
    DATA_MEMBERS,
    SPEC_VERSION,
    CloudEvent,
    MalformedCloudEventError,
    assemble,
    is_extension,
    is_json,
    optional,
)

CONTENT_TYPE: Final = "application/cloudevents+json"

_RAW_MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENCODER: Final = msgspec.json.Encoder()


def encode(
    *,
    id: str,  # noqa: A002  the attribute's own name
    source: str,
    type: str,  # noqa: A002  the attribute's own name
    time: datetime,
    data: bytes | None,
    datacontenttype: str | None,
    subject: str | None,
    extensions: Mapping[str, str],
) -> bytes:
    """An event as structured JSON.

    Args:
        id: unique under `source`.
        source: a URI reference.
        type: what happened.
        time: when (aware); written in UTC.
        data: where `datacontenttype` is JSON or None, JSON's bytes, which are embedded as they are (they were checked
            when they were accepted: in unchecked ones a comma would add attributes); else any bytes, written in base64.
        datacontenttype: what `data` is.
        subject: what the event is about.
        extensions: names of lower-case letters and digits, other than the attributes above.

    Raises:
        ValueError: a name that no extension can have.
    """
    event: dict[str, Any] = {
        "specversion": SPEC_VERSION,
        "id": id,
        "source": source,
        "type": type,
        "time": time.astimezone(UTC),
    }
    if subject is not None:
        event["subject"] = subject
    if datacontenttype is not None:
        event["datacontenttype"] = datacontenttype
    for name, value in extensions.items():
        if not is_extension(name):
            raise ValueError(f"{name!r} is no name for an extension attribute")
        event[name] = value
    if data is not None and is_json(datacontenttype):
        event["data"] = msgspec.Raw(data)
    elif data is not None:
        event["data_base64"] = base64.b64encode(data).decode()
    return _ENCODER.encode(event)


def decode(body: bytes) -> CloudEvent:
    """The event that a JSON object spells.

    Raises:
        MalformedCloudEventError: not structured JSON, or an attribute is missing or cannot be read.
    """
    try:
        event = strictjson.parse(body)
    except strictjson.BadJsonError as error:
        raise MalformedCloudEventError(str(error)) from None
    if not isinstance(event, dict):
        raise MalformedCloudEventError("the event is not a JSON object")
    content_type = optional(event, "datacontenttype")
    return assemble(
        {name: value for name, value in event.items() if name not in DATA_MEMBERS},
        data=_content(event, body, content_type),
        datacontenttype=content_type,
    )


def _content(event: Mapping[str, Any], body: bytes, content_type: str | None) -> bytes | None:
    encoded = event.get("data_base64")
    if encoded is not None:
        if "data" in event:
            raise MalformedCloudEventError("both data and data_base64 are there")
        try:
            return base64.b64decode(encoded, validate=True)
        except (TypeError, ValueError, binascii.Error):
            raise MalformedCloudEventError("data_base64 is not base64") from None
    if "data" not in event:
        return None
    data = event["data"]
    if isinstance(data, str) and not is_json(content_type):
        return data.encode()
    return bytes(_RAW_MEMBERS.decode(body)["data"])
