"""One connection: a request goes out in one write, and one answer is read within bounds.

Source: https://www.rfc-editor.org/rfc/rfc9112, section 6.3 for where an answer ends, section 9 for what becomes of its
connection. The grammar is httptools' (llhttp, as in Node.js), as lenient about an answer's lines as aiohttp's client:
lone line feeds, folded fields and spaces after a chunk's size are read, and nothing that could be framed in two ways.
"""

import asyncio
from typing import Any, Final, cast

from httptools import HttpParserError, HttpResponseParser
from msgspec import Struct

from libs.common.runtime import clock

SWITCHING_PROTOCOLS: Final = 101
_FINAL: Final = 200
_INTERIM: Final = 100
_RAW_PER_READ: Final = 16
"""How many bytes may come for each one of the body that may be read: chunks have sizes and extensions."""


class MalformedAnswerError(Exception):
    """What came is not HTTP, not what was asked for, or out of bounds."""


class ConnectionEndedError(Exception):
    """The connection ended before the answer did."""


class _EnoughError(Exception):
    """Stops the parser: of the body, as much has come as is read."""


class Bounds(Struct, frozen=True, kw_only=True):
    """How much of an answer is read.

    Attributes:
        read_bytes: of the body; past it the answer counts as complete and its connection is closed.
        kept_bytes: of the body.
        head_bytes: of status line and fields, of all that may come before the body.
        fields: how many.
        field_bytes: of one field, or of the reason phrase.
    """

    read_bytes: int
    kept_bytes: int
    head_bytes: int = 64 * 1024
    fields: int = 128
    field_bytes: int = 8190


