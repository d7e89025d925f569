"""Ceilings of the broker: envelopes of 32 messages, and what any durable way to a receiver takes at the least.

`python -m bench.ceilings.hops DATABASE_URL AMQP_URL SECONDS PAYLOAD_BYTES`. The second is two commits with a hop over
the broker in between, one at a time at 50 a second, as the lightest load comes: an idle disk and processor wake up.
"""

import asyncio
import json
import statistics
import sys
import time
from typing import Final

import aio_pika
import asyncpg
import uvloop
from aio_pika.abc import AbstractIncomingMessage, DeliveryMode

from bench.load import payload

ENVELOPE: Final = 32
_UNDER_WAY: Final = 8
_PACE: Final = 0.02


async def envelopes(amqp_url: str, seconds: float, size: int) -> float:
    """Messages a second, in envelopes that are persistent, confirmed, consumed and acknowledged."""
    body = b"".join(payload(number, size) for number in range(ENVELOPE))
    message = aio_pika.Message(body, delivery_mode=DeliveryMode.PERSISTENT)
    arrived = 0
    async with await aio_pika.connect(amqp_url) as connection, await aio_pika.connect(amqp_url) as other:
        channel = await connection.channel(publisher_confirms=True)
        consuming = await other.channel()
        await consuming.set_qos(prefetch_count=32)
        queue = await consuming.declare_queue("bench.envelopes", durable=True)

        async def take(incoming: AbstractIncomingMessage) -> None:
            nonlocal arrived
            await incoming.ack()
            arrived += ENVELOPE

        await queue.consume(take)
        began = time.monotonic()

        async def publish() -> None:
            while time.monotonic() < began + seconds:
                await channel.default_exchange.publish(message, queue.name)

        await asyncio.gather(*(publish() for _ in range(_UNDER_WAY)))
        rate = arrived / (time.monotonic() - began)
        await queue.delete(if_unused=False, if_empty=False)
    return rate


async def commits_and_hop(database_url: str, amqp_url: str, seconds: float, size: int) -> float:
    """Milliseconds from the first commit's begin to the second one's end, the median."""
    database = await asyncpg.connect(database_url)
    await database.execute("CREATE TABLE IF NOT EXISTS public.hop (id bigserial PRIMARY KEY, body bytea)")
    insert = await database.prepare("INSERT INTO public.hop (body) VALUES ($1)")
    took = []
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel(publisher_confirms=True)
        queue = await channel.declare_queue("bench.hop", durable=True)
        arrivals: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        await queue.consume(arrivals.put, no_ack=True)
        message = aio_pika.Message(payload(0, size), delivery_mode=DeliveryMode.PERSISTENT)
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            began = time.monotonic()
            await insert.fetchval(message.body)
            publishing = asyncio.ensure_future(channel.default_exchange.publish(message, queue.name))
            await arrivals.get()
            await insert.fetchval(message.body)
            took.append((time.monotonic() - began) * 1000)
            await publishing
            await asyncio.sleep(max(0.0, began + _PACE - time.monotonic()))
        await queue.delete(if_unused=False, if_empty=False)
    await database.execute("DROP TABLE public.hop")
    await database.close()
    return statistics.median(took)


async def main(database_url: str, amqp_url: str, seconds: float, size: int) -> None:
    """Take both, print them."""
    rate = await envelopes(amqp_url, seconds, size)
    hop = await commits_and_hop(database_url, amqp_url, seconds, size)
    print(json.dumps({"envelopes": rate, "commits_and_hop_ms": hop}))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])))
