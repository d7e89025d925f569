"""A receiver of webhooks: a real HTTP server on loopback that keeps what it got and answers as told."""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

from tests.support.patience import PATIENCE_SECONDS

MOST_BODY_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """How to answer one request.

    Attributes:
        status: of the answer.
        headers: more headers.
        body: of the answer.
        delay: seconds before the answer; cut short when the receiver closes.
        until: answer when this is set, or when the receiver closes.
        hang: never answer, until the receiver closes.
        reset: reset the connection instead of answering.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay: float = 0.0
    until: asyncio.Event | None = None
    hang: bool = False
    reset: bool = False

    @classmethod
    def retry_after(cls, value: str, *, status: int = 503) -> Self:
        """An overloaded receiver's answer."""
        return cls(status=status, headers={"Retry-After": value})


OK = Reply()


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One request as it came, and the status that it was answered with (None: no answer)."""

    path: str
    query: str
    headers: CIMultiDictProxy[str]
    body: bytes
    at: datetime
    status: int | None

    @property
    def id(self) -> str:
        """The `webhook-id`."""
        return self.headers["webhook-id"]


class Receiver:
    """Answers 200, unless its script for the path says otherwise."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.requests: list[Received] = []
        self._scripts: dict[str, deque[Reply]] = {}
        self._always: dict[str, Reply] = {}
        self._changed = asyncio.Condition()
        self._closing = asyncio.Event()

    def url(self, path: str = "/") -> str:
        """Where it receives."""
        return f"http://127.0.0.1:{self.port}{path}"

    def script(self, path: str, *replies: Reply | int, then: Reply | int = OK) -> str:
        """Answer the next requests to `path` with these (a number is a status), later ones with `then`; the URL."""
        self._scripts[path] = deque(map(_reply, replies))
        self._always[path] = _reply(then)
        return self.url(path)

    def got(self, path: str | None = None) -> list[Received]:
        """The requests so far, those to `path` only if one is named."""
        return [request for request in self.requests if path is None or request.path == path]

    async def wait_for(
        self, count: int, path: str | None = None, *, within: float = PATIENCE_SECONDS
    ) -> Sequence[Received]:
        """The requests, as soon as there are `count` of them.

        Raises:
            AssertionError: there were fewer after `within` seconds.
        """
        try:
            async with asyncio.timeout(within), self._changed:
                await self._changed.wait_for(lambda: len(self.got(path)) >= count)
        except TimeoutError:
            raise AssertionError(f"{len(self.got(path))} of {count} requests came within {within:.0f} s") from None
        return self.got(path)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        at = datetime.now(UTC)
        body = await request.read()
        script = self._scripts.get(request.path)
        reply = script.popleft() if script else self._always.get(request.path, OK)
        answered = not (reply.hang or reply.reset)
        async with self._changed:
            self.requests.append(
                Received(
                    path=request.path,
                    query=request.query_string,
                    headers=CIMultiDictProxy(CIMultiDict(request.headers)),
                    body=body,
                    at=at,
                    status=reply.status if answered else None,
                )
            )
            self._changed.notify_all()
        if reply.reset:
            _reset(request)
        if reply.hang:
            await self._closing.wait()
        elif reply.delay:
            await self._pause(reply.delay)
        elif reply.until is not None:
            await self._await(reply.until)
        return web.Response(status=reply.status, headers=reply.headers, body=reply.body)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            pass

    async def _await(self, event: asyncio.Event) -> None:
        waiting = {asyncio.create_task(each.wait()) for each in (event, self._closing)}
        _, over = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in over:
            task.cancel()

    def close(self) -> None:
        """Let those go that hang."""
        self._closing.set()


@asynccontextmanager
async def receiving(port: int = 0) -> AsyncIterator[Receiver]:
    """A receiver on `port` of 127.0.0.1, or on a free one."""
    listening = socket.create_server(("127.0.0.1", port), backlog=1024)
    receiver = Receiver(listening.getsockname()[1])
    app = web.Application(client_max_size=MOST_BODY_BYTES)
    app.router.add_route("*", "/{path:.*}", receiver._handle)
    runner = web.AppRunner(app, access_log=None, auto_decompress=False, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.SockSite(runner, listening).start()
        yield receiver
    finally:
        receiver.close()
        await runner.cleanup()


def _reply(reply: Reply | int) -> Reply:
    return Reply(status=reply) if isinstance(reply, int) else reply


def _reset(request: web.Request) -> None:
    transport = request.transport
    if transport is not None:
        connection: socket.socket = transport.get_extra_info("socket")
        # With a linger of zero seconds, closing sends RST.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
