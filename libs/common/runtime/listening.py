"""Listening: until a service ends, and then until the requests in hand are answered."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Final
from weakref import WeakSet

from aiohttp import web

from libs.common.runtime.connection import Connection
from libs.common.runtime.express import Express
from libs.common.runtime.express_connection import ExpressConnection
from libs.common.runtime.logs import logger
from libs.common.runtime.service import StartError

_LOG: Final = logger("http")
HEAD_SECONDS: Final = 10.0
BACKLOG: Final = 1024
CUT_SECONDS: Final = 0.5
"""How long a request gets to end that was cut off when its grace was over."""
_LOOK_SECONDS: Final = 0.02


@asynccontextmanager
async def listening(
    app: web.Application,
    host: str,
    port: int,
    *,
    grace: float,
    head_seconds: float = HEAD_SECONDS,
    express: Express | None = None,
) -> AsyncIterator[None]:
    """Listen until the block ends; then take no more connections and give requests in hand `grace` seconds.

    Args:
        app: answers what `express` does not take.
        host: to listen on.
        port: to listen on.
        grace: of requests in hand, in seconds.
        head_seconds: within which a request's headers come in.
        express: is offered plain requests first.

    Raises:
        StartError: the port is taken, or the address is not this machine's.
    """
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=CUT_SECONDS)
    await runner.setup()
    server = runner.server
    assert server is not None, "setup has made it"
    loop = asyncio.get_running_loop()
    connections: WeakSet[Connection] = WeakSet()

    def connection() -> Connection:
        if express is None:
            made = Connection(server, loop=loop, head_seconds=head_seconds)
        else:
            made = ExpressConnection(server, loop=loop, head_seconds=head_seconds, express=express)
        connections.add(made)
        return made

    try:
        listener = await _listen(connection, host, port)
        try:
            _LOG.info("http.listening", host=host, port=port)
            yield
        finally:
            listener.close()
            await asyncio.sleep(0)  # what was accepted already begins
            await _end(connections, grace)
    finally:
        await runner.cleanup()


async def _listen(connection: Callable[[], Connection], host: str, port: int) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    try:
        return await loop.create_server(connection, host, port, reuse_address=True, backlog=BACKLOG)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartError(f"cannot listen on {host}:{port}: {reason}; set HOOKLEDGER_HOST or HOOKLEDGER_PORT") from error


async def _end(connections: Iterable[Connection], grace: float) -> None:
    """Close what is idle, and the others after their answer, for at most `grace` seconds."""
    for connection in list(connections):
        connection.end()
    try:
        async with asyncio.timeout(grace):
            while any(connection.busy for connection in list(connections)):  # noqa: ASYNC110  ends within the grace
                await asyncio.sleep(_LOOK_SECONDS)
    except TimeoutError:
        _LOG.warning("http.cut_off", requests=sum(connection.busy for connection in list(connections)))
