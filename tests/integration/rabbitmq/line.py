"""A broker under test, and the line that leads to RabbitMQ: it can be cut, and it can fall silent."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aio_pika
from aio_pika.abc import AbstractChannel
from yarl import URL

from libs.common.rabbitmq.broker import Broker
from libs.common.rabbitmq.consuming import Consumer
from libs.common.rabbitmq.topology import Names
from tests.conftest import Amqp
from tests.support.certificates import server_tls


@asynccontextmanager
async def connected(
    amqp: Amqp, *consumers: Consumer, then: Callable[[], Awaitable[None]] | None = None
) -> AsyncIterator[Broker]:
    """A broker connection, once it is there; `then` is called for each later one."""
    first = asyncio.Event()

    async def on_connected() -> None:
        if first.is_set() and then is not None:
            await then()
        first.set()

    broker = Broker(amqp.url, Names(amqp.prefix), "test", consumers=consumers, connected=on_connected)
    running = asyncio.create_task(broker.run())
    try:
        await asyncio.wait_for(first.wait(), 10)
        yield broker
    finally:
        broker.close()
        await asyncio.wait_for(running, 10)


@asynccontextmanager
async def raw_channel(amqp: Amqp) -> AsyncIterator[AbstractChannel]:
    """A channel that is not ours."""
    async with await aio_pika.connect(amqp.url) as connection:
        yield await connection.channel()


class Line:
    """Connections to RabbitMQ by a detour. What connects after a fault gets through."""

    def __init__(self, server: URL) -> None:
        self._server = server
        self._ends: set[asyncio.StreamWriter] = set()
        self._heard = asyncio.Event()
        self._heard.set()
        self.amqp = Amqp(url="", prefix="")

    def cut(self) -> None:
        """Break what is connected."""
        for writer in self._ends:
            writer.transport.abort()
        self._ends.clear()

    def silence(self) -> None:
        """Carry nothing more on what is connected, without breaking it."""
        self._heard.clear()
        self._heard = asyncio.Event()
        self._heard.set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        far_reader, far_writer = await asyncio.open_connection(self._server.host, self._server.port)
        self._ends.update((writer, far_writer))
        heard = self._heard
        await asyncio.gather(_pump(reader, far_writer, heard), _pump(far_reader, writer, heard))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heard: asyncio.Event) -> None:
    with suppress(OSError):
        while piece := await reader.read(65536):
            if heard.is_set():
                writer.write(piece)
                await writer.drain()
    writer.close()


@asynccontextmanager
async def cable(amqp: Amqp, *, certificate: Path | None = None) -> AsyncIterator[Line]:
    """A line to the broker; with a certificate it is encrypted as far as to the detour."""
    server = URL(amqp.url)
    line = Line(server)
    tls = server_tls(certificate) if certificate is not None else None
    listening = await asyncio.start_server(line.carry, "127.0.0.1", 0, ssl=tls)
    url = server.with_host("127.0.0.1").with_port(listening.sockets[0].getsockname()[1])
    if certificate is not None:
        url = url.with_scheme("amqps").update_query(cafile=str(certificate))
    line.amqp = Amqp(url=str(url), prefix=amqp.prefix)
    try:
        yield line
    finally:
        listening.close()
        line.cut()