class Connection(asyncio.Protocol):
    """Speaks HTTP/1.1 with one peer, one exchange at a time.

    What comes while none is under way is nobody's answer: the connection is aborted.

    Attributes:
        peer: who is connected to, as `address:port`.
        descriptor: of its socket.
        used: whether an exchange took place on it before.
        idle_since: since when none is under way, by the monotonic clock.
        heard_at: when the first byte of the answer came, by the monotonic clock.
        status: of the answer, 0 before its head is complete; informational ones (1xx) are passed over.
        fields: names and values of the answer's head, as they came; trailers are not kept.
        body: its first bytes.
    """

    __slots__ = (
        "_answer", "_bounds", "_complete", "_enough", "_keeps", "_loop", "_parser", "_raw", "_read", "_reason",
        "_trailers", "_transport", "body", "closed", "descriptor", "fields", "heard_at", "idle_since", "peer", "status",
        "used",
    )  # fmt: skip

    def __init__(self, bounds: Bounds, loop: asyncio.AbstractEventLoop) -> None:
        self._bounds = bounds
        self._loop = loop
        self._parser = _lenient_parser(self)
        self._answer: asyncio.Future[None] | None = None
        self.peer: str | None = None
        self.closed = False
        self.used = False
        self.idle_since = 0.0
        self._begin()

    def _begin(self) -> None:
        self.heard_at: float | None = None
        self.status = 0
        self.fields: list[tuple[bytes, bytes]] = []
        self.body: bytes | bytearray = b""
        self._raw = self._reason = self._trailers = self._read = 0
        self._keeps = self._complete = self._enough = False

    def ask(self, request: bytes) -> "asyncio.Future[None]":
        """Send a whole request; when the future is done, the answer stands in `status`, `fields` and `body`.

        The future raises:
            ConnectionEndedError: see there; nothing was heard if `heard_at` is None.
            MalformedAnswerError: see there.

        Whoever stops waiting for it aborts the connection.
        """
        self._begin()
        self._answer = answer = self._loop.create_future()
        self._transport.write(request)
        return answer

    @property
    def open(self) -> bool:
        """Whether it has not ended. Under TLS its transport knows a turn of the loop before it is told."""
        return not self.closed and not self._transport.is_closing()

    @property
    def reusable(self) -> bool:
        """Whether another exchange may follow the one that has just ended."""
        return (
            not self.closed
            and self._complete
            and self._keeps
            and not self._enough
            # An answer that came before all of the request was sent says nothing of what comes after it.
            and self._transport.get_write_buffer_size() == 0
        )

    def abort(self) -> None:
        """Close at once; whoever still waits for an answer is told that the connection ended."""
        self.closed = True
        self._transport.abort()

    def close(self) -> None:
        """Close politely, if nothing is left to be sent or read."""
        if self.closed:
            return
        if self._enough or self._transport.get_write_buffer_size():
            self.abort()
        else:
            self.closed = True
            self._transport.close()

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A new connection: note whom it reaches."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are of no common class
        name = transport.get_extra_info("peername")
        if name:  # a Unix socket's is empty
            host, port = name[0], name[1]
            self.peer = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.descriptor: int = transport.get_extra_info("socket").fileno()

    def data_received(self, data: bytes) -> None:
        """A piece of the answer, or something that nobody asked for."""
        answer = self._answer
        if answer is None:
            self.abort()
            return
        if self.heard_at is None:
            self.heard_at = clock.monotonic()
        self._raw += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            stopped: Any = error.__context__  # a callback's own exception, if it was one
            if not isinstance(stopped, _EnoughError):
                self._fail(stopped or MalformedAnswerError(str(error)))
                return
        if self._complete:
            self._end(answer)
        elif self._raw > (self._bounds.read_bytes * _RAW_PER_READ if self.status else self._bounds.head_bytes):
            self._fail(MalformedAnswerError("more than the bound"))

    def connection_lost(self, error: Exception | None) -> None:
        """The end of the connection, which may be the answer's own."""
        self.closed = True
        answer = self._answer
        if answer is not None:
            if self.status and _until_close(self.fields):
                self._complete = True
                self._end(answer)
            else:
                self._answer = None
                if not answer.done():
                    ended = ConnectionEndedError(str(error or "closed"))
                    ended.__cause__ = error
                    answer.set_exception(ended)
        del self._parser  # they hold one another

    # What the parser calls

    def on_message_begin(self) -> None:
        """The first answer, or something after it: then the first one is taken, and its connection dropped."""
        if self._complete:
            self._enough = True

    def on_status(self, reason: bytes) -> None:
        """A piece of the reason phrase."""
        self._reason += len(reason)
        if self._reason > self._bounds.field_bytes:
            raise MalformedAnswerError("the reason phrase is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head, or a trailer, which is counted and not kept."""
        if not self.status:
            self.fields.append((name, value))
            return
        self._trailers += 1
        if len(self.fields) + self._trailers > self._bounds.fields or self._too_long(name, value):
            raise MalformedAnswerError("too many trailers, or too long ones")

    def on_headers_complete(self) -> None:
        """A whole head, final or informational."""
        if self._complete:
            return
        bounds, fields, status = self._bounds, self.fields, self._parser.get_status_code()
        if len(fields) > bounds.fields:
            raise MalformedAnswerError("too many fields")
        for name, value in fields:
            if self._too_long(name, value) or b"\0" in value:
                raise MalformedAnswerError("a field is too long, or holds a NUL")
        if status < _FINAL:
            if status < _INTERIM or status == SWITCHING_PROTOCOLS:
                raise MalformedAnswerError("no status, or another protocol that nobody asked for")
            self.fields, self._raw, self._reason = [], 0, 0
            return
        self.status = status
        self._keeps = self._parser.should_keep_alive()

    def on_body(self, piece: bytes) -> None:
        """A piece of the body, without its framing."""
        if self._complete:
            return
        bounds = self._bounds
        self._read += len(piece)
        if not self.body:
            self.body = piece[: bounds.kept_bytes]
        elif (room := bounds.kept_bytes - len(self.body)) > 0:
            if isinstance(self.body, bytes):
                self.body = bytearray(self.body)  # or a body that drips would be copied again and again
            self.body += piece[:room]
        if self._read > bounds.read_bytes:
            self._complete = self._enough = True
            raise _EnoughError

    def on_message_complete(self) -> None:
        """The end of an answer that its framing tells; an informational one is passed over."""
        if self.status:
            self._complete = True

    def _too_long(self, name: bytes, value: bytes) -> bool:
        return len(name) + len(value) > self._bounds.field_bytes

    # How an exchange ends

    def _end(self, answer: "asyncio.Future[None]") -> None:
        self._answer = None
        if not answer.done():
            answer.set_result(None)

    def _fail(self, error: BaseException) -> None:
        answer, self._answer = self._answer, None
        self.abort()
        if answer is not None and not answer.done():
            answer.set_exception(error)


def _lenient_parser(connection: Connection) -> HttpResponseParser:
    parser = HttpResponseParser(connection)
    parser.set_dangerous_leniencies(
        lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
    )
    return parser


def _until_close(fields: list[tuple[bytes, bytes]]) -> bool:
    """Whether an answer with these fields ends where its connection does."""
    framing = {name.lower(): value for name, value in fields}
    coding = framing.get(b"transfer-encoding", b"").rpartition(b",")[2].strip().lower()
    return b"content-length" not in framing and coding != b"chunked"
