"""A CloudEvent, apart from the form in which it came.

Source: CloudEvents 1.0.2.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from libs.common.domain.message import JSON

SPEC_VERSION: Final = "1.0"
ATTRIBUTES: Final = frozenset(
    {"specversion", "id", "source", "type", "time", "subject", "datacontenttype", "dataschema"}
)
DATA_MEMBERS: Final = frozenset({"data", "data_base64"})
_RESERVED: Final = ATTRIBUTES | DATA_MEMBERS

_EXTENSION: Final = re.compile(r"[a-z0-9]{1,64}")
_CHARSETS: Final = frozenset({"utf-8", "utf8", "us-ascii"})


class MalformedCloudEventError(ValueError):
    """What came is no CloudEvent. The sender erred; the text says how, without the content."""


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
    kind = media_type(content_type)
    return kind == JSON or kind.endswith("+json")


def media_type(content_type: str | None) -> str:
    """A content type in lower case, without its parameters; empty without one."""
    return (content_type or "").partition(";")[0].strip().lower()


def check_charset(content_type: str) -> None:
    """See that a content type names no other charset than UTF-8.

    Raises:
        MalformedCloudEventError: it does.
    """
    for parameter in content_type.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in _CHARSETS:
            raise MalformedCloudEventError("the content type's charset is not UTF-8")


def assemble(attributes: Mapping[str, Any], *, data: bytes | None, datacontenttype: str | None) -> CloudEvent:
    """The event with these attributes, of the types that JSON knows; those that are None are absent.

    Raises:
        MalformedCloudEventError: an attribute is missing or cannot be read.
    """
    if attributes.get("specversion") != SPEC_VERSION:
        raise MalformedCloudEventError(f"specversion is not {SPEC_VERSION}")
    return CloudEvent(
        id=_required(attributes, "id"),
        source=_required(attributes, "source"),
        type=_required(attributes, "type"),
        time=_time(optional(attributes, "time")),
        data=data,
        datacontenttype=datacontenttype,
        dataschema=optional(attributes, "dataschema"),
        subject=optional(attributes, "subject"),
        extensions={
            name: _extension(name, value)
            for name, value in attributes.items()
            if name not in ATTRIBUTES and value is not None
        },
    )


def optional(attributes: Mapping[str, Any], name: str) -> str | None:
    """An attribute's text, or None where it is absent.

    Raises:
        MalformedCloudEventError: it is there, but no text.
    """
    # "A null value stands for an absent one": JSON Event Format, section 2.2.
    value = attributes.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise MalformedCloudEventError(f"{name} is not a text with content")
    return value


def is_extension(name: str) -> bool:
    """Whether an extension attribute may have that name."""
    return name not in _RESERVED and _EXTENSION.fullmatch(name) is not None


def canonical_time(time: datetime) -> str:
    """A time (aware) as CloudEvents writes it: RFC 3339, here in UTC."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _required(attributes: Mapping[str, Any], name: str) -> str:
    value = optional(attributes, name)
    if value is None:
        raise MalformedCloudEventError(f"{name} is missing")
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


def _extension(name: str, value: object) -> str:
    if not is_extension(name):
        raise MalformedCloudEventError("an extension's name is not lower-case letters and digits")
    match value:
        case bool():
            return "true" if value else "false"
        case int() | str():
            return str(value)
        case _:
            raise MalformedCloudEventError(f"the extension {name} is not a text, a whole number or a boolean")
