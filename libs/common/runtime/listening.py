"""Listening, as aiohttp does it but for four things.

A request's headers have a deadline: aiohttp has none, and a client that drips them would hold its connection until the
keep-alive timer closes it without a word. Here it gets 408. What trickles in behind a request that is still being
answered (pipelining) is left to the keep-alive timer.

Stopping lets requests in hand come to their end: aiohttp stops reading at once, so that a request whose body is still
on its way would never be answered.

What is no HTTP is refused in the API's form.

Plain requests that come in at once are offered to who answers them without aiohttp (`express`).
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final
from weakref import WeakSet

import orjson
import structlog
from aiohttp import web
from msgspec import Struct

from libs.common.runtime.clock import monotonic
from libs.common.runtime.express import Express, Head, Taken, recognise, rendered
from libs.common.runtime.http import REQUEST_ID, ApiError, Reply, answered, failed, request_id, unreachable
from libs.common.runtime.logs import logger
from libs.common.runtime.metrics import EXPRESS, SLOW_HEADS
from libs.common.runtime.service import StartError

_LOG: Final = logger("http")
KEEPALIVE_SECONDS: Final = 75.0
HEAD_SECONDS: Final = 10.0
BACKLOG: Final = 1024
CUT_SECONDS: Final = 0.5
"""How long a request gets to end that was cut off when its grace was over."""
_REQUEST_ID: Final = REQUEST_ID.lower()
SHORT_BYTES: Final = 64 * 1024
BODY_SECONDS: Final = 0.05
"""For so long and up to so many bytes a plain request whose body comes in behind its head is waited for here."""
_LOOK_SECONDS: Final = 0.02
LINGERING_SECONDS: Final = 2.0
"""How long the rest of a refused body is read and thrown away, so that its sender can read the answer."""


class _UnderWay(Struct):
    """A plain request that was taken; `data` is all of it, and `behind` what has come in since."""

    taken: Taken
    head: Head
    data: bytes
    began: float
    behind: bytes = b""

    def __repr__(self) -> str:
        """Without its bytes, which are nobody's to log."""
        return f"_UnderWay(head={self.head!r})"


class _Begun(Struct):
    """A plain request whose body is still coming in, and what hands it over to aiohttp if that takes long."""

    head: Head
    data: bytes
    patience: asyncio.TimerHandle

    def __repr__(self) -> str:
        """Without its bytes, which are nobody's to log."""
        return f"_Begun(head={self.head!r})"


