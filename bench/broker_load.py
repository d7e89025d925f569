"""The load over the broker: CloudEvents in batches, persistent, mandatory and confirmed, as a producer publishes them.

`python -m bench.broker_load '<a BrokerLoad as JSON>'` prints a `Posted` as JSON.
"""

import asyncio
import json
import sys
import time
import uuid
from typing import Final

import aio_pika
import msgspec
import uvloop
from aio_pika.abc import DeliveryMode
from yarl import URL

from bench.children import Sink
from bench.load import payload

_BATCH: Final = 20
_LOOK: Final = 0.01


class BrokerLoad(msgspec.Struct, frozen=True, kw_only=True):
    """What to publish, at most `window` events between the producer and that sink."""

    url: str
    prefix: str
    applications: list[str]
    count: int
    payload_bytes: int
    sink: str
    window: int


def batch(applications: list[str], first: int, size: int) -> bytes:
    """So many events, as the text of a JSON array."""
    run = uuid.uuid4().hex
    head = b'"specversion":"1.0","source":"/bench","type":"order.completed"'
    names = [application.encode() for application in applications]
    events = (
        b'{%b,"hookledgerapp":"%b","id":"%b-%d","data":%b}'
        % (head, names[number % len(names)], run.encode(), number, payload(number, size))
        for number in range(first, first + _BATCH)
    )
    return b"[%b]" % b",".join(events)


async def main(load: BrokerLoad) -> None:
    """Publish it, print what came of it."""
    sink = Sink(load.sink)
    at_first = await sink.count()
    async with await aio_pika.connect(load.url) as connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        exchange = await channel.get_exchange(f"{load.prefix}.publish", ensure=False)
        began = time.monotonic()
        sent = delivered = 0
        while sent < load.count:
            room = min(load.count - sent, load.window + delivered - sent) // _BATCH
            publishing = []
            for _ in range(room):
                message = aio_pika.Message(
                    batch(load.applications, sent, load.payload_bytes),
                    content_type="application/cloudevents-batch+json",
                    delivery_mode=DeliveryMode.PERSISTENT,
                    user_id=URL(load.url).user or "guest",
                )
                publishing.append(exchange.publish(message, "order.completed", mandatory=True, timeout=10))
                sent += _BATCH
            await asyncio.gather(*publishing)
            await asyncio.sleep(_LOOK)
            delivered = await sink.count() - at_first
    print(json.dumps({"began": began, "ended": time.monotonic(), "count": sent}))


if __name__ == "__main__":
    uvloop.run(main(msgspec.json.decode(sys.argv[1], type=BrokerLoad)))
