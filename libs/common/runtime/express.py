"""Plain requests, which are answered without aiohttp's machinery: neither task nor request object nor route.

What a request is divided into is not decided here anew: only what no two readers of RFC 9112 could take differently is
recognised, and aiohttp reads all the rest. So this grammar is narrower than any parser's: one `POST` in HTTP/1.1, each
field once, printable ASCII, a declared length, and nothing that means something to the connection.
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from typing import Any, Final, Protocol

from aiohttp.helpers import rfc822_formatted_time
from msgspec import Struct

from libs.common.runtime.http import EVERY_ANSWER, REQUEST_ID, Reply

MAX_HEAD_BYTES: Final = 8000
"""Less than aiohttp takes in one line."""
_END: Final = b"\r\n\r\n"
# Possessive, so that it looks at each character once. 64 fields are half of what aiohttp takes.
_HEAD: Final = re.compile(
    r"POST (/[!-~]*+) HTTP/1\.1\r\n((?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[ -~]*+\r\n){1,64}+)", re.ASCII
)
_LENGTH: Final = re.compile(r"[1-9][0-9]{0,6}", re.ASCII)
_FOR_THE_CONNECTION: Final = frozenset(
    {
        "content-encoding", "expect", "keep-alive", "proxy-connection", "sec-websocket-key1", "te", "trailer",
        "transfer-encoding", "upgrade",
    }
)  # fmt: skip
_KEEPS: Final = frozenset({"keep-alive", "Keep-Alive"})


class Head(Struct, frozen=True):
    """The head of a plain request.

    Attributes:
        target: as it was sent.
        fields: by names in lower case, without white space around their values.
        size: of the head, in bytes.
        length: of the body that follows it, in bytes.
    """

    target: str
    fields: Mapping[str, str]
    size: int
    length: int

    def __repr__(self) -> str:
        """Without the fields, which bear credentials."""
        return f"Head(path={self.path!r}, length={self.length})"

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]


class Taken(Protocol):
    """A request that is being answered."""

    @property
    def future(self) -> asyncio.Future[Any]:
        """Is done when the answer can be given."""

    def reply(self) -> Reply | None:
        """The answer, once the future is done; None: nothing came of it, and it is to go the whole way.

        Raises:
            ApiError: a refusal.
            asyncio.CancelledError: the service has ended; there is no answer.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Express:
    """Who answers plain requests.

    Attributes:
        take: takes a request, by its head and its body; or None: then nothing has happened, and it goes the whole way.
            Must not block.
        unavailable_on: exceptions that mean that a server behind this one does not answer: 503.
    """

    take: Callable[[Head, bytes], Taken | None]
    unavailable_on: tuple[type[BaseException], ...] = ()


def recognise(data: bytes) -> Head | None:
    """The head with which `data` begins, if that is a plain request's."""
    end = data.find(_END, 0, MAX_HEAD_BYTES)
    matched = _HEAD.fullmatch(data[: end + 2].decode("latin-1")) if end > 0 else None
    if matched is None:
        return None
    target, text = matched.groups()
    lines = text.split("\r\n")[:-1]
    fields = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields[name.lower()] = value.strip(" ")
    length = fields.get("content-length", "")
    if (
        len(fields) != len(lines)
        or "host" not in fields
        or not _LENGTH.fullmatch(length)
        or not _FOR_THE_CONNECTION.isdisjoint(fields)
        or fields.get("connection", "keep-alive") not in _KEEPS
    ):
        return None
    return Head(target, fields, end + len(_END), int(length))


def rendered(reply: Reply, identity: str, *, closes: bool) -> bytes:
    """The answer's bytes, with the headers that it would have from aiohttp."""
    headers = "".join([f"{name}: {value}\r\n" for name, value in reply.headers.items()]) if reply.headers else ""
    head = (
        f"HTTP/1.1 {_status(reply.status)}\r\n{headers}Content-Type: application/json\r\n{REQUEST_ID}: {identity}\r\n"
        f"{_EVERY_ANSWER}Content-Length: {len(reply.body)}\r\nDate: {rfc822_formatted_time()}\r\n"
        f"{_CLOSE if closes else ''}\r\n"
    )
    return head.encode("ascii") + reply.body


_CLOSE: Final = "Connection: close\r\n"
_EVERY_ANSWER: Final = "".join(f"{name}: {value}\r\n" for name, value in EVERY_ANSWER.items())


@cache
def _status(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}"
