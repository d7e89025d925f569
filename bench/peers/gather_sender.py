"""Peer: an in-process sender, `asyncio.gather` over a batch, an HTTP client, and a row for each attempt in Postgres.

What a team writes within its own service when there is no queue yet: what is in memory when it dies is lost.
`python -m bench.peers.gather_sender DATABASE_URL URL COUNT PAYLOAD_BYTES`
"""

import asyncio
import base64
import json
import sys
import time
from typing import Final

import aiohttp
import asyncpg
import uvloop

from bench.load import payload
from libs.common.domain.signatures import standard

_BATCH: Final = 100
_POOL: Final = 10


async def main(database_url: str, url: str, count: int, size: int) -> None:
    """Send so many, print how many a second."""
    secret = standard.parse_secret("whsec_" + base64.b64encode(bytes(24)).decode())
    pool = await asyncpg.create_pool(database_url, min_size=_POOL, max_size=_POOL)
    await pool.execute("""
        CREATE TABLE IF NOT EXISTS public.gather_attempt (
            id bigserial PRIMARY KEY, message text, url text, status integer, at timestamptz)
    """)

    async def deliver(session: aiohttp.ClientSession, number: int) -> None:
        body, name = payload(number, size), f"gather_{number}"
        signed = standard.headers([secret], message_id=name, timestamp=int(time.time()), body=body)
        async with session.post(url, data=body, headers={"Content-Type": "application/json", **signed}) as answer:
            await answer.read()
        await pool.execute(
            "INSERT INTO public.gather_attempt (message, url, status, at) VALUES ($1, $2, $3, now())",
            *(name, url, answer.status),
        )

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        began = time.monotonic()
        for first in range(0, count, _BATCH):
            await asyncio.gather(*(deliver(session, first + number) for number in range(_BATCH)))
        seconds = time.monotonic() - began
    await pool.execute("DROP TABLE public.gather_attempt")
    await pool.close()
    print(json.dumps({"per_second": count / seconds}))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
