"""Consuming: what a service does with a message, and what becomes of one that it cannot take."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue

from libs.common.rabbitmq.connection import CONNECTION_ERRORS
from libs.common.runtime.logs import logger

_LOG: Final = logger("broker")
AGAIN_SECONDS: Final = 0.1
"""A message whose handling raised goes back after this pause, so that it does not go round as fast as it can."""

Handle = Callable[[AbstractIncomingMessage], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumer:
    """A queue to consume. Without a name it is an exclusive one of this process, bound to `exchange`.

    Attributes:
        handle: acknowledges or rejects each message itself; what it raises is logged, and the message goes back.
        limited: whether the queue itself parks what comes back too often. Only quorum queues count: from another queue
            a message that was delivered before and whose handling raises is rejected, or it would go round for ever.
    """

    handle: Handle
    queue: str | None = None
    exchange: str | None = None
    prefetch: int = 32
    limited: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumption:
    """A consumer at work on a connection."""

    channel: AbstractChannel
    queue: AbstractQueue
    tag: str
    exchange: str | None

    async def bind(self) -> None:
        """Bind the queue again, where it is this process's own: with its exchange its binding is lost."""
        if self.exchange is not None:
            await self.queue.bind(self.exchange)

    async def cancel(self) -> None:
        """Take no more messages; those in hand can still be acknowledged."""
        underlying = await self.channel.get_underlay_channel()
        await underlying.basic_cancel(self.tag)


async def consume(channel: AbstractChannel, consumer: Consumer, cancelled: Callable[[], None]) -> Consumption:
    """Begin to consume.

    Args:
        channel: of this consumer alone.
        consumer: what to do.
        cancelled: called when the broker ends it: without closing the channel, when its queue is deleted or moves.
    """
    await channel.set_qos(prefetch_count=consumer.prefetch)
    underlying = await channel.get_underlay_channel()
    underlying.on_consumer_cancel_callbacks.add(lambda _: cancelled())
    if consumer.queue is not None:
        queue = await channel.get_queue(consumer.queue, ensure=False)
    else:
        assert consumer.exchange is not None
        queue = await channel.declare_queue(exclusive=True, auto_delete=True)
        await queue.bind(consumer.exchange)

    async def handle(message: AbstractIncomingMessage) -> None:
        try:
            await consumer.handle(message)
        except Exception as error:  # noqa: BLE001  a task's boundary: the message goes back, and in the end aside
            if channel.is_closed:
                _LOG.info("broker.handling_interrupted", queue=queue.name, reason=str(error))
                return
            _LOG.exception("broker.handling_failed", queue=queue.name)
            if not message.processed:
                await _give_back(message, again=consumer.limited or not message.redelivered)

    exchange = consumer.exchange if consumer.queue is None else None
    return Consumption(channel=channel, queue=queue, tag=await queue.consume(handle), exchange=exchange)


async def _give_back(message: AbstractIncomingMessage, *, again: bool) -> None:
    await asyncio.sleep(AGAIN_SECONDS)
    with suppress(*CONNECTION_ERRORS):  # then the server puts it back by itself
        await message.nack(requeue=again)
