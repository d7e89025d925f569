"""A TCP proxy before Postgres that loses answers: the transaction is committed, and nobody is told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit, urlunsplit

from tests.support.patience import PATIENCE_SECONDS

_COMMIT = b"COMMIT;\x00"  # as asyncpg ends a transaction: a simple query
_CHUNK_BYTES = 64 * 1024


class LossyProxy:
    """Relays connections to Postgres; of the commits that come while it is armed, every `every`-th loses its answer."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._every = 0
        self._commits = 0
        self._changed = asyncio.Condition()
        self.lost = 0

    def arm(self, *, every: int) -> None:
        """From now on lose the answer to every `every`-th commit, and the connection with it; 0 for none."""
        self._every = every
        self._commits = 0

    async def loses(self, count: int) -> None:
        """Wait until so many answers were lost in all."""
        async with asyncio.timeout(PATIENCE_SECONDS), self._changed:
            await self._changed.wait_for(lambda: self.lost >= count)

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client."""
        try:
            to_server = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.close()
            return
        losing = asyncio.Event()
        with suppress(ConnectionError):
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._forward(reader, to_server[1], losing))
                    group.create_task(_answer(to_server[0], writer, losing))
            finally:
                writer.close()
                to_server[1].close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, losing: asyncio.Event) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            if _COMMIT in data and self._every:
                self._commits += 1
                if self._commits % self._every == 0:
                    losing.set()
                    async with self._changed:
                        self.lost += 1
                        self._changed.notify_all()
            writer.write(data)
            await writer.drain()
        writer.write_eof()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, losing: asyncio.Event) -> None:
    while data := await reader.read(_CHUNK_BYTES):
        if losing.is_set():  # this is the answer to the commit: it has happened
            writer.transport.abort()
            return
        writer.write(data)
        await writer.drain()
    writer.write_eof()


@asynccontextmanager
async def lossy(url: str) -> AsyncIterator[tuple[LossyProxy, str]]:
    """A proxy before the Postgres of `url`, and the URL that leads through it."""
    parts = urlsplit(url)
    proxy = LossyProxy(parts.hostname or "", parts.port or 5432)
    server = await asyncio.start_server(proxy.relay, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    user = parts.netloc.rpartition("@")[0]
    async with server:
        yield proxy, urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{port}"))
