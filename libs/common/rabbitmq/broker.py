"""One connection to RabbitMQ that comes back.

Each time that it connects it opens its channels, declares the topology and begins to consume anew; a message that was
neither confirmed nor acknowledged before is the outbox's and the broker's to bring again. Ready means that the channels
are open, not only the connection.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import aio_pika
import aiormq
from aio_pika.abc import (
    AbstractChannel,
    AbstractConnection,
    AbstractExchange,
    AbstractIncomingMessage,
    DateType,
    DeliveryMode,
)
from aiormq.channel import Channel
from yarl import URL

from libs.common.rabbitmq.burst import Outgoing, bursts, publish_burst
from libs.common.rabbitmq.topology import Names, declare
from libs.common.runtime.logs import logger

_LOG: Final = logger("broker")
PUBLISH_SECONDS: Final = 5.0
CONNECT_SECONDS: Final = 10.0
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


class BrokerUnavailableError(Exception):
    """RabbitMQ did not take the message in time. Whether it has it is not known."""


class BrokerRefusedError(Exception):
    """The broker's URL cannot be used: malformed, or the server refuses the user."""


Handle = Callable[[AbstractIncomingMessage], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumer:
    """A queue to consume. Without a name it is an exclusive one of this process, bound to `exchange`.

    `handle` acknowledges or rejects each message itself; what it raises is logged and the message goes back.
    """

    handle: Handle
    queue: str | None = None
    exchange: str | None = None
    prefetch: int = 32


class Broker:
    """A service's connection to RabbitMQ.

    Args:
        url: as in `HOOKLEDGER_AMQP_URL`.
        names: exchanges and queues.
        client: shown in the broker's list of connections.
        consumers: what is consumed, from each connection anew.
        connected: called after each (re)connection, such as to catch up on announcements that went unheard.
    """

    def __init__(
        self,
        url: str,
        names: Names,
        client: str,
        *,
        consumers: tuple[Consumer, ...] = (),
        connected: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.names = names
        self._url = _with_heartbeat(url)
        self._client = client
        self._consumers = consumers
        self._connected = connected
        self._exchanges: dict[str, AbstractExchange] = {}
        self._channels: list[AbstractChannel] = []
        self._consuming: list[tuple[AbstractChannel, str]] = []
        self._closing = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Whether every channel is open."""
        return bool(self._channels) and all(not channel.is_closed for channel in self._channels)

    async def check(self) -> None:
        """Connect once and leave, to tell an unreachable server from a wrong URL at start.

        Raises:
            BrokerUnavailableError: nothing answers there now.
            BrokerRefusedError: it will not answer later either.
        """
        if not self._url.startswith(("amqp://", "amqps://")):
            # aio_pika passes over the scheme, and would look for a broker at a web server's address.
            raise BrokerRefusedError("HOOKLEDGER_AMQP_URL cannot be used: it does not begin with amqp:// or amqps://")
        try:
            connection = await aio_pika.connect(self._url, timeout=CONNECT_SECONDS)
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
        await connection.close()

    async def run(self) -> None:
        """Be connected until `close`."""
        backoff = FIRST_BACKOFF_SECONDS
        while not self._closing.is_set():
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    connection = await aio_pika.connect(self._url, client_properties={"connection_name": self._client})
                    gone = await self._open(connection)
            except CONNECTION_ERRORS as error:
                _LOG.warning("broker.unreachable", reason=str(error) or type(error).__name__, retry_seconds=backoff)
                self._channels = []
                try:
                    async with asyncio.timeout(backoff):
                        await self._closing.wait()
                except TimeoutError:
                    backoff = min(backoff * 2, LONGEST_BACKOFF_SECONDS)
                continue
            backoff = FIRST_BACKOFF_SECONDS
            _LOG.info("broker.connected")
            await self._stay(gone)
            self._channels = []
            await _close_quietly(connection)
            if not self._closing.is_set():
                _LOG.warning("broker.disconnected")

    async def publish(
        self,
        exchange: str,
        body: bytes,
        *,
        routing_key: str = "",
        content_type: str,
        headers: Mapping[str, Any] | None = None,
        mandatory: bool = False,
        expiration: DateType = None,
    ) -> None:
        """Publish one persistent message and await the broker's confirm.

        Args:
            mandatory: whether somebody must have bound a queue; where consumers are optional, not.

        Raises:
            BrokerUnavailableError: no confirm within `PUBLISH_SECONDS`, or a refusal.
        """
        target = self._exchanges.get(exchange) if self.ready else None
        if target is None:
            raise BrokerUnavailableError("RabbitMQ is not connected")
        message = aio_pika.Message(
            body,
            content_type=content_type,
            headers=dict(headers or {}),
            delivery_mode=DeliveryMode.PERSISTENT,
            expiration=expiration,
        )
        try:
            await target.publish(message, routing_key, mandatory=mandatory, timeout=PUBLISH_SECONDS)
        except CONNECTION_ERRORS as error:
            raise BrokerUnavailableError(str(error) or type(error).__name__) from error

    async def publish_many(self, exchange: str, messages: Sequence[Outgoing], *, content_type: str) -> None:
        """Publish persistent messages in their order, where consumers are optional, and await each one's confirm.

        Raises:
            BrokerUnavailableError: no confirm within `PUBLISH_SECONDS`, or a refusal; some may have been taken.
        """
        for burst in bursts(messages):
            if not self.ready:
                raise BrokerUnavailableError("RabbitMQ is not connected")
            try:
                async with asyncio.timeout(PUBLISH_SECONDS):
                    channel = await self._channels[0].get_underlay_channel()
                    assert isinstance(channel, Channel)
                    await publish_burst(channel, exchange, burst, content_type=content_type)
            except CONNECTION_ERRORS as error:
                raise BrokerUnavailableError(str(error) or type(error).__name__) from error

    async def stop_consuming(self) -> None:
        """Take no more messages; those in hand can still be acknowledged, and publishing goes on."""
        consuming, self._consuming = self._consuming, []
        await asyncio.gather(*(_cancel(channel, tag) for channel, tag in consuming))

    def close(self) -> None:
        """End `run`."""
        self._closing.set()

    async def _open(self, connection: AbstractConnection) -> asyncio.Event:
        gone = asyncio.Event()
        try:
            publishing = await connection.channel(publisher_confirms=True, on_return_raises=True)
            await declare(publishing, self.names)
            channels = [publishing]
            names = self.names
            self._exchanges = {
                name: await publishing.get_exchange(name, ensure=False)
                for name in (names.messages, names.registry, names.deliveries, names.accepted, names.dead)
            }
            self._consuming = []
            for consumer in self._consumers:
                channel = await connection.channel()
                await channel.set_qos(prefetch_count=consumer.prefetch)
                channels.append(channel)
                underlying = await channel.get_underlay_channel()
                # The broker ends a consumer without closing its channel when its queue is deleted or moves.
                underlying.on_consumer_cancel_callbacks.add(lambda _: gone.set())
                self._consuming.append((channel, await _consume(channel, consumer)))
            for channel in channels:
                channel.close_callbacks.add(lambda *_: gone.set())
            connection.close_callbacks.add(lambda *_: gone.set())
            self._channels = channels
            await self._tell_connected()
        except BaseException:
            await _close_quietly(connection)
            raise
        if not self.ready:
            gone.set()
        return gone

    async def _tell_connected(self) -> None:
        if self._connected is None:
            return
        try:
            await self._connected()
        except Exception:  # noqa: BLE001  a boundary: the connection is sound, whatever its owner made of it
            _LOG.exception("broker.connected_failed")

    async def _stay(self, gone: asyncio.Event) -> None:
        waits = {asyncio.create_task(gone.wait()), asyncio.create_task(self._closing.wait())}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


async def _consume(channel: AbstractChannel, consumer: Consumer) -> str:
    if consumer.queue is not None:
        queue = await channel.get_queue(consumer.queue, ensure=False)
    else:
        assert consumer.exchange is not None
        queue = await channel.declare_queue(exclusive=True, auto_delete=True)
        await queue.bind(consumer.exchange)

    async def handle(message: AbstractIncomingMessage) -> None:
        try:
            await consumer.handle(message)
        except Exception as error:  # noqa: BLE001  a task's boundary: the message goes back, its delivery limit parks it
            if channel.is_closed:
                _LOG.info("broker.handling_interrupted", queue=queue.name, reason=str(error))
                return
            _LOG.exception("broker.handling_failed", queue=queue.name)
            if not message.processed:
                with suppress(*CONNECTION_ERRORS):  # then the server puts it back by itself
                    await message.nack(requeue=True)

    return await queue.consume(handle)


async def _cancel(channel: AbstractChannel, tag: str) -> None:
    try:
        underlying = await channel.get_underlay_channel()
        await underlying.basic_cancel(tag, timeout=PUBLISH_SECONDS)
    except CONNECTION_ERRORS as error:
        _LOG.info("broker.cancel_failed", reason=str(error) or type(error).__name__)


async def _close_quietly(connection: AbstractConnection) -> None:
    try:
        async with asyncio.timeout(2):
            await connection.close()
    except CONNECTION_ERRORS as error:
        _LOG.debug("broker.close", reason=str(error))


def _with_heartbeat(text: str) -> str:
    """A silent peer is noticed by heartbeats; the server's own default is a minute."""
    try:
        url = URL(text)
    except ValueError:
        return text
    return str(url if "heartbeat" in url.query else url.update_query(heartbeat=str(HEARTBEAT_SECONDS)))
