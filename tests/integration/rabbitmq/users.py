"""The broker's users: what each shall be able to do, and what the broker lets it do."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, get_args

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq.exceptions import ChannelAccessRefused
from yarl import URL

from libs.common.rabbitmq.broker import Broker
from libs.common.rabbitmq.consuming import Consumer, Incoming
from libs.common.rabbitmq.topology import Names, Service
from tests.conftest import Amqp

SERVICES: Final[tuple[Service, ...]] = get_args(Service)
WRITES: Final = {
    "hookledger-ingress": {"messages", "dead"},
    "hookledger-dispatcher": {"deliveries", "accepted", "dead"},
    "hookledger-registry": {"registry", "dead"},
    "hookledger-operator": {"redrive"},
    "hookledger-producer": {"publish"},
}
CONSUMES: Final = {
    "hookledger-ingress": {"publish_queue", "dead"},
    "hookledger-dispatcher": {"messages_queue", "dead"},
    "hookledger-registry": {"dead"},
    "hookledger-operator": {"dead"},
    "hookledger-producer": set[str](),
}
EXCHANGES: Final = ("publish", "redrive", "messages", "registry", "deliveries", "accepted", "dead")
QUEUES: Final = ("publish_queue", "messages_queue", "dead")


def logged_in(url: str, user: str, password: str) -> str:
    """The URL with another user."""
    return str(URL(url).with_user(user).with_password(password))


@asynccontextmanager
async def ready(amqp: Amqp, service: Service | None, *consumers: Consumer) -> AsyncIterator[Broker]:
    """A service's broker, connected."""
    connected = asyncio.Event()

    async def on_connected() -> None:
        connected.set()

    broker = Broker(amqp.url, Names(amqp.prefix), "test", service=service, consumers=consumers, connected=on_connected)
    running = asyncio.create_task(broker.run())
    try:
        await asyncio.wait_for(connected.wait(), 10)
        yield broker
    finally:
        broker.close()
        await asyncio.wait_for(running, 10)


Took = Callable[[str, Incoming], None]


def own_consumers(service: Service, names: Names, took: Took = lambda *_: None) -> tuple[Consumer, ...]:
    """What the service consumes; `took` is told of each message, with the exchange or queue that it came by."""

    def taking(place: str) -> Callable[[Incoming], Awaitable[None]]:
        async def handle(message: Incoming) -> None:
            message.ack()
            took(place, message)

        return handle

    announcements = Consumer(handle=taking(names.registry), exchange=names.registry)
    return {
        "ingress": (Consumer(handle=taking(names.publish_queue), queue=names.publish_queue), announcements),
        "dispatcher": (Consumer(handle=taking(names.messages_queue), queue=names.messages_queue), announcements),
        "registry": (),
    }[service]


async def powers(url: str, names: Names) -> tuple[set[str], set[str], set[str]]:
    """Which exchanges the URL's user publishes to, which queues it takes from, and what it may declare of its own."""
    async with await aio_pika.connect(url) as connection:
        writes = {name for name in EXCHANGES if await _allowed(connection, _publish, getattr(names, name))}
        reads = {name for name in QUEUES if await _allowed(connection, _take, getattr(names, name))}
        makes = {name for name in ("other", f"{names.prefix}.other") if await _allowed(connection, _make, name)}
    return writes, reads, makes


async def _allowed(
    connection: AbstractConnection, act: Callable[[AbstractChannel, str], Awaitable[None]], name: str
) -> bool:
    channel = await connection.channel()
    try:
        await act(channel, name)
        await channel.close()
    except ChannelAccessRefused:
        return False
    return True


async def _publish(channel: AbstractChannel, exchange: str) -> None:
    target = await channel.get_exchange(exchange, ensure=False)
    await target.publish(aio_pika.Message(b""), "nowhere", mandatory=False)


async def _take(channel: AbstractChannel, queue: str) -> None:
    await (await channel.get_queue(queue, ensure=False)).get(fail=False)


async def _make(channel: AbstractChannel, queue: str) -> None:
    await channel.declare_queue(queue, auto_delete=True)
