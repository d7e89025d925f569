"""The fields that resources share, with their bounds, and how times, ids and aliases are written."""

from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from libs.common.contracts.registry import Exponential, Preset, Seconds
from libs.common.domain.retry import MOST_RETRIES
from libs.common.runtime.expressions.compiled import LONGEST_EXPRESSION, BadExpressionError, compiled
from libs.common.runtime.http import invalid

# `\Z`, not `$`, which also matches before a line feed.
_NAME_PATTERN: Final = r"^[a-zA-Z0-9\-_.]+\Z"
LONGEST_NAME: Final = 256
LONGEST_METADATA: Final = 16 * 1024

Uid = Annotated[str, Meta(min_length=1, max_length=256, pattern=_NAME_PATTERN)]
EventTypeName = Annotated[str, Meta(min_length=1, max_length=256, pattern=_NAME_PATTERN)]
Channel = Annotated[str, Meta(min_length=1, max_length=128, pattern=_NAME_PATTERN)]
Title = Annotated[str, Meta(min_length=1, max_length=LONGEST_NAME)]
Description = Annotated[str, Meta(max_length=4096)]
Rate = Annotated[int, Meta(ge=1, le=65_535)]
Metadata = dict[Annotated[str, Meta(max_length=256)], Annotated[str, Meta(max_length=4096)]]
EventTypes = Annotated[tuple[EventTypeName, ...], Meta(min_length=1, max_length=1000)]
Channels = Annotated[tuple[Channel, ...], Meta(min_length=1, max_length=10)]
Expression = Annotated[str, Meta(min_length=1, max_length=LONGEST_EXPRESSION)]
RetrySchedule = Annotated[tuple[Seconds, ...], Meta(max_length=MOST_RETRIES)] | Preset | Exponential

Value = TypeVar("Value")


class In(msgspec.Struct, kw_only=True, frozen=True, rename="camel"):
    """What callers send; unknown fields are passed over."""


class Out(msgspec.Struct, kw_only=True, rename="camel"):
    """What callers get."""


def given(value: Value | UnsetType, otherwise: Value) -> Value:
    """A patch's value, or what stood there before."""
    return otherwise if isinstance(value, UnsetType) else value


def either(first: Value | UnsetType, second: Value | UnsetType) -> Value | UnsetType:
    """The value of a field that has two names."""
    return second if first is UNSET else first


def checked_metadata(metadata: Metadata | None) -> dict[str, str]:
    """Metadata within its bound; none is the empty one.

    Raises:
        ApiError: 422.
    """
    if metadata and len(msgspec.json.encode(metadata)) > LONGEST_METADATA:
        raise invalid(["body", "metadata"], f"it has at most {LONGEST_METADATA} bytes in all")
    return metadata or {}


def checked_expression(text: str | None, name: str) -> str | None:
    """An expression that parses, from the field of that name.

    Raises:
        ApiError: 422, with the column of what is wrong.
    """
    if text is not None:
        try:
            compiled(text)
        except BadExpressionError as error:
            raise invalid(["body", name], str(error), "value_error.expression") from None
    return text


def distinct(values: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Each value once, in its first place."""
    return None if values is None else tuple(dict.fromkeys(values))
