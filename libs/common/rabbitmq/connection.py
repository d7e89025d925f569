"""A connection to RabbitMQ that comes back, and says whether it can be used."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import aio_pika
import aiormq
from aio_pika.abc import AbstractChannel, AbstractConnection
from yarl import URL

from libs.common.rabbitmq.wire import Wire
from libs.common.runtime.logs import logger
from libs.common.runtime.waiting import set_within

_LOG: Final = logger("broker")
CONNECT_SECONDS: Final = 10.0
CLOSE_SECONDS: Final = 2.0
FIRST_BACKOFF_SECONDS: Final = 0.2
LONGEST_BACKOFF_SECONDS: Final = 5.0
HEARTBEAT_SECONDS: Final = 15

CONNECTION_ERRORS: Final = (
    OSError,
    TimeoutError,
    aiormq.exceptions.AMQPError,
    aio_pika.exceptions.AMQPError,
    aio_pika.exceptions.ChannelInvalidStateError,
    RuntimeError,  # aiormq raises a bare one for a writer that was closed under it
)

GiveUp = Callable[[str], None]
Open = Callable[[AbstractConnection, Wire, GiveUp], Awaitable[Sequence[AbstractChannel]]]


class BrokerUnavailableError(Exception):
    """RabbitMQ did not take the message in time. Whether it has it is not known."""


class BrokerRefusedError(Exception):
    """The broker's URL cannot be used: malformed, or the server refuses the user."""


class LastingConnection:
    """One connection, opened anew whenever it, or a channel of it, is closed by anybody but us.

    Args:
        url: as in `HOOKLEDGER_AMQP_URL`.
        name: shown in the broker's list of connections.
        open_channels: opens what the connection is for; it is ready while all the channels that this returns are open.
            It is told how to give up this connection, and no later one, with a reason.
        opened: called each time that it has become ready; must not block.
    """

    def __init__(self, url: str, name: str, open_channels: Open, opened: Callable[[], None]) -> None:
        self._url = with_heartbeat(url)
        self._name = name
        self._open_channels = open_channels
        self._opened = opened
        self._connection: AbstractConnection | None = None
        self._wire = Wire()
        self._gone = asyncio.Event()
        self._closing = asyncio.Event()
        self._deadlines: set[asyncio.Timeout] = set()
        self.channels: Sequence[AbstractChannel] = ()

    @property
    def ready(self) -> bool:
        """Whether every channel is open: a connection can live without them."""
        return bool(self.channels) and not any(channel.is_closed for channel in self.channels)

    async def run(self) -> None:
        """Be connected until `close`."""
        backoff = FIRST_BACKOFF_SECONDS
        while not self._closing.is_set():
            # One for each connection: an old one's end may be told when the new one is open.
            gone = self._gone = asyncio.Event()
            try:
                await self._open(gone)
                _LOG.info("broker.connected", connection=self._name)
                backoff = FIRST_BACKOFF_SECONDS
                self._opened()
                await gone.wait()
                if not self._closing.is_set():
                    _LOG.warning("broker.disconnected", connection=self._name)
            except CONNECTION_ERRORS as error:
                reason = str(error) or type(error).__name__
                _LOG.warning("broker.unreachable", connection=self._name, reason=reason, retry_seconds=backoff)
            finally:
                await self._leave()
            await set_within(self._closing, backoff)
            backoff = min(backoff * 2, LONGEST_BACKOFF_SECONDS)

    @asynccontextmanager
    async def within(self, seconds: float) -> AsyncIterator[None]:
        """A deadline for what is asked of the connection; it passes at once when the connection is given up.

        Raises:
            TimeoutError: it passed.
            ConnectionAbortedError: the connection ended before the answer came.
        """
        async with _answered_within(seconds) as deadline:
            self._deadlines.add(deadline)
            try:
                yield
            finally:
                self._deadlines.discard(deadline)

    @property
    def blocked(self) -> bool:
        """Whether the broker takes no messages from it for now, because its memory or disk runs out."""
        return not self._wire.unblocked.is_set()

    async def unblocked(self) -> None:
        """Wait until the broker takes messages from it."""
        await self._wire.unblocked.wait()

    def reopen(self, reason: str) -> None:
        """Give this connection up for a new one: its peer is silent, or it is not what it should be."""
        self._give_up(self._gone, reason)

    def close(self) -> None:
        """End `run`."""
        self._closing.set()
        self._gone.set()

    def _give_up(self, gone: asyncio.Event, reason: str) -> None:
        if not gone.is_set():
            _LOG.warning("broker.given_up", connection=self._name, reason=reason)
            gone.set()

    async def _open(self, gone: asyncio.Event) -> None:
        async with _answered_within(CONNECT_SECONDS):
            wire = self._wire = Wire()
            connection = aio_pika.Connection(URL(self._url), client_properties={"connection_name": self._name})
            connection.kwargs["transport_factory"] = wire
            await connection.connect()
            self._connection = connection
            channels = await self._open_channels(connection, wire, partial(self._give_up, gone))
        for channel in channels:
            channel.close_callbacks.add(lambda *_: gone.set())
        connection.close_callbacks.add(lambda *_: gone.set())
        self.channels = channels
        if not self.ready:  # closed before anybody listened
            gone.set()

    async def _leave(self) -> None:
        self.channels = ()
        for deadline in self._deadlines:
            # aiormq answers whoever still waits when we close it with a bare `Exception`, or as if they were cancelled.
            # One that has passed refuses another time while its task unwinds.
            if not deadline.expired():
                deadline.reschedule(0)
        await asyncio.sleep(0)
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            async with _answered_within(CLOSE_SECONDS):
                await connection.close()
        except CONNECTION_ERRORS as error:
            _LOG.debug("broker.close", connection=self._name, reason=str(error))


