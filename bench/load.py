"""The HTTP load: `python -m bench.load '<a Load as JSON>'` posts it and prints a `Posted` as JSON.

A protocol that writes prepared bytes and looks for the end of an answer costs a tenth of an HTTP client, so that the
load takes next to nothing from what is measured. It is closed (each connection posts again when it is answered, and no
more than `window` deliveries are under way), or open (`rate` a second, whatever the answers do).
"""

import asyncio
import json
import re
import sys
import time
from collections import deque
from typing import Final, cast
from urllib.parse import urlsplit

import msgspec
import uvloop

from bench.children import Sink

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_TICK: Final = 0.001
_LOOK: Final = 0.01


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What to post where.

    Attributes:
        url: of the server.
        paths: are taken in turn.
        key: an API key, empty where none is asked for.
        payload_bytes: of each payload.
        connections: so many requests are under way at the most. What commits in batches takes more at a time than what
            does not, and is only as busy as can be where enough wait for it.
        rate: requests a second; None for a closed load.
        keys: so many ordering keys take turns; 0: messages have none.
        deliver_at: when messages are due, as the API takes it; empty: at once.
        sink, fan_out, window: at most so many deliveries between the server and that sink; 0 for any number.
    """

    url: str
    paths: list[str]
    key: str = ""
    count: int
    payload_bytes: int = 1024
    connections: int = 128
    rate: float | None = None
    keys: int = 0
    deliver_at: str = ""
    sink: str = ""
    fan_out: int = 1
    window: int = 0


class Posted(msgspec.Struct, frozen=True, kw_only=True):
    """When the first request was written and the last one answered, by the machine's monotonic clock."""

    began: float
    ended: float
    count: int

    @property
    def per_second(self) -> float:
        """Requests answered a second."""
        return self.count / (self.ended - self.began)


def payload(number: int, size: int) -> bytes:
    """A JSON document of `size` bytes that bears the moment at which it is made."""
    head = b'{"at":"%017.6f","number":"%08d","filler":"' % (time.monotonic(), number)
    return head + b"x" * (size - len(head) - 2) + b'"}'


class Connection(asyncio.Protocol):
    """A kept connection with at most one request under way."""

    def __init__(self, generator: "Generator") -> None:
        self._generator = generator
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def post(self, request: bytes) -> None:
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        held = self._held + data if self._held else data
        end = held.find(b"\r\n\r\n")
        length = _LENGTH.search(held, 0, end) if end > 0 else None
        if length is None or len(held) < end + 4 + int(length[1]):
            self._held = held
            return
        self._held = b""
        self._generator.answered(self, held)

    def connection_lost(self, exc: Exception | None) -> None:
        self._generator.fail(f"the server hung up: {exc}")


class Generator:
    """Posts a load over its connections."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._idle: deque[Connection] = deque()
        self._sent = self._answered = self._delivered = 0
        self._done: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        where, size = urlsplit(load.url).netloc, load.payload_bytes
        wrapped = len(b'{"eventType":"order.completed","payload":') + size + len(self._tail(0))
        credentials = f"Authorization: Bearer {load.key}\r\n" if load.key else ""
        self._heads = [
            f"POST {path} HTTP/1.1\r\nHost: {where}\r\n{credentials}Content-Type: application/json\r\n"
            f'Content-Length: {wrapped}\r\n\r\n{{"eventType":"order.completed","payload":'.encode()
            for path in load.paths
        ]

    async def run(self) -> Posted:
        """Post everything.

        Raises:
            RuntimeError: an answer was not a success.
        """
        loop, url = asyncio.get_running_loop(), urlsplit(self._load.url)
        host, port = url.hostname or "", url.port or 80
        for _ in range(self._load.connections):
            _, connection = await loop.create_connection(lambda: Connection(self), host, port)
            self._idle.append(connection)
        at_first = await Sink(self._load.sink).count() if self._load.window else 0
        self._began = time.monotonic()
        pacing = asyncio.create_task(self._tick() if self._load.rate else self._watch(at_first))
        ended = await self._done
        pacing.cancel()
        return Posted(began=self._began, ended=ended, count=self._answered)

    def answered(self, connection: Connection, answer: bytes) -> None:
        """Take an answer, and post what may be posted now."""
        if not answer.startswith(b"HTTP/1.1 2"):
            self.fail(answer.replace(b"\r\n", b" ")[-300:].decode(errors="replace"))
            return
        self._answered += 1
        self._idle.append(connection)
        if self._answered == self._load.count:
            self._finish()
        elif self._load.rate is None:
            self._pump()

    def fail(self, reason: str) -> None:
        """End the load."""
        if not self._done.done():
            self._done.set_exception(RuntimeError(reason))

    def _finish(self) -> None:
        if not self._done.done():
            self._done.set_result(time.monotonic())

    def _pump(self) -> None:
        load = self._load
        while self._idle and self._sent < self._allowed():
            head = self._heads[self._sent % len(self._heads)]
            self._idle.popleft().post(head + payload(self._sent, load.payload_bytes) + self._tail(self._sent))
            self._sent += 1

    def _tail(self, number: int) -> bytes:
        """What follows the payload of a message; each is as long as any other."""
        load = self._load
        key = b',"orderingKey":"%06d"' % (number % load.keys) if load.keys else b""
        due = b',"deliverAt":"%b"' % load.deliver_at.encode() if load.deliver_at else b""
        return key + due + b"}"

    def _allowed(self) -> int:
        """How many may have been sent by now."""
        load = self._load
        if load.rate is not None:
            return min(load.count, int((time.monotonic() - self._began) * load.rate) + 1)
        if load.window:
            return min(load.count, (self._delivered + load.window) // load.fan_out)
        return load.count

    async def _tick(self) -> None:
        while True:
            self._pump()
            await asyncio.sleep(_TICK)

    async def _watch(self, at_first: int) -> None:
        """Look how much was delivered, where that bounds what is sent."""
        self._pump()
        if not self._load.window:
            return
        sink = Sink(self._load.sink)
        while True:
            await asyncio.sleep(_LOOK)
            self._delivered = await sink.count() - at_first
            self._pump()


async def main(spec: str) -> None:
    """Post, print what came of it."""
    posted = await Generator(msgspec.json.decode(spec, type=Load)).run()
    print(json.dumps({"began": posted.began, "ended": posted.ended, "count": posted.count}))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
