"""A TCP hop between two parts of the platform, and everything that can go wrong on it."""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol, cast
from urllib.parse import urlsplit, urlunsplit

_SLICE_SECONDS = 0.0005
_MOST_SLICES = 64
_CONNECT_SECONDS = 5.0


class Tamper(Protocol):
    """Looks at the bytes of one connection as they pass, from its first byte on, and may change them."""

    def up(self, data: bytes) -> bytes:
        """What of the client's bytes goes on to the server."""

    def down(self, data: bytes) -> bytes | None:
        """What of the server's bytes goes on to the client; None cuts the connection here."""


class Link:
    """Relays connections to `host:port`, as well or as badly as it is told to.

    Attributes:
        port: where it listens on 127.0.0.1.
        latency: seconds that bytes take, each way.
        slices: whether bytes come a few at a time.
        held: whether nothing gets through, as when a network is parted: what was sent meanwhile comes when it is whole.
    """

    def __init__(self, host: str, port: int, *, tamper: Callable[[], Tamper] | None = None) -> None:
        self.port = 0
        self.latency = 0.0
        self.slices = False
        self._target = host, port
        self._tamper = tamper
        self._through = asyncio.Event()
        self._through.set()
        self._pairs: set[_Pair] = set()

    @property
    def held(self) -> bool:
        return not self._through.is_set()

    def retarget(self, host: str, port: int) -> None:
        """Lead new connections somewhere else."""
        self._target = host, port

    def hold(self) -> None:
        """Let nothing through any more; connections stay as they are, and new ones get no answer."""
        self._through.clear()
        for pair in self._pairs:
            pair.pause()

    def reset(self) -> None:
        """Reset every connection, on both sides."""
        for pair in list(self._pairs):
            pair.cut()

    def half_open(self) -> None:
        """Lose the server's side of every connection; the client's side stays, and is never told."""
        for pair in list(self._pairs):
            pair.lose_server()

    def heal(self) -> None:
        """Relay as a good network does. Connections that were half open are reset, as a host that is back does it."""
        self.latency, self.slices = 0.0, False
        self._through.set()
        for pair in list(self._pairs):
            pair.heal()

    def pair(self, client: "_Side") -> "_Pair":
        """A new client's pair, whose server is to be connected."""
        pair = _Pair(self, client, self._tamper() if self._tamper is not None else None)
        self._pairs.add(pair)
        return pair

    async def relay(self, pair: "_Pair") -> None:
        """Connect a pair to the server, as soon as the network lets it through."""
        await self._through.wait()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                _, server = await loop.create_connection(lambda: _Side(self, pair), *self._target)
        except OSError:
            pair.cut()
            return
        pair.join(server)

    def forget(self, pair: "_Pair") -> None:
        """A pair is over."""
        self._pairs.discard(pair)


