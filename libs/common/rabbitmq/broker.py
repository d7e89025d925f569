"""A service's way to RabbitMQ: publishing with deadlines, and consuming, each on a connection of its own.

When its memory or disk runs out, RabbitMQ stops reading from connections that publish. Acknowledgements on the same
connection would stop with it, and nothing would empty the queues that fill the memory: so consumers have their own.

Each connection that comes back begins anew. A message that was neither confirmed nor acknowledged before is the
outbox's and the broker's to bring again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

import aiormq
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractMessage
from aiormq.channel import Channel
from msgspec import Struct

from libs.common.rabbitmq import connection as connections
from libs.common.rabbitmq.connection import CONNECTION_ERRORS, BrokerUnavailableError, GiveUp, LastingConnection
from libs.common.rabbitmq.consuming import Consumer, Consumption, consume
from libs.common.rabbitmq.publishing import NotTakenError, Outgoing, Publisher, ReturnedError, bursts
from libs.common.rabbitmq.topology import Names, Service, declare
from libs.common.rabbitmq.wire import Wire
from libs.common.runtime.logs import logger
from libs.common.runtime.waiting import set_within

_LOG: Final = logger("broker")
PUBLISH_SECONDS: Final = 5.0
CANCEL_SECONDS: Final = 5.0
DECLARE_SECONDS: Final = 30.0
"""How often everything is declared again: what somebody deletes comes back, and a silent peer is noticed."""

# The exchange is not there; nobody has bound a queue where somebody should have.
_AMISS: Final = (aiormq.exceptions.ChannelNotFoundEntity, ReturnedError)
_Confirm = asyncio.Future[frozenset[str]]
_Write = Callable[[Publisher], _Confirm]


class Published(Struct, frozen=True, kw_only=True):
    """How many messages were published; and of the routing keys asked for, those that nobody has bound a queue for."""

    count: int
    unheard: frozenset[str]


class Broker:
    """A service's connections to RabbitMQ.

    Args:
        url: as in `HOOKLEDGER_AMQP_URL`.
        names: exchanges and queues.
        client: shown in the broker's list of connections.
        service: whose exchanges and queues are declared; all, where the user may.
        consumers: what is consumed, from each connection anew.
        connected: called each time that it has become ready, such as to catch up on what went unheard.
    """

    def __init__(
        self,
        url: str,
        names: Names,
        client: str,
        *,
        service: Service | None = None,
        consumers: tuple[Consumer, ...] = (),
        connected: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.names = names
        self._url = url
        self._service = service
        self._consumers = consumers
        self._connected = connected
        self._opened = asyncio.Event()
        self._amiss = asyncio.Event()
        self._closing = False
        self._stopped = asyncio.Event()
        self._consumptions: list[Consumption] = []
        self._publisher: Publisher | None = None
        self._publishing = LastingConnection(url, f"{client} publishing", self._open_publishing, self._opened.set)
        self._consuming = LastingConnection(url, f"{client} consuming", self._open_consuming, self._opened.set)

    @property
    def ready(self) -> bool:
        """Whether every channel is open."""
        return self._publishing.ready and self._consuming.ready

    async def check(self) -> None:
        """Connect once and leave, to tell an unreachable server from a wrong URL at start.

        Raises:
            BrokerUnavailableError: nothing answers there now.
            BrokerRefusedError: it will not answer later either.
        """
        await connections.check(self._url)

    async def run(self) -> None:
        """Be connected until `close`."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._publishing.run())
            group.create_task(self._consuming.run())
            group.create_task(self._keep_declared())
            group.create_task(self._keep_telling())

    def publish(
        self,
        exchange: str,
        body: bytes,
        *,
        routing_key: str = "",
        content_type: str,
        mandatory: bool = False,
    ) -> Awaitable[object]:
        """Publish one persistent message, and await the broker's confirm.

        It is written before this returns, unless the broker takes none for now.

        Args:
            mandatory: whether somebody must have bound a queue; where consumers are optional, not.

        Raises:
            BrokerUnavailableError: no confirm within `PUBLISH_SECONDS`, or a refusal.
        """
        burst = [Outgoing(routing_key=routing_key, body=body)]
        return self._publish_burst(exchange, burst, content_type=content_type, mandatory=mandatory)

    async def send(self, exchange: str, message: AbstractMessage, *, routing_key: str = "", mandatory: bool) -> None:
        """As `publish`, for a message with properties of its own.

        Raises:
            BrokerUnavailableError: no confirm within `PUBLISH_SECONDS`, or a refusal.
        """
        properties, body = message.properties, message.body
        await self._publish(lambda by: by.send(exchange, routing_key, properties, body, mandatory=mandatory))

    async def publish_many(
        self, exchange: str, messages: Iterable[Outgoing], *, content_type: str, asking: bool = False
    ) -> Published:
        """Publish persistent messages in their order, where consumers are optional, and await each one's confirm.

        Args:
            messages: are taken burst by burst, so that making them keeps nothing else waiting for long.
            asking: whether to learn which of their routing keys nobody has bound a queue for.

        Raises:
            BrokerUnavailableError: no confirm within `PUBLISH_SECONDS`, or a refusal; some may have been taken.
        """
        count = 0
        unheard: frozenset[str] = frozenset()
        for burst in bursts(messages):
            returned = await self._publish_burst(exchange, burst, content_type=content_type, asking=asking)
            count += len(burst)
            unheard = unheard.difference(message.routing_key for message in burst) | returned
        return Published(count=count, unheard=unheard)

    async def stop_consuming(self) -> None:
        """Take no more messages; those in hand can still be acknowledged, and publishing goes on."""
        self._stopped.set()  # a connection that comes back consumes nothing either
        consumptions, self._consumptions = self._consumptions, []
        await asyncio.gather(*map(self._cancel, consumptions))

    def close(self) -> None:
        """End `run`."""
        self._closing = True
        self._publishing.close()
        self._consuming.close()
        self._amiss.set()
        self._opened.set()

    def _publish_burst(
        self,
        exchange: str,
        burst: Sequence[Outgoing],
        *,
        content_type: str,
        mandatory: bool = False,
        asking: bool = False,
    ) -> Awaitable[frozenset[str]]:
        return self._publish(
            lambda by: by.publish(exchange, burst, content_type=content_type, mandatory=mandatory, asking=asking)
        )

    def _publish(self, write: _Write) -> Awaitable[frozenset[str]]:
        """Write at once, if the broker takes messages now; then await the confirm."""
        publisher = self._publisher
        if publisher is None or not self.ready:
            raise BrokerUnavailableError("RabbitMQ is not connected")
        return self._confirmed(publisher, write, None if self._publishing.blocked else write(publisher))

    async def _confirmed(self, publisher: Publisher, write: _Write, confirmed: _Confirm | None) -> frozenset[str]:
        try:
            async with self._publishing.within(PUBLISH_SECONDS):
                if confirmed is None:
                    # While the broker is short of memory or disk, what is written lies in buffers and is taken later,
                    # when the sender has long given it up.
                    await self._publishing.unblocked()
                    confirmed = write(publisher)
                return await confirmed
        except TimeoutError as error:
            if not self._publishing.blocked:
                self._publishing.reopen(f"no confirm within {PUBLISH_SECONDS:.0f} s")
                self._amiss.set()  # the other connection may be as silent, and shows it when it is asked something
            raise BrokerUnavailableError(f"no confirm within {PUBLISH_SECONDS:.0f} s") from error
        except (*CONNECTION_ERRORS, NotTakenError) as error:
            if isinstance(error, _AMISS):
                self._amiss.set()
            raise BrokerUnavailableError(str(error) or type(error).__name__) from error

    async def _cancel(self, consumption: Consumption) -> None:
        try:
            async with self._consuming.within(CANCEL_SECONDS):
                await consumption.cancel()
        except CONNECTION_ERRORS as error:
            _LOG.info("broker.cancel_failed", reason=str(error) or type(error).__name__)

    async def _open_publishing(
        self, connection: AbstractConnection, wire: Wire, _: GiveUp
    ) -> Sequence[AbstractChannel]:
        channel = await connection.channel(publisher_confirms=True)
        underlying = await channel.get_underlay_channel()
        assert isinstance(underlying, Channel)
        self._publisher = Publisher(wire, underlying)
        return [channel]

    async def _open_consuming(
        self, connection: AbstractConnection, wire: Wire, give_up: GiveUp
    ) -> Sequence[AbstractChannel]:
        declaring = await connection.channel()
        await declare(declaring, self.names, self._service)
        self._consumptions = []
        channels = [declaring]
        for consumer in self._consumers:
            if self._stopped.is_set():
                break
            channel = await connection.channel()
            consumption = await consume(wire, channel, consumer, lambda: give_up("a consumer was cancelled"))
            channels.append(channel)
            if self._stopped.is_set():  # while it began
                await consumption.cancel()
            else:
                self._consumptions.append(consumption)
        return channels

    async def _keep_declared(self) -> None:
        while not self._closing:
            await set_within(self._amiss, DECLARE_SECONDS)
            self._amiss.clear()
            if not self._consuming.ready:
                continue
            try:
                async with self._consuming.within(PUBLISH_SECONDS):
                    await declare(self._consuming.channels[0], self.names, self._service)
                    for consumption in self._consumptions:
                        await consumption.bind()
            except CONNECTION_ERRORS as error:
                self._consuming.reopen(str(error) or type(error).__name__)

    async def _keep_telling(self) -> None:
        while not self._closing:
            await self._opened.wait()
            self._opened.clear()
            if not self.ready or self._connected is None:
                continue
            try:
                await self._connected()
            except Exception:  # noqa: BLE001  a boundary: the connection is sound, whatever its owner made of it
                _LOG.exception("broker.connected_failed")
