"""Publishes a domain event to Hookledger over RabbitMQ, as a CloudEvent.

HOOKLEDGER_AMQP_URL=amqp://... python examples/producer.py APPLICATION order.completed '{"order": 7}'
"""

import argparse
import asyncio
import json
import os
import uuid
from datetime import UTC, datetime
from typing import Any

import aio_pika
from yarl import URL


async def publish(url: str, exchange: str, event: dict[str, Any]) -> None:
    """Returns when the broker has the event on disk; raises if nobody takes it, or after 10 seconds."""
    connection = await aio_pika.connect(url, timeout=10)
    async with connection:
        # Confirms and returns: without them, a message that the broker drops is lost without a word.
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        message = aio_pika.Message(
            json.dumps(event).encode(),
            content_type="application/cloudevents+json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            user_id=URL(url).user or "guest",  # the broker checks it; Hookledger learns from it whose event this is
        )
        target = await channel.get_exchange(exchange, ensure=False)
        await target.publish(message, routing_key=event["type"], mandatory=True, timeout=10)


def cloud_event(application: str, event_type: str, data: Any) -> dict[str, Any]:
    """`source` and `id` together name the event: published twice, it is delivered once."""
    return {
        "specversion": "1.0",
        "id": str(uuid.uuid4()),
        "source": "/examples/producer",
        "type": event_type,
        "time": datetime.now(UTC).isoformat(),
        "datacontenttype": "application/json",
        "hookledgerapp": application,  # the application's id or uid
        "data": data,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Publishes one event; the broker's URL is in HOOKLEDGER_AMQP_URL.")
    parser.add_argument("application", help="id or uid of the application")
    parser.add_argument("type", help="event type, such as order.completed")
    parser.add_argument("data", type=json.loads, help="the event's data, as JSON")
    parser.add_argument("--exchange", default="hookledger.publish")
    arguments = parser.parse_args()
    made = cloud_event(arguments.application, arguments.type, arguments.data)
    asyncio.run(publish(os.environ["HOOKLEDGER_AMQP_URL"], arguments.exchange, made))
    print("published", made["id"])
