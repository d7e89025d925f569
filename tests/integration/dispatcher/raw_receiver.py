"""A receiver that says what it wants, byte by byte: what no HTTP library would send."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]]


@dataclass(slots=True)
class RawReceiver:
    """A loopback port. `connections` counts who has connected, `requests` keeps what was read whole."""

    port: int
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0

    def url(self, path: str = "/hook", *, scheme: str = "http", host: str = "127.0.0.1") -> str:
        """Where it listens."""
        return f"{scheme}://{host}:{self.port}{path}"

    async def read_request(self, reader: asyncio.StreamReader) -> bytes:
        """One request, headers and body."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.partition(b":")[2]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
        )
        request = head + await reader.readexactly(length)
        self.requests.append(request)
        return request


@asynccontextmanager
async def raw_receiver(
    converse: Callable[[RawReceiver], Conversation], *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[RawReceiver]:
    """Listen; each connection is led by the conversation, which is told its number (from 1), and then closed."""
    receiver = RawReceiver(port=0)
    conversation = converse(receiver)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        receiver.connections += 1
        with suppress(OSError, asyncio.IncompleteReadError):
            await conversation(reader, writer, receiver.connections)
            writer.close()
            await writer.wait_closed()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def answering(*answers: bytes) -> Callable[[RawReceiver], Conversation]:
    """Read a request, say the next of `answers` (the last one again and again), on connections that are kept."""

    def converse(receiver: RawReceiver) -> Conversation:
        async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
            while True:
                await receiver.read_request(reader)
                writer.write(answers[min(len(receiver.requests), len(answers)) - 1])
                await writer.drain()

        return conversation

    return converse


def once(answer: bytes) -> Callable[[RawReceiver], Conversation]:
    """Read a request, say `answer`, close."""

    def converse(receiver: RawReceiver) -> Conversation:
        async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
            await receiver.read_request(reader)
            writer.write(answer)
            await writer.drain()

        return conversation

    return converse


def dripping(beginning: bytes, drop: bytes, *, every: float = 0.0) -> Callable[[RawReceiver], Conversation]:
    """Read a request, say `beginning`, then `drop` for ever."""

    def converse(receiver: RawReceiver) -> Conversation:
        async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
            await receiver.read_request(reader)
            writer.write(beginning)
            while True:
                writer.write(drop)
                await writer.drain()
                await asyncio.sleep(every)

        return conversation

    return converse
