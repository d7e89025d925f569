"""What is declared on the broker, in one place.

publish (topic) ───▶ publish.ingress (quorum)       producers' CloudEvents
redrive (fanout) ──▶ publish.ingress                dead ones of these again; no producer may write to it
messages (direct) ─▶ messages.dispatcher (classic)  envelopes; the outbox is their durability
registry (fanout) ─▶ one exclusive queue a process  announcements of changes
deliveries (topic) ▶ whoever binds a queue          outcomes
accepted (topic) ──▶ whoever binds a queue          accepted messages
dead (fanout) ─────▶ dead (quorum)                  what could not be handled, with its reason
"""

from dataclasses import dataclass
from typing import Final, Literal

from aio_pika import ExchangeType
from aio_pika.abc import AbstractChannel
from pamqp.common import FieldTable

from libs.common.runtime.metrics import DEAD_LETTERS

DELIVERY_LIMIT: Final = 20
# Who looks through the dead letters takes them and gives them back, which counts as a delivery. RabbitMQ 3 has no limit
# unless it is told one; 4 drops after 20, unless it is told -1, which 3 refuses. Both take a number that is never met.
NO_DELIVERY_LIMIT: Final = 1_000_000_000
EVERYTHING: Final = "#"
Service = Literal["ingress", "dispatcher", "registry"]


@dataclass(frozen=True, slots=True)
class Names:
    """Exchanges and queues under a prefix, `hookledger` unless several platforms share a broker."""

    prefix: str

    @property
    def publish(self) -> str:
        """Exchange: what producers publish."""
        return f"{self.prefix}.publish"

    @property
    def publish_queue(self) -> str:
        """Queue: the same, for ingress."""
        return f"{self.prefix}.publish.ingress"

    @property
    def redrive(self) -> str:
        """Exchange: what producers published, once more. Who may write here speaks for any of them."""
        return f"{self.prefix}.redrive"

    @property
    def messages(self) -> str:
        """Exchange: envelopes."""
        return f"{self.prefix}.messages"

    @property
    def messages_queue(self) -> str:
        """Queue: envelopes, for the dispatchers."""
        return f"{self.prefix}.messages.dispatcher"

    @property
    def registry(self) -> str:
        """Exchange: announcements of registry changes."""
        return f"{self.prefix}.registry"

    @property
    def deliveries(self) -> str:
        """Exchange: outcomes."""
        return f"{self.prefix}.deliveries"

    @property
    def accepted(self) -> str:
        """Exchange: accepted messages, for a team's own services."""
        return f"{self.prefix}.accepted"

    @property
    def dead(self) -> str:
        """Exchange and queue: dead letters."""
        return f"{self.prefix}.dead"


async def declare(channel: AbstractChannel, names: Names, service: Service | None = None) -> None:
    """Declare what a service publishes to and consumes from, or everything.

    What two services use, both declare, the same way: none has to wait for the other. deploy/rabbitmq/permissions.json
    allows each user this and no more.
    """
    await _declare_dead(channel, names)
    if service in {"ingress", None}:
        await _declare_way_in(channel, names)
        await channel.declare_exchange(names.messages, ExchangeType.DIRECT, durable=True)
    if service in {"dispatcher", None}:
        await _declare_envelopes(channel, names)
        await channel.declare_exchange(names.deliveries, ExchangeType.TOPIC, durable=True)
        await channel.declare_exchange(names.accepted, ExchangeType.TOPIC, durable=True)
    await channel.declare_exchange(names.registry, ExchangeType.FANOUT, durable=True)


async def _declare_dead(channel: AbstractChannel, names: Names) -> None:
    await channel.declare_exchange(names.dead, ExchangeType.FANOUT, durable=True)
    unlimited: FieldTable = {"x-queue-type": "quorum", "x-delivery-limit": NO_DELIVERY_LIMIT}
    dead = await channel.declare_queue(names.dead, durable=True, arguments=unlimited)
    await dead.bind(names.dead)
    DEAD_LETTERS.set(dead.declaration_result.message_count or 0)


async def _declare_way_in(channel: AbstractChannel, names: Names) -> None:
    await channel.declare_exchange(names.publish, ExchangeType.TOPIC, durable=True)
    published = await channel.declare_queue(names.publish_queue, durable=True, arguments=_limits(names))
    await published.bind(names.publish, EVERYTHING)
    await channel.declare_exchange(names.redrive, ExchangeType.FANOUT, durable=True)
    await published.bind(names.redrive)


async def _declare_envelopes(channel: AbstractChannel, names: Names) -> None:
    await channel.declare_exchange(names.messages, ExchangeType.DIRECT, durable=True)
    envelopes = await channel.declare_queue(
        names.messages_queue,
        durable=True,
        arguments={"x-queue-type": "classic", "x-dead-letter-exchange": names.dead},
    )
    await envelopes.bind(names.messages, names.messages_queue)


def _limits(names: Names) -> FieldTable:
    return {
        "x-queue-type": "quorum",
        "x-delivery-limit": DELIVERY_LIMIT,
        "x-dead-letter-exchange": names.dead,
    }
