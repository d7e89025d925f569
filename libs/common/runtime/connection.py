"""A connection, as aiohttp serves it but for three things.

A request's headers have a deadline: aiohttp has none, and a client that drips them would hold its connection until the
keep-alive timer closes it without a word. Here it gets 408. What trickles in behind a request that is still being
answered (pipelining) is left to the keep-alive timer.

Stopping lets requests in hand come to their end: aiohttp stops reading at once, so that a request whose body is still
on its way would never be answered.

What is no HTTP is refused in the API's form.
"""

import asyncio
from http import HTTPStatus
from typing import Final

import orjson
from aiohttp import web

from libs.common.runtime.http import EVERY_ANSWER, ApiError
from libs.common.runtime.metrics import SLOW_HEADS

KEEPALIVE_SECONDS: Final = 75.0
LINGERING_SECONDS: Final = 2.0
"""How long the rest of a refused body is read and thrown away, so that its sender can read the answer."""


class Connection(web.RequestHandler):
    """A connection whose request heads must come in within `head_seconds` of their first byte."""

    def __init__(self, manager: web.Server, *, loop: asyncio.AbstractEventLoop, head_seconds: float) -> None:
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

    @property
    def busy(self) -> bool:
        """Whether a request is in hand."""
        return self.transport is not None and not self._waits_for_head()

    def end(self) -> None:
        """Close now if idle, else after the answer in hand."""
        if self.busy:
            self._closes_after_answer = True
        else:
            self.force_close()  # aiohttp's own close ends the task of an idle connection, and leaves its socket open

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the answer; the last one, where it says so or the service is stopping."""
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
        response.headers.update(EVERY_ANSWER)
        response.headers["Connection"] = "close"  # aiohttp takes it for an answer to HTTP/1.0, and leaves this out
        response.force_close()
        return response

    def data_received(self, data: bytes) -> None:
        """Let aiohttp read it, and look whether a head has begun."""
        super().data_received(data)
        if not self._waits_for_head():
            self._cancel_head_timer()
        elif data and self._head_timer is None:
            self._head_timer = self._loop.call_later(self._head_seconds, self._refuse_slow_head)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Wait for no head any more."""
        self._cancel_head_timer()
        super().connection_lost(exc)

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
