"""Listening, with a deadline for a request's headers.

aiohttp has none: a client that drips its headers holds a connection until the keep-alive timer closes it without a
word. Here such a connection gets 408. What trickles in behind a request that is still being answered (pipelining) is
left to the keep-alive timer.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import orjson
from aiohttp import web

from libs.common.runtime.http import KEEPALIVE_SECONDS
from libs.common.runtime.logs import logger
from services.ingress import metrics

_LOG: Final = logger("http")
BACKLOG: Final = 1024
LINGERING_SECONDS: Final = 2.0
"""How long the rest of a refused body is read and thrown away, so that its sender can read the answer."""


class _Connection(web.RequestHandler):
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

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._waits_for_head():
            self._cancel_head_timer()
        elif data and self._head_timer is None:
            self._head_timer = self._loop.call_later(self._head_seconds, self._refuse_slow_head)

    def connection_lost(self, exc: BaseException | None) -> None:
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
        metrics.REJECTED.labels("http", "slow_headers").inc()
        body = orjson.dumps(
            {"code": "request_timeout", "detail": f"the headers did not come in within {self._head_seconds:g} s"}
        )
        self.transport.write(
            b"HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        self.force_close()


@asynccontextmanager
async def listening(
    app: web.Application, host: str, port: int, *, head_seconds: float, grace: float
) -> AsyncIterator[None]:
    """Listen until the block ends; then take no more connections and give requests in hand `grace` seconds.

    Raises:
        OSError: the port is taken.
    """
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=grace)
    await runner.setup()
    server = runner.server
    assert server is not None, "setup has made it"
    loop = asyncio.get_running_loop()
    try:
        listener = await loop.create_server(
            lambda: _Connection(server, loop=loop, head_seconds=head_seconds),
            host,
            port,
            reuse_address=True,
            backlog=BACKLOG,
        )
        try:
            _LOG.info("http.listening", host=host, port=port)
            yield
        finally:
            listener.close()
    finally:
        await runner.cleanup()
