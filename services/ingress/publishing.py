"""Telling the dispatchers of what was committed, off the answer's path.

An envelope may be lost, since the outbox row is the durability: so nothing here waits for the broker, and what cannot
be published now is left to the dispatcher that takes overdue rows.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Sequence
from typing import Final

from libs.common.contracts import envelope
from libs.common.domain.message import Message
from libs.common.rabbitmq.broker import Broker
from libs.common.rabbitmq.connection import BrokerUnavailableError
from libs.common.runtime.failpoints import Failpoint, reach
from libs.common.runtime.logs import logger
from services.ingress import metrics

_LOG: Final = logger("envelopes")
IN_FLIGHT: Final = 4
MAX_WAITING_MESSAGES: Final = 16 * envelope.MAX_MESSAGES
MAX_WAITING_BYTES: Final = 16 * envelope.MAX_BYTES


class EnvelopePublisher:
    """Publishes committed messages, at most `IN_FLIGHT` envelopes at a time."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._waiting: deque[Message] = deque()
        self._waiting_bytes = 0
        self._in_flight = 0
        self._confirming = asyncio.TaskGroup()
        self._stopping = asyncio.Event()
        self._runs = False

    def offer(self, messages: Sequence[Message]) -> None:
        """Publish these, while `run` does: at once, or after those that are in flight.

        Where the broker is away or behind, or this service about to end, leave them to the outbox: they are committed,
        and whoever sent them is to hear so.
        """
        size = sum(len(message.body) for message in messages)
        full = len(self._waiting) + len(messages) > MAX_WAITING_MESSAGES
        if not self._runs or not self._broker.ready or full or self._waiting_bytes + size > MAX_WAITING_BYTES:
            metrics.LEFT_TO_OUTBOX.inc(len(messages))
            return
        self._waiting.extend(messages)
        self._waiting_bytes += size
        self._publish_on()

    async def run(self) -> None:
        """Publish until `stop`, then what is left."""
        try:
            async with self._confirming:
                self._runs = True
                await self._stopping.wait()
        finally:
            self._runs = False

    def stop(self) -> None:
        """End `run` when nothing waits any more."""
        self._stopping.set()

    def _publish_on(self) -> None:
        while self._waiting and self._in_flight < IN_FLIGHT:
            messages = next(envelope.pack(self._waiting))
            for message in messages:
                self._waiting.popleft()
                self._waiting_bytes -= len(message.body)
            self._publish(messages)

    def _publish(self, messages: Sequence[Message]) -> None:
        names = self._broker.names
        body = envelope.encode(messages)
        try:
            confirmed = self._broker.publish(
                names.messages,
                body,
                routing_key=names.messages_queue,
                content_type=envelope.CONTENT_TYPE,
                mandatory=True,
            )
        except BrokerUnavailableError as error:
            _leave_to_outbox(messages, error)
        else:
            self._in_flight += 1
            self._confirming.create_task(self._confirm(messages, len(body), confirmed))

    async def _confirm(self, messages: Sequence[Message], size: int, confirmed: Awaitable[object]) -> None:
        metrics.ENVELOPE_MESSAGES.observe(len(messages))
        metrics.ENVELOPE_BYTES.observe(size)
        try:
            await confirmed
        except BrokerUnavailableError as error:
            _leave_to_outbox(messages, error)
        else:
            reach(Failpoint.ENVELOPE_CONFIRMED)
            metrics.ENVELOPES.labels("confirmed").inc()
        self._in_flight -= 1
        self._publish_on()


def _leave_to_outbox(messages: Sequence[Message], error: BrokerUnavailableError) -> None:
    metrics.ENVELOPES.labels("unconfirmed").inc()
    metrics.LEFT_TO_OUTBOX.inc(len(messages))
    _LOG.warning("envelope.unconfirmed", messages=len(messages), reason=str(error))
