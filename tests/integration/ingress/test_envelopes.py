"""Envelopes leave ingress with the commit, a few at a time, and what is left when it stops goes, too."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import REGISTRY

from libs.common.contracts import envelope
from libs.common.domain.facts import Origin
from libs.common.domain.message import Message
from libs.common.rabbitmq.broker import Broker
from libs.common.rabbitmq.consuming import Consumer, Incoming
from libs.common.rabbitmq.topology import Names
from libs.common.runtime import clock
from services.ingress.publishing import IN_FLIGHT, EnvelopePublisher
from tests.conftest import Amqp
from tests.integration.rabbitmq.line import connected


def message() -> Message:
    return Message(
        id=clock.new_id(),
        org=clock.new_id(),
        app=clock.new_id(),
        event_type="a.b",
        body=b"{}",
        accepted_at=clock.now(),
        registry_version=1,
        origin=Origin.API,
    )


class Dispatcher:
    """Takes envelopes."""

    def __init__(self, names: Names) -> None:
        self.consumer = Consumer(handle=self._take, queue=names.messages_queue)
        self._came: asyncio.Queue[list[Message]] = asyncio.Queue()

    async def next(self) -> list[Message]:
        return await asyncio.wait_for(self._came.get(), 10)

    async def _take(self, incoming: Incoming) -> None:
        incoming.ack()
        await self._came.put(envelope.decode(incoming.body))


@asynccontextmanager
async def publishing(broker: Broker) -> AsyncIterator[EnvelopePublisher]:
    """A publisher that runs; when it is left, all that was offered is confirmed."""
    publisher = EnvelopePublisher(broker)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(publisher.run())
        await asyncio.sleep(0)
        yield publisher
        publisher.stop()


async def test_an_envelope_is_on_its_way_before_an_offer_returns(amqp: Amqp) -> None:
    dispatcher = Dispatcher(Names(amqp.prefix))
    async with connected(amqp, dispatcher.consumer) as broker, publishing(broker) as publisher:
        offered = [message(), message()]
        publisher.offer(offered)
        assert broker._publisher is not None
        assert len(broker._publisher._waiting) == 1
        assert await dispatcher.next() == offered


async def test_a_few_are_in_flight_and_what_waits_for_them_shares_an_envelope(amqp: Amqp) -> None:
    dispatcher = Dispatcher(Names(amqp.prefix))
    offered = [message() for _ in range(IN_FLIGHT + 3)]
    async with connected(amqp, dispatcher.consumer) as broker:
        async with publishing(broker) as publisher:
            for each in offered:
                publisher.offer([each])
        assert [await dispatcher.next() for _ in range(IN_FLIGHT + 1)] == [
            *([each] for each in offered[:IN_FLIGHT]),
            offered[IN_FLIGHT:],
        ]


async def test_what_the_broker_cannot_take_is_left_to_the_outbox_and_the_next_ones_go(amqp: Amqp) -> None:
    names = Names(amqp.prefix)
    dispatcher = Dispatcher(names)
    async with connected(amqp, dispatcher.consumer) as broker:
        nowhere = Broker(amqp.url, names, "test")
        async with publishing(nowhere) as publisher:
            publisher.offer([message()])  # and it ends, with nothing on its way
        async with publishing(broker) as publisher:
            publisher.offer([])
            publisher.offer([left := message()])
            assert await dispatcher.next() == [left]


async def test_what_is_offered_when_nothing_is_published_any_more_is_left_to_the_outbox(amqp: Amqp) -> None:
    def left() -> float:
        return REGISTRY.get_sample_value("hookledger_messages_left_to_outbox_total") or 0.0

    async with connected(amqp) as broker:
        async with publishing(broker) as publisher:
            pass
        before = left()
        publisher.offer([message(), message()])
        assert left() == before + 2
