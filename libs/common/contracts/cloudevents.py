"""CloudEvents 1.0 in structured JSON: what producers publish to us, and what we publish about messages.

JSON data stays the slice of bytes that it is, in both directions; nothing is parsed and written anew. Other content is
text or base64, as the format has it.
Source: CloudEvents 1.0.2, and its "JSON Event Format".
"""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from libs.common.contracts import strictjson

CONTENT_TYPE: Final = "application/cloudevents+json"
JSON: Final = "application/json"
SPEC_VERSION: Final = "1.0"

_NAME: Final = re.compile(r"[a-z0-9]{1,64}")
_CORE: Final = frozenset(
    {"specversion", "id", "source", "type", "time", "subject", "datacontenttype", "dataschema", "data", "data_base64"}
)
_CHARSETS: Final = frozenset({"utf-8", "utf8", "us-ascii"})
_RAW_MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENCODER: Final = msgspec.json.Encoder()


class MalformedCloudEventError(ValueError):
    """What came is no CloudEvent in structured JSON. The sender erred; the text says how, without the content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudEvent:
    """One event.

    Attributes:
        data: JSON's exact bytes as they stood in the event; or the bytes that its text or base64 spells; or None.
        datacontenttype: what `data` is; None stands for JSON.
        extensions: further attributes; a boolean or a number as CloudEvents writes it in text.
    """

    id: str
    source: str
    type: str
    time: datetime | None = None
    data: bytes | None = field(default=None, repr=False)
    datacontenttype: str | None = None
    dataschema: str | None = None
    subject: str | None = None
    extensions: Mapping[str, str] = field(default_factory=dict)


def is_json(content_type: str | None) -> bool:
    """Whether content of that type is JSON; without one it is."""
    if content_type is None:
        return True
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == JSON or media_type.endswith("+json")


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
        if name in _CORE or not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name for an extension attribute")
        event[name] = value
    if data is not None and is_json(datacontenttype):
        event["data"] = msgspec.Raw(data)
    elif data is not None:
        event["data_base64"] = base64.b64encode(data).decode()
    return _ENCODER.encode(event)


def decode(content_type: str | None, body: bytes) -> CloudEvent:
    """The event that a message's content type and body spell.

    Raises:
        MalformedCloudEventError: not structured JSON, or an attribute is missing or cannot be read.
    """
    _check_content_type(content_type)
    try:
        event = strictjson.parse(body)
    except strictjson.BadJsonError as error:
        raise MalformedCloudEventError(str(error)) from None
    if not isinstance(event, dict):
        raise MalformedCloudEventError("the event is not a JSON object")
    if event.get("specversion") != SPEC_VERSION:
        raise MalformedCloudEventError(f"specversion is not {SPEC_VERSION}")
    content = _optional(event, "datacontenttype")
    return CloudEvent(
        id=_required(event, "id"),
        source=_required(event, "source"),
        type=_required(event, "type"),
        time=_time(_optional(event, "time")),
        data=_content(event, body, content),
        datacontenttype=content,
        dataschema=_optional(event, "dataschema"),
        subject=_optional(event, "subject"),
        extensions={name: _extension(name, value) for name, value in event.items() if _extends(name, value)},
    )


def _check_content_type(content_type: str | None) -> None:
    media_type, _, rest = (content_type or "").partition(";")
    if media_type.strip().lower() != CONTENT_TYPE:
        raise MalformedCloudEventError(f"the content type is not {CONTENT_TYPE}")
    for parameter in rest.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in _CHARSETS:
            raise MalformedCloudEventError("the content type's charset is not UTF-8")


def _required(event: Mapping[str, Any], name: str) -> str:
    value = _optional(event, name)
    if value is None:
        raise MalformedCloudEventError(f"{name} is missing")
    return value


def _optional(event: Mapping[str, Any], name: str) -> str | None:
    # "A null value stands for an absent one": JSON Event Format, section 2.2.
    value = event.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise MalformedCloudEventError(f"{name} is not a text with content")
    return value


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        time = msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        time = None
    if time is None or time.tzinfo is None:
        raise MalformedCloudEventError("time is not a timestamp of RFC 3339")
    return time


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


def _extends(name: str, value: object) -> bool:
    return name not in _CORE and value is not None


def _extension(name: str, value: object) -> str:
    if not _NAME.fullmatch(name):
        raise MalformedCloudEventError("an extension's name is not lower-case letters and digits")
    match value:
        case bool():
            return "true" if value else "false"
        case int() | str():
            return str(value)
        case _:
            raise MalformedCloudEventError(f"the extension {name} is not a text, a whole number or a boolean")
