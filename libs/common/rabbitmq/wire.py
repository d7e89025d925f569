"""The bytes of a connection: frames of channels that somebody takes go to them at once, all others to aiormq.

aiormq reads each frame with three awaits and hands it on through a queue to its channel's task, which makes another
task of it; and it writes by a queue and a task. `transport_factory` is where it lets others make its streams.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from aiormq.connection import TransportFactory
from aiormq.exceptions import AMQPConnectionError
from yarl import URL

from libs.common.rabbitmq.frames import BLOCKED, END, HEAD, HEARTBEAT, METHOD, UNBLOCKED

TELL_SECONDS: Final = 5.0
"""How often aiormq hears at least that the broker lives, while all that comes is taken. It gives up after 48."""
_KINDS: Final = frozenset({1, 2, 3, 8})
_CONNECTION: Final = 0
"""The channel of what concerns the whole connection."""

Take = Callable[[int, bytes], bool]
"""What takes a channel's frames, by kind and payload; it answers False for one that it leaves to aiormq."""


class Wire(TransportFactory):
    """What one connection is written to and read from, once it is connected.

    Attributes:
        unblocked: whether the broker takes messages from it: not while its memory or disk runs out.
    """

    def __init__(self) -> None:
        self.unblocked = asyncio.Event()
        self.unblocked.set()
        self._takers: dict[int, Take] = {_CONNECTION: self._note}
        self._transport: asyncio.WriteTransport | None = None

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect, as aiormq does.

        Raises:
            AMQPConnectionError: it cannot be reached.
        """
        loop = asyncio.get_running_loop()
        contexts = kwargs.pop("ssl_context_provider")
        context = await contexts.get_context() if url.scheme == "amqps" else None
        assert url.host is not None
        assert url.port is not None, "aiormq puts in the protocol's own"
        reader = asyncio.StreamReader(loop=loop)
        protocol = _Sorting(reader, self._takers)
        try:
            transport, _ = await loop.create_connection(lambda: protocol, url.host, url.port, ssl=context, **kwargs)
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        self._transport = transport
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    def take(self, number: int, take: Take) -> None:
        """Have the frames of channel `number` from now on."""
        self._takers[number] = take

    def leave(self, number: int) -> None:
        """Have them no more."""
        self._takers.pop(number, None)

    def write(self, frames: bytes) -> None:
        """Write whole frames at once, between those of aiormq.

        While the connection ends they go nowhere: the end of their channel follows.
        """
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frames)

    def _note(self, kind: int, payload: bytes) -> bool:
        """Look on while aiormq is told whether the broker takes messages."""
        if kind == METHOD:
            if payload.startswith(BLOCKED):
                self.unblocked.clear()
            elif payload.startswith(UNBLOCKED):
                self.unblocked.set()
        return False


class _Sorting(asyncio.StreamReaderProtocol):
    """Cuts what comes into frames, and puts into aiormq's stream what nobody takes."""

    def __init__(self, reader: asyncio.StreamReader, takers: dict[int, Take]) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(reader, loop=loop)
        self._reader = reader
        self._takers = takers
        self._time = loop.time
        self._told_at = loop.time()
        self._rest = bytearray()
        self._wanted = 0
        self._astray = False

    def data_received(self, data: bytes) -> None:
        """Sort what came; the beginning of a frame waits for the rest of it."""
        if self._astray:
            self._reader.feed_data(data)
            return
        if self._rest:
            self._rest += data
            if len(self._rest) < self._wanted:
                return
            data = bytes(self._rest)
            self._rest.clear()
        left = self._sort(data)
        if left < len(data):
            self._rest += memoryview(data)[left:]

    def _sort(self, data: bytes) -> int:
        """Give each whole frame to whom it belongs; where the first that is not whole begins."""
        begin = at = 0  # from `begin` to `at` all is aiormq's
        taken = False
        while at + HEAD.size <= len(data):
            kind, number, size = HEAD.unpack_from(data, at)
            if kind not in _KINDS:  # a server of another protocol: aiormq says so
                self._astray = True
                at = len(data)
                break
            after = at + HEAD.size + size + 1
            if after > len(data):
                self._wanted = after - at
                break
            take = self._takers.get(number)
            if take is not None and data[after - 1] == END and take(kind, data[at + HEAD.size : after - 1]):
                taken = True
                self._pass_on(data, begin, at)
                begin = after
            at = after
        else:
            self._wanted = HEAD.size
        self._pass_on(data, begin, at)
        if taken and self._time() - self._told_at > TELL_SECONDS:
            self._told_at = self._time()
            self._reader.feed_data(HEARTBEAT)
        return at

    def _pass_on(self, data: bytes, begin: int, end: int) -> None:
        if begin < end:
            self._reader.feed_data(data[begin:end])
