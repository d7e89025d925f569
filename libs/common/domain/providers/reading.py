"""How identities are read from what was verified, and what a secret must be to be usable."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from libs.common.domain.providers.scheme import Challenge, Identity, Unreadable, UnreadableReason
from libs.common.domain.signatures.rules import Headers

MAX_SECRET_CHARACTERS: Final = 256

_EVENT_TYPE: Final = re.compile(r"[a-zA-Z0-9\-_.]{1,256}")
_EVENT_ID: Final = re.compile(r"[!-~]{1,256}")
_NOT_IN_A_NAME: Final = re.compile(r"[^a-zA-Z0-9\-_.]+")
_CHALLENGE: Final = re.compile(r"[!-~]{1,512}")
_RFC3339: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII)
_LATEST: Final = 253_402_300_799
"""The end of the year 9999 in Unix seconds, where `datetime` ends."""


def field(document: object, path: str) -> object:
    """The value at a path with full stops, or None."""
    for name in path.split("."):
        if not isinstance(document, Mapping):
            return None
        document = document.get(name)
    return document


def header(headers: Headers, name: str) -> object:
    """The header's text, or None; a repeated one is handed on whole, so that it is refused as no text."""
    values = headers.get(name) or (None,)
    return values[0] if len(values) == 1 else values


def identity(
    event_type: object, event_id: object, *, occurred_at: datetime | None = None, bare_answer: bool = False
) -> Identity | Unreadable:
    """The identity, if the event type can be subscribed to and the id can be stored."""
    if not (isinstance(event_type, str) and _EVENT_TYPE.fullmatch(event_type)):
        return _unidentified("the event type is not 1 to 256 letters, digits, full stops, hyphens or underscores")
    if event_id is not None and not (isinstance(event_id, str) and _EVENT_ID.fullmatch(event_id)):
        return _unidentified("the event id is not 1 to 256 printable ASCII characters")
    return Identity(event_type=event_type, event_id=event_id, occurred_at=occurred_at, bare_answer=bare_answer)


def challenge(text: object) -> Challenge | Unreadable:
    """The answer to a handshake: its text again, if it is one that no browser could take for more than text."""
    if not (isinstance(text, str) and _CHALLENGE.fullmatch(text)):
        return _unidentified("the challenge is not 1 to 512 printable ASCII characters")
    return Challenge(answer=text)


def as_name(value: object) -> object:
    """A provider's name for a type, with a full stop for each run of what no event type may hold: `orders.create`."""
    return _NOT_IN_A_NAME.sub(".", value).strip(".") if isinstance(value, str) else value


def unix_time(value: object) -> datetime | None:
    """The time in whole Unix seconds, or None."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LATEST:
        return None
    return datetime.fromtimestamp(value, tz=UTC)


def rfc3339(value: object) -> datetime | None:
    """The time in RFC 3339, up to nanoseconds (cut to microseconds), or None."""
    parts = _RFC3339.fullmatch(value) if isinstance(value, str) else None
    if parts is None:
        return None
    offset = "+00:00" if parts[3] == "Z" else parts[3]
    try:
        return datetime.fromisoformat(f"{parts[1]}.{(parts[2] or '')[:6]:0<6}{offset}").astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def check_text(text: str) -> str | None:
    """What is wrong with a secret that is any text."""
    if not 1 <= len(text) <= MAX_SECRET_CHARACTERS:
        return f"a secret is 1 to {MAX_SECRET_CHARACTERS} characters"
    if text != text.strip() or not text.isprintable():
        return "a secret neither begins nor ends with white space and holds no control characters"
    return None


def check_ascii(text: str) -> str | None:
    """What is wrong with a secret that travels in a header."""
    return check_text(text) or (None if text.isascii() else "a secret that is sent in a header is ASCII")


def _unidentified(detail: str) -> Unreadable:
    return Unreadable(reason=UnreadableReason.IDENTITY, detail=detail)