class _Side(asyncio.Protocol):
    """One end of a relayed connection."""

    def __init__(self, link: Link, pair: "_Pair | None" = None) -> None:
        self._link = link
        self.pair = pair
        self.transport: asyncio.Transport | None = None
        self.late = _Late(self)
        self._relaying: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of asyncio's
        if self.pair is None:
            self.pair = self._link.pair(self)
            self._relaying = asyncio.ensure_future(self._link.relay(self.pair))

    def data_received(self, data: bytes) -> None:
        if self.pair is not None:
            self.pair.carry(self, data)

    def write(self, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  as asyncio calls it
        if self.pair is not None:
            self.pair.ended(self)


class _Pair:
    """A client's connection and the one to the server that carries it on."""

    def __init__(self, link: Link, client: _Side, tamper: Tamper | None) -> None:
        self._link = link
        self._client = client
        self._server: _Side | None = None
        self._tamper = tamper
        self._deserted = False
        self._early: list[bytes] = []

    def join(self, server: _Side) -> None:
        """The server is there: begin."""
        self._server = server
        if self._client.transport is None or self._client.transport.is_closing():
            self.cut()
            return
        early, self._early = self._early, []
        for data in early:
            self.carry(self._client, data)
        if self._link.held:
            self.pause()

    def pause(self) -> None:
        for side in (self._client, self._server):
            if side is not None and side.transport is not None and not side.transport.is_closing():
                side.transport.pause_reading()

    def heal(self) -> None:
        if self._deserted:
            self.cut()
            return
        if self._server is not None:
            for side in (self._client, self._server):
                if side.transport is not None and not side.transport.is_closing():
                    side.transport.resume_reading()

    def carry(self, sender: _Side, data: bytes) -> None:
        if self._deserted:
            return
        if self._server is None:
            self._early.append(data)
            return
        upwards = sender is self._client
        if self._tamper is not None:
            kept = self._tamper.up(data) if upwards else self._tamper.down(data)
            if kept is None:
                self.cut()
                return
            data = kept
        self._send(self._server if upwards else self._client, data)

    def cut(self) -> None:
        """Reset both sides."""
        for side in (self._client, self._server):
            if side is not None and side.transport is not None:
                _reset(side.transport)
        self._link.forget(self)

    def lose_server(self) -> None:
        if self._server is not None and self._server.transport is not None:
            self._deserted = True
            _reset(self._server.transport)

    def ended(self, side: _Side) -> None:
        """One side closed: close the other, behind what is still on its way."""
        if self._deserted and side is self._server:
            return
        other = self._server if side is self._client else self._client
        if other is not None:
            other.late.put(None, self._link.latency)
        self._link.forget(self)

    def _send(self, to: _Side, data: bytes) -> None:
        if not (self._link.latency or self._link.slices or to.late):
            to.write(data)
            return
        size = max(1, len(data) // _MOST_SLICES) if self._link.slices else max(1, len(data))
        for place, start in enumerate(range(0, len(data), size)):
            to.late.put(data[start : start + size], self._link.latency + place * _SLICE_SECONDS)


class _Late:
    """Bytes on their way to one side, and at last its end (None), each not before its time and in their order."""

    def __init__(self, to: _Side) -> None:
        self._to = to
        self._waiting: deque[tuple[float, bytes | None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def put(self, data: bytes | None, seconds: float) -> None:
        self._waiting.append((asyncio.get_running_loop().time() + seconds, data))
        self._arrive()

    def _arrive(self) -> None:
        """Write the first that waits, and all behind it whose time has come too; a timer for the next."""
        loop = asyncio.get_running_loop()
        while self._waiting and self._waiting[0][0] <= loop.time():
            _, data = self._waiting.popleft()
            if data is None:
                self._to.close()
            else:
                self._to.write(data)
        if self._waiting and self._timer is None:
            self._timer = loop.call_at(self._waiting[0][0], self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._arrive()


def _reset(transport: asyncio.Transport) -> None:
    connection: socket.socket | None = transport.get_extra_info("socket")
    if connection is not None and not transport.is_closing():
        # With a linger of zero seconds, closing sends RST.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


@asynccontextmanager
async def linked(host: str, port: int, *, tamper: Callable[[], Tamper] | None = None) -> AsyncIterator[Link]:
    """A link to `host:port` that listens on a free port of 127.0.0.1."""
    link = Link(host, port, tamper=tamper)
    server = await asyncio.get_running_loop().create_server(lambda: _Side(link), "127.0.0.1", 0)
    link.port = server.sockets[0].getsockname()[1]
    try:
        yield link
    finally:
        server.close()
        link.reset()


def through(link: Link, url: str) -> str:
    """The URL that leads where `url` does, by way of the link."""
    parts = urlsplit(url)
    user, at, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user}{at}127.0.0.1:{link.port}"))


def address(url: str, default_port: int) -> tuple[str, int]:
    """Host and port of a URL."""
    parts = urlsplit(url)
    return parts.hostname or "127.0.0.1", parts.port or default_port
