"""A broker in trouble: short of memory, silent, restarted, wiped, or tidied by somebody; nothing waits for ever."""

import asyncio
from contextlib import suppress
from time import monotonic

import aio_pika
import pytest

from deploy.stack.rabbitmq import LocalRabbitMQ
from deploy.stack.servers import Servers
from libs.common.rabbitmq import broker as broker_module
from libs.common.rabbitmq import connection as connection_module
from libs.common.rabbitmq.broker import Broker
from libs.common.rabbitmq.connection import BrokerUnavailableError
from libs.common.rabbitmq.consuming import Consumer, Incoming
from libs.common.rabbitmq.publishing import Outgoing
from libs.common.rabbitmq.topology import Names
from tests.conftest import Amqp
from tests.integration.rabbitmq.line import cable, connected, raw_channel

DEADLINE_SECONDS = 0.5
"""Instead of the real one, which is longer."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "PUBLISH_SECONDS", DEADLINE_SECONDS)
    monkeypatch.setattr(connection_module, "CLOSE_SECONDS", DEADLINE_SECONDS)


@pytest.fixture
def local(servers: Servers) -> LocalRabbitMQ:
    if not isinstance(servers.broker, LocalRabbitMQ):
        pytest.skip("the broker is none that this run started from its binaries")
    return servers.broker


class Taken:
    """A consumer's messages."""

    def __init__(self) -> None:
        self.bodies: asyncio.Queue[bytes] = asyncio.Queue()

    async def take(self, message: Incoming) -> None:
        message.ack()
        await self.bodies.put(message.body)

    async def next(self) -> bytes:
        return await asyncio.wait_for(self.bodies.get(), 10)


async def publish(broker: Broker, body: bytes = b"") -> None:
    names = broker.names
    await broker.publish(names.messages, body, routing_key=names.messages_queue, content_type="x/x", mandatory=True)


async def published_in_the_end(broker: Broker, body: bytes) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                return await publish(broker, body)
            except BrokerUnavailableError:
                await asyncio.sleep(0.05)


async def refused(broker: Broker, *, within: float = 3 * DEADLINE_SECONDS) -> None:
    began = monotonic()
    with pytest.raises(BrokerUnavailableError):
        await publish(broker)
    assert monotonic() - began < within
    began = monotonic()
    with pytest.raises(BrokerUnavailableError):
        await broker.publish_many(broker.names.deliveries, [Outgoing(routing_key="x", body=b"")], content_type="x/x")
    assert monotonic() - began < within


async def test_a_publish_into_an_alarm_meets_its_deadline_and_consuming_goes_on(
    amqp: Amqp, local: LocalRabbitMQ
) -> None:
    names = Names(amqp.prefix)
    in_hand: asyncio.Queue[Incoming] = asyncio.Queue()
    consumer = Consumer(handle=in_hand.put, queue=names.messages_queue, prefetch=1)
    async with connected(amqp, consumer) as broker:
        await publish(broker, b"1")
        await publish(broker, b"2")
        first = await asyncio.wait_for(in_hand.get(), 10)
        await asyncio.to_thread(local.control, "set_vm_memory_high_watermark", "0.0000001")
        try:
            async with asyncio.timeout(10):
                while not broker._publishing.blocked:
                    with suppress(BrokerUnavailableError):  # the one that the broker blocks the connection for
                        await broker.publish(names.accepted, b"", routing_key="any", content_type="x/x")
            await refused(broker)
            first.ack()
            second = await asyncio.wait_for(in_hand.get(), 10)  # the acknowledgement got through
            second.ack()
            assert second.body == b"2"
            assert broker.ready
        finally:
            await asyncio.to_thread(local.control, "set_vm_memory_high_watermark", "absolute", "1GiB")
        await published_in_the_end(broker, b"after")
        assert (await asyncio.wait_for(in_hand.get(), 10)).body == b"after"
        async with raw_channel(amqp) as channel:
            await channel.queue_delete(names.messages_queue)


async def test_a_silent_broker_is_given_up_for_a_new_connection_and_nobody_waits_longer(amqp: Amqp) -> None:
    taken = Taken()
    consumer = Consumer(handle=taken.take, queue=Names(amqp.prefix).messages_queue)
    async with cable(amqp) as line, connected(line.amqp, consumer) as broker:
        await publish(broker, b"before")
        assert await taken.next() == b"before"
        line.silence()
        results = await asyncio.gather(*(publish(broker) for _ in range(3)), return_exceptions=True)
        assert [type(result) for result in results] == [BrokerUnavailableError] * 3
        await published_in_the_end(broker, b"after")
        assert await taken.next() == b"after"


async def test_what_is_in_flight_when_the_service_closes_ends_as_unconfirmed(amqp: Amqp) -> None:
    async with cable(amqp) as line, connected(line.amqp) as broker:
        line.silence()
        publishing = asyncio.create_task(publish(broker))
        await asyncio.sleep(0.05)
        broker.close()
        with pytest.raises(BrokerUnavailableError):
            await publishing


@pytest.mark.parametrize("what", ["exchange", "queue"])
async def test_what_somebody_deletes_is_declared_again_when_it_is_missed(amqp: Amqp, what: str) -> None:
    names = Names(amqp.prefix)
    async with connected(amqp) as broker, raw_channel(amqp) as channel:
        await (await channel.get_queue(names.messages_queue)).purge()
        if what == "exchange":
            await channel.exchange_delete(names.messages)
        else:
            await channel.queue_delete(names.messages_queue)
        with pytest.raises(BrokerUnavailableError):
            await publish(broker)
        await published_in_the_end(broker, b"after")
        assert (await channel.declare_queue(names.messages_queue, passive=True)).declaration_result.message_count == 1
        await channel.queue_delete(names.messages_queue)


async def test_what_nobody_misses_is_declared_again_too_and_queues_of_our_own_are_bound_to_it(
    amqp: Amqp, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(amqp.prefix)
    monkeypatch.setattr(broker_module, "DECLARE_SECONDS", 0.1)
    taken = Taken()
    async with connected(amqp, Consumer(handle=taken.take, exchange=names.registry)), raw_channel(amqp) as channel:
        await channel.exchange_delete(names.registry)
        await channel.exchange_delete(names.publish)
        await asyncio.sleep(0.3)
        exchange = await channel.get_exchange(names.registry)
        await exchange.publish(aio_pika.Message(b"heard"), "")
        assert await taken.next() == b"heard"
        await channel.get_exchange(names.publish)


async def test_after_a_broker_was_wiped_everything_is_declared_and_consumed_anew(
    amqp: Amqp, local: LocalRabbitMQ
) -> None:
    taken = Taken()
    consumer = Consumer(handle=taken.take, queue=Names(amqp.prefix).messages_queue)
    async with connected(amqp, consumer) as broker:
        local.kill()
        await asyncio.to_thread(local.wipe)
        await refused(broker)
        assert not broker.ready
        await asyncio.to_thread(local.start)
        await published_in_the_end(broker, b"after")
        assert await taken.next() == b"after"


async def test_from_a_queue_that_does_not_count_what_fails_twice_is_put_aside(amqp: Amqp) -> None:
    names = Names(amqp.prefix)
    tries = 0
    parked = Taken()

    async def fail(_: Incoming) -> None:
        nonlocal tries
        tries += 1
        raise RuntimeError("this envelope again")

    consumers = Consumer(handle=fail, queue=names.messages_queue), Consumer(handle=parked.take, queue=names.dead)
    async with connected(amqp, *consumers) as broker:
        await publish(broker, b"cursed")
        assert await parked.next() == b"cursed"
    assert tries == 2
