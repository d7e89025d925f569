"""What is declared on the broker, in one place.

publish (topic) ───▶ publish.ingress (quorum)       producers' CloudEvents
messages (direct) ─▶ messages.dispatcher (classic)  envelopes; the outbox is their durability
registry (fanout) ─▶ one exclusive queue a process  announcements of changes
deliveries (topic) ▶ deliveries.registry (quorum)   outcomes, and whoever else binds a queue
accepted (topic) ──▶ whoever binds a queue          accepted messages
dead (fanout) ─────▶ dead (quorum)                  what could not be handled, with its reason
"""

from dataclasses import dataclass
from typing import Final

from aio_pika import ExchangeType
from aio_pika.abc import AbstractChannel
from pamqp.common import FieldTable

DELIVERY_LIMIT: Final = 20
EVERYTHING: Final = "#"


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
    def deliveries_queue(self) -> str:
        """Queue: outcomes that the registry acts on."""
        return f"{self.prefix}.deliveries.registry"

    @property
    def accepted(self) -> str:
        """Exchange: accepted messages, for a team's own services."""
        return f"{self.prefix}.accepted"

    @property
    def dead(self) -> str:
        """Exchange and queue: dead letters."""
        return f"{self.prefix}.dead"


async def declare(channel: AbstractChannel, names: Names) -> None:
    """Declare everything; the same from every service, so that none has to wait for another."""
    await channel.declare_exchange(names.dead, ExchangeType.FANOUT, durable=True)
    dead = await channel.declare_queue(names.dead, durable=True, arguments={"x-queue-type": "quorum"})
    await dead.bind(names.dead)

    limits: FieldTable = {
        "x-queue-type": "quorum",
        "x-delivery-limit": DELIVERY_LIMIT,
        "x-dead-letter-exchange": names.dead,
    }
    await channel.declare_exchange(names.publish, ExchangeType.TOPIC, durable=True)
    published = await channel.declare_queue(names.publish_queue, durable=True, arguments=limits)
    await published.bind(names.publish, EVERYTHING)

    await channel.declare_exchange(names.messages, ExchangeType.DIRECT, durable=True)
    envelopes = await channel.declare_queue(
        names.messages_queue,
        durable=True,
        arguments={"x-queue-type": "classic", "x-dead-letter-exchange": names.dead},
    )
    await envelopes.bind(names.messages, names.messages_queue)

    await channel.declare_exchange(names.registry, ExchangeType.FANOUT, durable=True)

    await channel.declare_exchange(names.deliveries, ExchangeType.TOPIC, durable=True)
    outcomes = await channel.declare_queue(names.deliveries_queue, durable=True, arguments=limits)
    await outcomes.bind(names.deliveries, "delivery.gone")

    await channel.declare_exchange(names.accepted, ExchangeType.TOPIC, durable=True)
