"""A connection whose plain requests are offered to who answers them without aiohttp's machinery.

Offered is only what surely begins with a request: where every request before was plain too, so that its end is known,
or there was none. Behind any other, aiohttp alone knows where the next one begins.
"""

import asyncio
from typing import Any, Final

import structlog
from aiohttp import web
from msgspec import Struct

from libs.common.runtime.clock import monotonic
from libs.common.runtime.connection import Connection
from libs.common.runtime.express import Express, Head, Taken, recognise, rendered
from libs.common.runtime.http import REQUEST_ID, ApiError, Reply, answered, failed, request_id, unreachable
from libs.common.runtime.logs import logger
from libs.common.runtime.metrics import EXPRESS

_LOG: Final = logger("http")
SHORT_BYTES: Final = 64 * 1024
BODY_SECONDS: Final = 0.05
"""For so long and up to so many bytes a plain request whose body comes in behind its head is waited for here."""
_REQUEST_ID: Final = REQUEST_ID.lower()


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


class ExpressConnection(Connection):
    """A connection that offers plain requests to `express`, and lets aiohttp read all others."""

    def __init__(
        self, manager: web.Server, *, loop: asyncio.AbstractEventLoop, head_seconds: float, express: Express
    ) -> None:
        super().__init__(manager, loop=loop, head_seconds=head_seconds)
        self._express = express
        self._missing: int | None = 0
        """Bytes until the next request begins; None where that is not known, from when on it never is."""
        self._begun: _Begun | None = None
        self._under_way: _UnderWay | None = None

    @property
    def busy(self) -> bool:
        """Whether a request is in hand."""
        return super().busy or (self._has_plain and self.transport is not None)

    def data_received(self, data: bytes) -> None:
        """Offer it, or let aiohttp read it."""
        if self._under_way is not None and data:
            self._hold(self._under_way, data)
        elif self._begun is not None and data:
            self._go_on(self._begun, data)
        elif not self._take(data):
            super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Wait for no body any more; what was taken comes to its end unheard."""
        if self._begun is not None:
            self._begun.patience.cancel()
            self._begun = None
        super().connection_lost(exc)

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
                super().data_received(begun.data)

    def _give_up(self) -> None:
        """Hand a request over that was begun: aiohttp's handler knows how long a body may take, and what to say."""
        begun, self._begun = self._begun, None
        assert begun is not None, "its patience ends with it"
        begun.patience.cancel()
        self._missing = _missing(begun.head, begun.data)
        super().data_received(begun.data)

    def _offer(self, head: Head, data: bytes) -> bool:
        """Offer what has come in, if it is one request and no more; whether it was taken."""
        self._missing = _missing(head, data)
        if self._missing != 0:
            return False
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
        if not future.cancelled() and future.exception() is not None:  # rarely, and then there is something to log
            structlog.contextvars.bind_contextvars(request_id=identity)
        try:
            reply = self._reply(under_way, identity)
        except asyncio.CancelledError:
            self.force_close()  # as aiohttp does where a handler is cancelled
            return
        if self.transport is None or self.transport.is_closing():
            return  # the client has hung up
        if reply is None:
            super().data_received(under_way.data)
        else:
            self._answer(self.transport, identity, reply)
        if under_way.behind and not self._force_close:
            if not self._reading_paused and not self._buffer_paused:  # else aiohttp resumes when it has read
                self._resume_transport_reading()
            self.data_received(under_way.behind)

    def _reply(self, under_way: _UnderWay, identity: str) -> Reply | None:
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
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout

    def _process_keepalive(self) -> None:
        if self._has_plain:
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout  # aiohttp takes it to be idle
        super()._process_keepalive()


def _missing(head: Head | None, data: bytes) -> int | None:
    """How many bytes are missing of what begins with this head; None where that, or what is behind it, is not known."""
    missing = -1 if head is None else head.size + head.length - len(data)
    return missing if missing >= 0 else None
