"""Reading what callers send: bodies and query parameters, refused with a 422 that says which part to mend."""

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import msgspec
from multidict import MultiMapping

from libs.common.contracts import strictjson
from libs.common.runtime.http import ApiError, invalid

Body = TypeVar("Body")

_PLACE: Final = re.compile(r"(?:\.([^.\[\]]+))|(?:\[(\d+|\.\.\.)\])")
_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:[.,](\d{1,9})\d*)? ?([Zz]|UTC|[+-]\d\d:?\d\d|\d\d:\d\d)?"
)
_BOOLEANS: Final[Mapping[str, bool]] = {"true": True, "1": True, "false": False, "0": False}
LONGEST_LIST: Final = 100


def parse_body(data: bytes, kind: type[Body]) -> Body:
    """The request's body as a `kind`.

    Raises:
        ApiError: 422.
    """
    try:
        document = strictjson.parse(data)
    except strictjson.BadJsonError as error:
        raise invalid(["body"], str(error), "value_error.json") from None
    if b"\\u0000" in data:
        _refuse_nul(document, ["body"])
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        raise invalid(["body", *_location(place.rstrip("`"))], message, "value_error") from None


def read_flag(query: MultiMapping[str], name: str, *, default: bool) -> bool:
    """A query parameter that is `true` or `false`."""
    text = query.get(name)
    if text is None:
        return default
    value = _BOOLEANS.get(text.lower())
    if value is None:
        raise invalid(["query", name], "it is true or false", "type_error.bool")
    return value


def read_number(query: MultiMapping[str], name: str, *, default: int, least: int, most: int) -> int:
    """A query parameter that is a whole number in bounds."""
    text = query.get(name)
    if text is None:
        return default
    value = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(most)) else None
    if value is None or not least <= value <= most:
        raise invalid(["query", name], f"it is a whole number from {least} to {most}", "type_error.integer")
    return value


def read_choice(query: MultiMapping[str], name: str, choices: Collection[str]) -> str | None:
    """A query parameter that is one of a few."""
    text = query.get(name)
    if text is not None and text not in choices:
        raise invalid(["query", name], f"it is one of {', '.join(choices)}", "type_error.enum")
    return text


def read_time(query: MultiMapping[str], name: str) -> datetime | None:
    """A query parameter that is a time: RFC 3339, or `2026-08-21 10:00:00.1 UTC`; without an offset it is UTC."""
    text = query.get(name)
    if text is None:
        return None
    time = _parse_time(text.strip())
    if time is None:
        raise invalid(
            ["query", name], "it is a time as in RFC 3339, such as 2026-08-21T10:00:00Z", "value_error.datetime"
        )
    return time


def _parse_time(text: str) -> datetime | None:
    parts = _TIME.fullmatch(text)
    if parts is None:
        return None
    offset = parts[4] or "Z"
    if offset in {"Z", "z", "UTC"}:
        offset = "+00:00"
    elif offset[0] not in "+-":
        offset = f"+{offset}"  # a plus sign in a query string that nobody encoded arrives as a space
    fraction = (parts[3] or "0")[:6].ljust(6, "0")
    try:
        return datetime.fromisoformat(f"{parts[1]}T{parts[2]}.{fraction}{offset}").astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def read_text(query: MultiMapping[str], name: str) -> str | None:
    """A query parameter that is a text; an empty one is none."""
    return refuse_unstorable(query.get(name, ""), ["query", name]) or None


def read_list(query: MultiMapping[str], name: str, choices: Collection[str] | None = None) -> list[str] | None:
    """A query parameter of several texts: `x=a,b`, `x=a&x=b`, `x[]=a` or `x[0]=a`."""
    texts: list[str] = []
    given = False
    for key, value in query.items():
        if key == name or (key.startswith(f"{name}[") and key.endswith("]")):
            given = True
            texts += [part for part in value.split(",") if part]
    if len(texts) > LONGEST_LIST:
        raise invalid(["query", name], f"it has at most {LONGEST_LIST} values")
    for text in texts:
        refuse_unstorable(text, ["query", name])
    if choices is not None and not set(texts) <= set(choices):
        raise invalid(["query", name], f"it is one or more of {', '.join(choices)}", "type_error.enum")
    return texts if given and texts else None


def refuse_unstorable(text: str, location: list[str | int]) -> str:
    """`text`, unless Postgres cannot hold it."""
    if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise invalid(location, "it holds a character that is not text (NUL, or half a surrogate pair)")
    return text


def conflict(detail: str) -> ApiError:
    """A 409."""
    return ApiError(409, detail)


def not_found(what: str) -> ApiError:
    """A 404; also for what belongs to another organisation."""
    return ApiError(404, f"there is no such {what}")


def _location(place: str) -> list[str | int]:
    """`.channels[0]` as `["channels", 0]`."""
    found: list[str | int] = []
    for name, index in _PLACE.findall(place):
        found.append(name or (int(index) if index.isdigit() else "…"))
    return found


def _refuse_nul(value: Any, location: list[str | int]) -> None:
    match value:
        case str():
            refuse_unstorable(value, location)
        case dict():
            for key, inner in value.items():
                refuse_unstorable(key, location)
                _refuse_nul(inner, [*location, key])
        case list():
            for index, inner in enumerate(value):
                _refuse_nul(inner, [*location, index])
        case _:
            pass
