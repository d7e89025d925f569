"""The broker from a producer's and a consumer's side."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aio_pika
import orjson
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractIncomingMessage
from yarl import URL

from deploy import broker_users
from deploy.stack.isolation import Isolation
from deploy.stack.rabbitmq import LocalRabbitMQ
from libs.common.rabbitmq.topology import Names
from tests.support.patience import PATIENCE_SECONDS

CLOUD_EVENT = "application/cloudevents+json"


def give_users(broker: LocalRabbitMQ, names: Names, folder: Path) -> dict[str, str]:
    """Make the users of deploy/rabbitmq/permissions.json, which may do what it says under these names; passwords."""
    passwords = {name: secrets.token_hex(16) for name in broker_users.users(names)}
    users = [{"name": name, "tags": [], "password": password} for name, password in passwords.items()]
    file = folder / "definitions.json"
    file.write_text(json.dumps({"users": users} | broker_users.permissions(names)))
    broker.control("import_definitions", str(file))
    return passwords


def cloud_event(app: str, event_type: str, data: Any, *, id: str, source: str = "/tests") -> dict[str, Any]:  # noqa: A002
    """A CloudEvent for an application."""
    return {
        "specversion": "1.0",
        "id": id,
        "source": source,
        "type": event_type,
        "hookledgerapp": app,
        "datacontenttype": "application/json",
        "data": data,
    }


@dataclass(slots=True)
class Heard:
    """What came to a queue of the test's own."""

    contains: bytes = b""
    messages: list[AbstractIncomingMessage] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def wait_for(self, count: int, *, within: float = PATIENCE_SECONDS) -> Sequence[AbstractIncomingMessage]:
        """The messages, as soon as there are `count`.

        Raises:
            AssertionError: there were fewer after `within` seconds.
        """
        try:
            async with asyncio.timeout(within), self.changed:
                await self.changed.wait_for(lambda: len(self.messages) >= count)
        except TimeoutError:
            raise AssertionError(f"{len(self.messages)} of {count} messages came within {within:.0f} s") from None
        return self.messages

    async def take(self, message: AbstractIncomingMessage) -> None:
        """Keep a message, if it is one of those that are listened for."""
        if self.contains not in message.body:
            return
        async with self.changed:
            self.messages.append(message)
            self.changed.notify_all()


class Producer:
    """Publishes as a team's own service does: persistent, mandatory, confirmed."""

    def __init__(self, channel: AbstractChannel, exchange: AbstractExchange, names: Names, user: str) -> None:
        self.names = names
        self._channel = channel
        self._exchange = exchange
        self._user = user

    async def publish(self, body: bytes, *, content_type: str = CLOUD_EVENT, user: str | None = "") -> None:
        """Publish bytes; an empty `user` stands for the connection's own."""
        message = aio_pika.Message(
            body,
            content_type=content_type,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            user_id=self._user if user == "" else user,
        )
        await self._exchange.publish(message, routing_key="tests", mandatory=True, timeout=PATIENCE_SECONDS)

    async def publish_event(self, event: dict[str, Any]) -> None:
        """Publish a CloudEvent."""
        await self.publish(orjson.dumps(event))

    async def listen(self, exchange: str, key: str = "#", *, contains: str = "") -> Heard:
        """Bind a queue to an exchange and keep what comes, such as all that `contains` an application's id."""
        queue = await self._channel.declare_queue(exclusive=True)
        await queue.bind(exchange, key)
        heard = Heard(contains=contains.encode())
        await queue.consume(heard.take, no_ack=True)
        return heard


@asynccontextmanager
async def producing(corner: Isolation) -> AsyncIterator[Producer]:
    """A connection to the broker under the user of the URL."""
    names = Names(corner.amqp_prefix)
    connection = await aio_pika.connect(corner.amqp_url, timeout=PATIENCE_SECONDS)
    async with connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        exchange = await channel.get_exchange(names.publish, ensure=False)
        yield Producer(channel, exchange, names, URL(corner.amqp_url).user or "guest")
