"""JSON as we accept it from outside: what two parsers could read differently is refused.

Duplicate keys, NaN and infinities, lone surrogates, invalid UTF-8 and nesting over 64 are errors.
Source: RFC 8259, section 4 and 9; RFC 7493 (I-JSON).
"""

import json
from typing import Any, Final

import orjson

MAX_NESTING: Final = 64
_ESCAPED_COLON: Final = b"\\u003"
"""What begins with it is one of 16 characters, a colon among them."""


class BadJsonError(ValueError):
    """The bytes are not JSON, or not JSON that every parser reads alike. The sender erred."""


def parse(data: bytes) -> Any:
    """The document that `data` spells.

    Raises:
        BadJsonError: what is wrong with it, in one phrase without the content.
    """
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise BadJsonError(f"not valid JSON: {error}") from None
    if _count(data, b"{") + _count(data, b"[") > MAX_NESTING and _nesting(document) > MAX_NESTING:
        raise BadJsonError(f"nested deeper than {MAX_NESTING}")
    if not _surely_unique(data, document):
        # orjson keeps the last of two equal keys without a word; only a second reading sees the first.
        _SECOND_READING.decode(data.decode())
    return document


def _surely_unique(data: bytes, document: Any) -> bool:
    """Whether no key of an object can have gone unseen; False says nothing.

    Each key has a colon behind it, so that `data` has as many colons as all its keys, seen or not, and those within its
    texts, and `document`, written again, as many as the keys that were seen and those within the texts that were seen.
    Where the texts have no colon in escaped form, the first number is larger by what was not seen, or equal.
    """
    # Most have no escape at all: one byte is found, or not, many times faster than five.
    escaped = b"\\" in data and _ESCAPED_COLON in data
    return not escaped and _count(data, b":") == _count(orjson.dumps(document), b":")


def _count(data: bytes, character: bytes) -> int:
    # bytes.count looks at each byte by itself; this, as memchr does, at many together.
    return len(data) - len(data.replace(character, b""))


def _unique(pairs: list[tuple[str, Any]]) -> None:
    if len({key for key, _ in pairs}) != len(pairs):
        raise BadJsonError("an object has the same key twice")


_SECOND_READING: Final = json.JSONDecoder(object_pairs_hook=_unique)


def _nesting(document: Any) -> int:
    depth = 0
    level = [document]
    while level:
        containers = [value for value in level if isinstance(value, (dict, list))]
        if containers:
            depth += 1
        level = []
        for value in containers:
            level.extend(value.values() if isinstance(value, dict) else value)
    return depth


def valid(data: bytes) -> bool:
    """Whether `data` may be embedded in other JSON as it is: unchecked bytes could add members around themselves."""
    try:
        parse(data)
    except BadJsonError:
        return False
    return True
