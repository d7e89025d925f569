"""CloudEvents in binary form on AMQP 0-9-1: attributes are headers, data is the body's bytes, whatever they are.

A header is an attribute's name behind a prefix. AMQP 0-9-1 has no binding among CloudEvents' own documents: RabbitMQ's,
which the CloudEvents libraries follow, writes `ce-`; that of AMQP 1.0 `cloudEvents:`, or `cloudEvents_` where a colon
cannot be written. Some clients change the case of headers.
Source: Knative's "RabbitMQ Protocol Binding for CloudEvents"; CloudEvents 1.0.2, "AMQP Protocol Binding", section 3.1,
and "CloudEvents", section 3.1 (how values are written).
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from libs.common.contracts import strictjson
from libs.common.contracts.cloudevents.event import (
    DATA_MEMBERS,
    CloudEvent,
    MalformedCloudEventError,
    assemble,
    canonical_time,
    check_charset,
    is_json,
)

PREFIXES: Final = ("ce-", "cloudevents:", "cloudevents_")


def is_binary(headers: Mapping[str, Any]) -> bool:
    """Whether headers make a message an event: `specversion` is what every event has."""
    return any(name == "specversion" for name, _ in _prefixed(headers))


def decode(content_type: str | None, headers: Mapping[str, Any], body: bytes) -> CloudEvent:
    """The event that headers and body spell; an empty body is no data.

    Args:
        content_type: of the body; the attribute `datacontenttype`.
        headers: the message's, of any AMQP type.
        body: the data.

    Raises:
        MalformedCloudEventError: an attribute is missing, there twice, or cannot be read; or the data are not the JSON
            that they are said to be.
    """
    attributes: dict[str, str | None] = {}
    for name, value in _prefixed(headers):
        if name in attributes:
            raise MalformedCloudEventError(
                f"the attribute {_shown(name)} is there twice, under two prefixes or spellings"
            )
        if name == "datacontenttype" or name in DATA_MEMBERS:
            raise MalformedCloudEventError(
                f"{name} is no header in the binary form: it is the content type or the body"
            )
        attributes[name] = _text(name, value)
    if body and is_json(content_type):
        check_charset(content_type or "")
        try:
            strictjson.parse(body)
        except strictjson.BadJsonError as error:
            raise MalformedCloudEventError(f"the data are not the JSON that they are said to be: {error}") from None
    return assemble(attributes, data=body or None, datacontenttype=content_type)


def _prefixed(headers: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for header, value in headers.items():
        lowered = header.lower()
        for prefix in PREFIXES:
            if lowered.startswith(prefix):
                yield lowered.removeprefix(prefix), value


def _text(name: str, value: Any) -> str | None:
    """A header's value as CloudEvents writes it in text."""
    match value:
        case None | str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case datetime():
            return canonical_time(value if value.tzinfo else value.replace(tzinfo=UTC))  # AMQP's are in UTC
        case bytes() | bytearray():
            # Clients without a type for text send it as bytes.
            try:
                return bytes(value).decode()
            except UnicodeDecodeError:
                raise MalformedCloudEventError(f"the attribute {_shown(name)} is not text in UTF-8") from None
        case _:
            raise MalformedCloudEventError(
                f"the attribute {_shown(name)} is not a text, a whole number, a boolean or a timestamp"
            )


def _shown(name: str) -> str:
    """A producer's name, in a length that a reason has room for."""
    return name[:64]
