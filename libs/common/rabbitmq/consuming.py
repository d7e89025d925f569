"""Consuming: what a service does with a message, and what becomes of one that it cannot take."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from aio_pika.abc import AbstractChannel, AbstractQueue
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from pamqp.commands import Basic

from libs.common.rabbitmq import frames
from libs.common.rabbitmq.connection import CONNECTION_ERRORS
from libs.common.rabbitmq.wire import Wire
from libs.common.runtime.logs import logger

_LOG: Final = logger("broker")
AGAIN_SECONDS: Final = 0.1
"""A message whose handling raised goes back after this pause, so that it does not go round as fast as it can."""


class Incoming:
    """A message that came, to be settled once: acknowledged, or given back, or put aside.

    Attributes:
        body: its bytes.
        redelivered: whether it was delivered before.
        exchange: that it was published to.
        routing_key: that it was published with.
        settled: whether the broker was told what became of it.
    """

    def __init__(self, channel: "_Taken", delivery: frames.Delivery, header: bytes, body: bytes) -> None:
        self.body = body
        self.redelivered = delivery.redelivered
        self.exchange = delivery.exchange
        self.routing_key = delivery.routing_key
        self.settled = False
        self._channel = channel
        self._tag = delivery.tag
        self._header = header

    @property
    def lost(self) -> bool:
        """Whether its channel has closed: the broker puts it back by itself."""
        return self._channel.closed

    @cached_property
    def properties(self) -> Basic.Properties:
        """What its sender said of it, and the broker's word for its sender."""
        return frames.properties(self._header)

    @property
    def headers(self) -> Mapping[str, Any]:
        """Its sender's."""
        return self.properties.headers or {}

    def ack(self) -> None:
        """Acknowledge it: it is taken.

        Raises:
            ConnectionAbortedError: its channel has closed; it comes again.
        """
        self._settle(frames.ACK)

    def nack(self, *, requeue: bool) -> None:
        """Give it back, or let the broker put it aside.

        Raises:
            ConnectionAbortedError: its channel has closed; it comes again.
        """
        self._settle(frames.NACK, requeue=requeue)

    def _settle(self, method: bytes, *, requeue: bool = False) -> None:
        assert not self.settled, "a second answer would close the channel"
        self._channel.settle(method, self._tag, requeue=requeue)
        self.settled = True


Handle = Callable[[Incoming], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumer:
    """A queue to consume. Without a name it is an exclusive one of this process, bound to `exchange`.

    Attributes:
        handle: acknowledges or gives back each message itself; what it raises is logged, and the message goes back.
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


async def consume(
    wire: Wire, channel: AbstractChannel, consumer: Consumer, cancelled: Callable[[], None]
) -> Consumption:
    """Begin to consume.

    Args:
        wire: of the channel's connection.
        channel: of this consumer alone.
        consumer: what to do.
        cancelled: called when the broker ends it: without closing the channel, when its queue is deleted or moves.
    """
    await channel.set_qos(prefetch_count=consumer.prefetch)
    underlying = await channel.get_underlay_channel()
    assert isinstance(underlying, Channel)
    underlying.on_consumer_cancel_callbacks.add(lambda _: cancelled())
    if consumer.queue is not None:
        queue = await channel.get_queue(consumer.queue, ensure=False)
    else:
        assert consumer.exchange is not None
        queue = await channel.declare_queue(exclusive=True, auto_delete=True)
        await queue.bind(consumer.exchange)
    _Taken(wire, underlying, consumer, queue.name)
    begun = await underlying.basic_consume(queue.name, _passed_over)
    assert begun.consumer_tag is not None
    exchange = consumer.exchange if consumer.queue is None else None
    return Consumption(channel=channel, queue=queue, tag=begun.consumer_tag, exchange=exchange)


async def _passed_over(message: DeliveredMessage) -> None:
    raise AssertionError(f"{message} was left to aiormq")


class _Taken:
    """The messages of a channel, taken off its connection's wire; each is handled by a task."""

    def __init__(self, wire: Wire, channel: Channel, consumer: Consumer, queue: str) -> None:
        self.closed = False
        self._wire = wire
        self._number = channel.number
        self._consumer = consumer
        self._queue = queue
        self._delivery: frames.Delivery | None = None
        self._header = b""
        self._pieces: list[bytes] = []
        self._left = 0
        self._tasks: set[asyncio.Task[None]] = set()
        wire.take(channel.number, self._take)
        channel.closing.add_done_callback(self._end)

    def settle(self, method: bytes, tag: int, *, requeue: bool) -> None:
        """Tell the broker what becomes of a message.

        Raises:
            ConnectionAbortedError: the channel has closed.
        """
        if self.closed:
            raise ConnectionAbortedError("the channel has closed")
        self._wire.write(frames.settling(self._number, method, tag, requeue=requeue))

    def _take(self, kind: int, payload: bytes) -> bool:
        """Put a delivered message together; anything else is aiormq's."""
        if kind == frames.METHOD:
            if not payload.startswith(frames.DELIVER):
                return False
            self._delivery = frames.delivery(payload)
            return True
        if self._delivery is None:
            return False
        if kind == frames.HEADER:
            self._header, self._left = payload, frames.size(payload)
        else:
            self._pieces.append(payload)
            self._left -= len(payload)
        if self._left <= 0:
            body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            self._begin(Incoming(self, self._delivery, self._header, body))
            self._delivery, self._pieces = None, []
        return True

    def _begin(self, message: Incoming) -> None:
        task = asyncio.create_task(self._handle(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(self, message: Incoming) -> None:
        try:
            await self._consumer.handle(message)
        except Exception as error:  # noqa: BLE001  a task's boundary: the message goes back, and in the end aside
            if self.closed:
                _LOG.info("broker.handling_interrupted", queue=self._queue, reason=str(error))
                return
            _LOG.exception("broker.handling_failed", queue=self._queue)
            if not message.settled:
                await asyncio.sleep(AGAIN_SECONDS)
                with suppress(*CONNECTION_ERRORS):  # then the server puts it back by itself
                    message.nack(requeue=self._consumer.limited or not message.redelivered)

    def _end(self, _: "asyncio.Future[object]") -> None:
        """The channel has closed: what is in hand comes again, so nobody goes on with it."""
        self.closed = True
        self._wire.leave(self._number)
        for task in self._tasks:
            task.cancel()
