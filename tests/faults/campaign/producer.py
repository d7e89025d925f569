"""A producer that publishes straight to the broker."""

import asyncio
from contextlib import suppress

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection
from yarl import URL

from tests.faults.campaign.world import World


class Producer:
    """Publishes as a careful service of a team does: confirmed, and again until it is."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None
        self._turn = asyncio.Lock()

    async def publish(self, message: aio_pika.Message) -> None:
        """Publish persistently, as the connection's user; returns when the broker has confirmed it."""
        message.user_id = URL(self._world.servers.amqp_url).user or "guest"
        message.delivery_mode = aio_pika.DeliveryMode.PERSISTENT
        while True:
            channel = None
            try:
                async with asyncio.timeout(5):
                    channel = await self._open()
                    exchange = await channel.get_exchange(self._world.names.publish, ensure=False)
                    await exchange.publish(message, "campaign", mandatory=True)
            except (OSError, TimeoutError, RuntimeError, aio_pika.exceptions.AMQPError):
                if channel is self._channel:  # else somebody has connected anew already
                    await self.close()
                await asyncio.sleep(0.3)
            else:
                return

    async def close(self) -> None:
        """Leave; the next one to publish connects anew."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            with suppress(OSError, TimeoutError, RuntimeError, aio_pika.exceptions.AMQPError):
                await asyncio.wait_for(connection.close(), 2)

    async def _open(self) -> AbstractChannel:
        async with self._turn:
            if self._channel is None or self._channel.is_closed:
                self._connection = await aio_pika.connect(self._world.servers.amqp_url)
                self._channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
            return self._channel
