"""Heads of requests: what never changes is made once, and nothing in a value can end its line."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

_FRAMES_KEPT: Final = 4096
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""Source: RFC 9110, section 5.6.2."""
_OURS: Final = frozenset({"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer"})
_TARGET: Final = re.compile(r"/[!-~]*")
_AUTHORITY: Final = re.compile(r"[!-.0-~]+")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
"""Source: RFC 9110, section 5.5: a tab is the one control character that a value may hold."""


def request_line(method: str, target: str, authority: str) -> str:
    """The first two lines: `METHOD /path?query HTTP/1.1` and `Host`.

    Raises:
        ValueError: the target or the authority could be read as more than one.
    """
    if _TARGET.fullmatch(target) is None or _AUTHORITY.fullmatch(authority) is None:
        raise ValueError("a request's target and host are of printable ASCII")
    return f"{method} {target} HTTP/1.1\r\nHost: {authority}\r\n"


def request(first_lines: str, headers: Mapping[str, str], body: bytes, defaults: tuple[tuple[str, str], ...]) -> bytes:
    """A whole request.

    Args:
        first_lines: from `request_line`.
        headers: names and values.
        body: what follows.
        defaults: headers that stand where `headers` has none of that name.

    Raises:
        ValueError: a name is none, or belongs to the client; or a value holds a control character.
    """
    frame = _frame(tuple(headers), defaults)
    values = tuple(headers.values())
    if not all(map(str.isprintable, values)):
        _check(values)
    return f"{first_lines}{frame % values}{len(body)}\r\n\r\n".encode() + body


@lru_cache(_FRAMES_KEPT)
def _frame(names: tuple[str, ...], defaults: tuple[tuple[str, str], ...]) -> str:
    """What stands around the values of headers with these names, up to the length of the body."""
    lower = {name.lower() for name in names}
    if not all(map(_NAME.fullmatch, names)) or lower & _OURS:
        raise ValueError("a header's name is no token, or belongs to the client")
    given = "".join(f"{name.replace('%', '%%')}: %s\r\n" for name in names)
    ours = "".join(f"{name}: {value}\r\n".replace("%", "%%") for name, value in defaults if name.lower() not in lower)
    return f"{ours}{given}Content-Length: "


def _check(values: Iterable[str]) -> None:
    if any(map(_CONTROL.search, values)):
        raise ValueError("a header's value holds a control character")