class _Connection(web.RequestHandler):
    """A connection whose request heads must come in within `head_seconds` of their first byte.

    What comes in is offered to `express` only where it begins with a request: where every request before was plain too,
    so that its end is known, or there was none. Behind any other, aiohttp alone knows where the next one begins.
    """

    def __init__(
        self,
        manager: web.Server,
        *,
        loop: asyncio.AbstractEventLoop,
        head_seconds: float,
        express: Express | None,
    ) -> None:
        super().__init__(
            manager,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # None is how aiohttp turns it off
            auto_decompress=False,
            keepalive_timeout=KEEPALIVE_SECONDS,
            lingering_time=LINGERING_SECONDS,
        )
        self._head_seconds = head_seconds
        self._head_timer: asyncio.TimerHandle | None = None
        self._closes_after_answer = False
        self._express = express
        self._missing: int | None = 0 if express else None
        """Bytes until the next request begins; None where that is not known, from when on it never is."""
        self._begun: _Begun | None = None
        self._under_way: _UnderWay | None = None

    @property
    def busy(self) -> bool:
        """Whether a request is in hand."""
        return self.transport is not None and (self._has_plain or not self._waits_for_head())

    def end(self) -> None:
        """Close now if idle, else after the answer in hand."""
        if self.busy:
            self._closes_after_answer = True
        else:
            self.force_close()  # aiohttp's own close ends the task of an idle connection, and leaves its socket open

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if not resp.prepared and (self._closes_after_answer or resp.headers.get("Connection") == "close"):
            resp.force_close()  # what the header says, aiohttp does only if told so
        finished = await super().finish_response(request, resp, start_time)
        if self._closes_after_answer:
            self.close()
        return finished

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is no HTTP is refused in the API's form; aiohttp would repeat, as text, what came."""
        if status != HTTPStatus.BAD_REQUEST:
            return super().handle_error(request, status, exc, message)
        response = ApiError(400, "this is no HTTP request that can be read").response()
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Connection"] = "close"  # aiohttp takes it for an answer to HTTP/1.0, and leaves this out
        response.force_close()
        return response

    def data_received(self, data: bytes) -> None:
        if self._under_way is not None and data:
            self._hold(self._under_way, data)
        elif self._begun is not None and data:
            self._go_on(self._begun, data)
        elif not self._take(data):
            self._feed(data)

    def _feed(self, data: bytes) -> None:
        """Let aiohttp read it."""
        super().data_received(data)
        if not self._waits_for_head():
            self._cancel_head_timer()
        elif data and self._head_timer is None:
            self._head_timer = self._loop.call_later(self._head_seconds, self._refuse_slow_head)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._cancel_head_timer()
        if self._begun is not None:
            self._begun.patience.cancel()
        super().connection_lost(exc)

    # Plain requests

    @property
    def _has_plain(self) -> bool:
        """Whether a plain request is in hand, of which aiohttp knows nothing."""
        return self._under_way is not None or self._begun is not None

    def _take(self, data: bytes) -> bool:
        """Begin a plain request, if that is what came in and nobody has anything in hand; whether it was taken."""
        if self._missing is None or not data:
            return False
        if self._missing:
            self._missing = self._missing - len(data) if len(data) <= self._missing else None
            return False
        head = recognise(data)
        if head is None or not self._waits_for_head() or self._close or self._force_close or self._paused:
            self._missing = _missing(head, data)
            return False
        if len(data) < head.size + head.length <= SHORT_BYTES:
            patience = self._loop.call_later(BODY_SECONDS, self._give_up)
            self._begun = _Begun(head, data, patience)
            return True
        return self._offer(head, data)

    def _go_on(self, begun: _Begun, data: bytes) -> None:
        """Take more of a request that has begun."""
        missing = begun.head.size + begun.head.length - len(begun.data) - len(data)
        if missing < 0:
            self._give_up()
            self.data_received(data)
            return
        begun.data += data
        if missing == 0:
            begun.patience.cancel()
            self._begun = None
            if not self._offer(begun.head, begun.data):
                self._feed(begun.data)

    def _give_up(self) -> None:
        """Hand a request over that was begun: aiohttp's handler knows how long a body may take, and what to say."""
        begun, self._begun = self._begun, None
        assert begun is not None, "its patience ends with it"
        begun.patience.cancel()
        self._missing = _missing(begun.head, begun.data)
        self._feed(begun.data)

    def _offer(self, head: Head, data: bytes) -> bool:
        """Offer what has come in, if it is one request and no more; whether it was taken."""
        self._missing = _missing(head, data)
        if self._missing != 0:
            return False
        assert self._express is not None, "without, nobody counts what is missing"
        began = monotonic()
        try:
            taken = self._express.take(head, data[head.size :])
        except Exception:  # noqa: BLE001  the boundary of a request, which then goes the whole way
            _LOG.exception("http.express_failed", path=head.path)
            return False
        if taken is None:
            return False
        self._under_way = _UnderWay(taken, head, data, began)
        taken.future.add_done_callback(self._finish)
        return True

    def _hold(self, under_way: _UnderWay, data: bytes) -> None:
        """Keep what came in behind a plain request, which is one read at most."""
        under_way.behind += data
        self._pause_transport_reading()

    def _finish(self, future: asyncio.Future[Any]) -> None:
        """Answer the plain request, and read on. Runs in a context of its own."""
        under_way, self._under_way = self._under_way, None
        assert under_way is not None, "it was begun"
        identity = request_id(under_way.head.fields.get(_REQUEST_ID, ""))
        try:
            if future.exception() is not None:  # rarely, and then there is something to log
                structlog.contextvars.bind_contextvars(request_id=identity)
            reply = self._reply(under_way, identity)
        except asyncio.CancelledError:
            self.force_close()  # as aiohttp does where a handler is cancelled
            return
        if self.transport is None or self.transport.is_closing():
            return  # the client has hung up
        if reply is None:
            self._feed(under_way.data)
        else:
            self._answer(self.transport, identity, reply)
        if under_way.behind and not self._force_close:
            self._resume_transport_reading()
            self.data_received(under_way.behind)

    def _reply(self, under_way: _UnderWay, identity: str) -> Reply | None:
        assert self._express is not None, "it took the request"
        try:
            reply = under_way.taken.reply()
        except ApiError as error:
            reply = error.reply()
        except self._express.unavailable_on as error:
            reply = unreachable(error, under_way.head.path).reply()
        except Exception:  # noqa: BLE001  the boundary of a request
            structlog.contextvars.bind_contextvars(request_id=identity)
            reply = failed("POST", under_way.head.path).reply()
        if reply is not None:
            answered(reply.status, under_way.began)
        return reply

    def _answer(self, transport: asyncio.Transport, identity: str, reply: Reply) -> None:
        EXPRESS.inc()
        transport.write(rendered(reply, identity, closes=self._closes_after_answer))
        if self._closes_after_answer:
            self.force_close()
        else:
            self._next_keepalive_close_time = self._loop.time() + KEEPALIVE_SECONDS

    def _process_keepalive(self) -> None:
        if self._has_plain:
            self._next_keepalive_close_time = self._loop.time() + KEEPALIVE_SECONDS  # aiohttp takes it to be idle
        super()._process_keepalive()

    # Heads

    def _waits_for_head(self) -> bool:
        """Whether nothing is being answered; then what has come in and is no request yet is part of a head."""
        if self._waiter is None:
            return self._request_count == 0  # the connection is so new that its task has not run
        return not self._waiter.done()

    def _cancel_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse_slow_head(self) -> None:
        self._head_timer = None
        if self.transport is None or not self._waits_for_head():
            return
        SLOW_HEADS.inc()
        body = orjson.dumps(
            {"code": "request_timeout", "detail": f"the headers did not come in within {self._head_seconds:g} s"}
        )
        self.transport.write(
            b"HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        self.force_close()


def _missing(head: Head | None, data: bytes) -> int | None:
    """How many bytes are missing of what begins with this head; None where that, or what is behind it, is not known."""
    missing = -1 if head is None else head.size + head.length - len(data)
    return missing if missing >= 0 else None


@asynccontextmanager
async def listening(
    app: web.Application,
    host: str,
    port: int,
    *,
    grace: float,
    head_seconds: float = HEAD_SECONDS,
    express: Express | None = None,
) -> AsyncIterator[None]:
    """Listen until the block ends; then take no more connections and give requests in hand `grace` seconds.

    Args:
        app: answers what `express` does not take.
        host: to listen on.
        port: to listen on.
        grace: of requests in hand, in seconds.
        head_seconds: within which a request's headers come in.
        express: is offered plain requests first.

    Raises:
        StartError: the port is taken, or the address is not this machine's.
    """
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=CUT_SECONDS)
    await runner.setup()
    server = runner.server
    assert server is not None, "setup has made it"
    loop = asyncio.get_running_loop()
    connections: WeakSet[_Connection] = WeakSet()

    def connection() -> _Connection:
        made = _Connection(server, loop=loop, head_seconds=head_seconds, express=express)
        connections.add(made)
        return made

    try:
        listener = await _listen(connection, host, port)
        try:
            _LOG.info("http.listening", host=host, port=port)
            yield
        finally:
            listener.close()
            await asyncio.sleep(0)  # what was accepted already begins
            await _end(connections, grace)
    finally:
        await runner.cleanup()


async def _listen(connection: Callable[[], _Connection], host: str, port: int) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    try:
        return await loop.create_server(connection, host, port, reuse_address=True, backlog=BACKLOG)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartError(f"cannot listen on {host}:{port}: {reason}; set HOOKLEDGER_HOST or HOOKLEDGER_PORT") from error


async def _end(connections: Iterable[_Connection], grace: float) -> None:
    """Close what is idle, and the others after their answer, for at most `grace` seconds."""
    for connection in list(connections):
        connection.end()
    try:
        async with asyncio.timeout(grace):
            while any(connection.busy for connection in list(connections)):  # noqa: ASYNC110  ends within the grace
                await asyncio.sleep(_LOOK_SECONDS)
    except TimeoutError:
        _LOG.warning("http.cut_off", requests=sum(connection.busy for connection in list(connections)))