@asynccontextmanager
async def _answered_within(seconds: float) -> AsyncIterator[asyncio.Timeout]:
    """A deadline, under which an answer that aiormq calls off is no cancellation of whoever waits for it.

    It rejects waiters with a `CancelledError` when its heartbeat gives up, or when it closes. A task group would take
    that for a task that somebody cancelled, and end it without a word.

    Raises:
        TimeoutError: it passed.
        ConnectionAbortedError: the answer was called off.
    """
    async with asyncio.timeout(seconds) as deadline:
        try:
            yield deadline
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise ConnectionAbortedError("the connection ended before the answer came") from error


async def check(url: str) -> None:
    """Connect once and leave, to tell an unreachable server from a wrong URL at start.

    Raises:
        BrokerUnavailableError: nothing answers there now.
        BrokerRefusedError: it will not answer later either.
    """
    connection = await connect(url, "hookledger")
    await connection.close()


async def connect(url: str, name: str) -> AbstractConnection:
    """A connection that does not come back.

    Raises:
        BrokerUnavailableError: nothing answers there now.
        BrokerRefusedError: it will not answer later either.
    """
    if not url.startswith(("amqp://", "amqps://")):
        # aio_pika passes over the scheme, and would look for a broker at a web server's address.
        raise BrokerRefusedError("HOOKLEDGER_AMQP_URL cannot be used: it does not begin with amqp:// or amqps://")
    try:
        return await aio_pika.connect(
            with_heartbeat(url), timeout=CONNECT_SECONDS, client_properties={"connection_name": name}
        )
    except (aiormq.exceptions.AuthenticationError, aiormq.exceptions.ProbableAuthenticationError) as error:
        raise BrokerRefusedError("RabbitMQ refuses the user; check HOOKLEDGER_AMQP_URL") from error
    except aiormq.exceptions.InvalidFrameError as error:
        raise BrokerRefusedError("RabbitMQ refuses the virtual host; check HOOKLEDGER_AMQP_URL") from error
    except (ValueError, TypeError, KeyError) as error:
        raise BrokerRefusedError(f"HOOKLEDGER_AMQP_URL cannot be used: {error}") from error
    except CONNECTION_ERRORS as error:
        raise BrokerUnavailableError(
            f"RabbitMQ cannot be reached: {error or 'no answer'}; check HOOKLEDGER_AMQP_URL and the server"
        ) from error


def with_heartbeat(text: str) -> str:
    """The URL with a heartbeat, unless it has one: it notices a silent peer, and the server's own is a minute."""
    try:
        url = URL(text)
    except ValueError:
        return text
    return str(url if "heartbeat" in url.query else url.update_query(heartbeat=str(HEARTBEAT_SECONDS)))
