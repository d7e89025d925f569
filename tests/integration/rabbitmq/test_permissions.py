"""Least power on the broker: each service has its own exchanges and queues, a producer one exchange to write to."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import get_args

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aiormq.exceptions import ChannelAccessRefused
from yarl import URL

from deploy import broker_users
from deploy.stack.rabbitmq import LocalRabbitMQ
from deploy.stack.servers import Servers
from libs.common.rabbitmq.broker import Broker
from libs.common.rabbitmq.consuming import Consumer
from libs.common.rabbitmq.topology import Names, Service
from services.admin.dead_letters import dead_letters_of
from tests.conftest import Amqp
from tests.integration.rabbitmq.line import raw_channel

SERVICES: tuple[Service, ...] = get_args(Service)
WRITES = {
    "hookledger-ingress": {"messages", "dead"},
    "hookledger-dispatcher": {"deliveries", "accepted", "dead"},
    "hookledger-registry": {"registry", "dead"},
    "hookledger-operator": {"redrive"},
    "hookledger-producer": {"publish"},
}
CONSUMES = {
    "hookledger-ingress": {"publish_queue", "dead"},
    "hookledger-dispatcher": {"messages_queue", "dead"},
    "hookledger-registry": {"dead"},
    "hookledger-operator": {"dead"},
    "hookledger-producer": set[str](),
}
EXCHANGES = ("publish", "redrive", "messages", "registry", "deliveries", "accepted", "dead")
QUEUES = ("publish_queue", "messages_queue", "dead")


@dataclass(frozen=True, slots=True, kw_only=True)
class Users:
    """The broker's users for one prefix of names."""

    amqp: Amqp
    passwords: dict[str, str]

    def as_user(self, name: str) -> Amqp:
        """The corner, as that user sees it."""
        return replace(self.amqp, url=str(URL(self.amqp.url).with_user(name).with_password(self.passwords[name])))


@pytest.fixture(scope="module")
def users(servers: Servers, amqp: Amqp, tmp_path_factory: pytest.TempPathFactory) -> Users:
    """deploy/rabbitmq/definitions.json with passwords, for this module's prefix, imported as an operator does."""
    broker = servers.broker
    if not isinstance(broker, LocalRabbitMQ):
        pytest.skip("this needs a RabbitMQ of its own: users are the whole server's")
    passwords = {name: secrets.token_hex(8) for name in broker_users.users(Names(amqp.prefix))}
    file = tmp_path_factory.mktemp("broker") / "definitions.json"
    file.write_text(json.dumps(broker_users.definitions(Names(amqp.prefix), passwords)))
    broker.control("import_definitions", str(file))
    return Users(amqp=amqp, passwords=passwords)


@pytest.fixture
async def declared(users: Users) -> AsyncIterator[Users]:
    """With everything declared."""
    async with ready(users.amqp, None):
        yield users


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


def own_consumers(service: Service, names: Names) -> tuple[Consumer, ...]:
    """What the service consumes."""

    async def handle(message: AbstractIncomingMessage) -> None:
        await message.ack()

    announcements = Consumer(handle=handle, exchange=names.registry)
    return {
        "ingress": (Consumer(handle=handle, queue=names.publish_queue), announcements),
        "dispatcher": (Consumer(handle=handle, queue=names.messages_queue), announcements),
        "registry": (),
    }[service]


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_declares_and_consumes_on_a_bare_broker_with_its_own_user(
    users: Users, service: Service
) -> None:
    names = Names(users.amqp.prefix)
    async with raw_channel(users.amqp) as channel:
        for name in QUEUES:
            await channel.queue_delete(getattr(names, name))
        for name in EXCHANGES:
            await channel.exchange_delete(getattr(names, name))
    async with ready(users.as_user(f"hookledger-{service}"), service, *own_consumers(service, names)) as broker:
        assert broker.ready


async def allowed(
    connection: AbstractConnection, act: Callable[[AbstractChannel, str], Awaitable[None]], name: str
) -> bool:
    """Whether the broker lets this user do it."""
    channel = await connection.channel()
    try:
        await act(channel, name)
        await channel.close()
    except ChannelAccessRefused:
        return False
    return True


async def publish(channel: AbstractChannel, exchange: str) -> None:
    target = await channel.get_exchange(exchange, ensure=False)
    await target.publish(aio_pika.Message(b""), "nowhere", mandatory=False)


async def take(channel: AbstractChannel, queue: str) -> None:
    await (await channel.get_queue(queue, ensure=False)).get(fail=False)


async def make(channel: AbstractChannel, queue: str) -> None:
    await channel.declare_queue(queue, auto_delete=True)


@pytest.mark.parametrize("user", WRITES)
async def test_a_user_publishes_and_consumes_what_is_its_own_and_nothing_else(declared: Users, user: str) -> None:
    names = Names(declared.amqp.prefix)

    async with await aio_pika.connect(declared.as_user(user).url) as connection:
        writes = {name for name in EXCHANGES if await allowed(connection, publish, getattr(names, name))}
        reads = {name for name in QUEUES if await allowed(connection, take, getattr(names, name))}
        makes = {name for name in ("other", f"{names.prefix}.other") if await allowed(connection, make, name)}
    assert (writes, reads, makes) == (WRITES[user], CONSUMES[user], set())


async def test_the_operators_user_looks_through_the_dead_letters(declared: Users) -> None:
    names = Names(declared.amqp.prefix)
    async with dead_letters_of(declared.as_user("hookledger-operator").url, names) as letters:
        found, count = await letters.oldest(10)
    assert len(found) == count


def test_the_file_is_what_the_code_says_now() -> None:
    assert broker_users.FILE.read_text() == broker_users.text(), "stale: run `make configuration`"
