"""What is on the broker outlives its restart: each queue and exchange, and each message that somebody relies on.

Announcements of changes are left out: their queues belong to one process and end with it, and the fence does not need them.
"""

import asyncio

import aio_pika
import pytest
from aio_pika import DeliveryMode, ExchangeType
from aiormq.exceptions import ChannelPreconditionFailed

from libs.common.rabbitmq.topology import Names
from tests.support.broker import Heard, producing
from tests.support.client import Client
from tests.support.platform import Platform
from tests.support.receiver import Receiver

QUEUES = ("publish_queue", "messages_queue", "dead")
EXCHANGES = {
    "publish": ExchangeType.TOPIC,
    "messages": ExchangeType.DIRECT,
    "registry": ExchangeType.FANOUT,
    "deliveries": ExchangeType.TOPIC,
    "accepted": ExchangeType.TOPIC,
    "dead": ExchangeType.FANOUT,
    "redrive": ExchangeType.FANOUT,
}


def test_every_queue_and_exchange_is_looked_at() -> None:
    assert {name for name, each in vars(Names).items() if isinstance(each, property)} == {*QUEUES, *EXCHANGES}


async def test_every_queue_and_exchange_is_durable(platform: Platform) -> None:
    """A passive declaration does not tell; one as transient is refused, for that reason, by what is durable."""
    names = Names(platform.corner.amqp_prefix)
    async with await aio_pika.connect(platform.corner.amqp_url) as connection:
        for queue in QUEUES:
            with pytest.raises(ChannelPreconditionFailed, match="inequivalent arg 'durable'"):
                await (await connection.channel()).declare_queue(getattr(names, queue), durable=False)
        for exchange, kind in EXCHANGES.items():
            with pytest.raises(ChannelPreconditionFailed, match="inequivalent arg 'durable'"):
                await (await connection.channel()).declare_exchange(getattr(names, exchange), kind, durable=False)


async def test_every_message_that_somebody_relies_on_is_persistent(
    platform: Platform, client: Client, receiver: Receiver
) -> None:
    app = await client.create_application(publishAccepted=True)
    await client.create_endpoint(app, receiver.script("/", 410))
    async with producing(platform.corner) as producer:
        names = producer.names
        heard: dict[str, Heard] = {
            "envelopes": await producer.listen(names.messages, names.messages_queue),
            "accepted messages": await producer.listen(names.accepted),
            "outcomes": await producer.listen(names.deliveries),
            "dead letters": await producer.listen(names.dead),
        }
        await client.send(app, "ping", {})
        await producer.publish(b"no event at all")
        await asyncio.gather(*(each.wait_for(1) for each in heard.values()))
    modes = {what: {message.delivery_mode for message in each.messages} for what, each in heard.items()}
    assert modes == {what: {DeliveryMode.PERSISTENT} for what in heard}
