"""The ceiling: a bare aiohttp client posts one signed request again and again. No queue, no ledger, no retry."""

import asyncio
import base64
import json
import sys
import time

import aiohttp
import uvloop

from libs.common.domain.signatures import standard

_WARM_UP = 0.1


async def main(url: str, count: int, endpoints: int, payload_bytes: int, concurrency: int) -> None:
    """Post, print the figures as JSON."""
    body = json.dumps({"number": 1, "filler": "x" * payload_bytes}).encode()
    secret = standard.parse_secret("whsec_" + base64.b64encode(bytes(24)).decode())
    signed = standard.headers([secret], message_id="msg_1", timestamp=int(time.time()), body=body)
    headers = {"Content-Type": "application/json", **signed}
    numbers = iter(range(count))
    warm = round(count * _WARM_UP)
    began = (0.0, 0.0)

    async def worker(session: aiohttp.ClientSession) -> None:
        nonlocal began
        for number in numbers:
            if number == warm:
                began = (time.monotonic(), time.process_time())
            async with session.post(f"{url}/{number % endpoints}", data=body, headers=headers) as answer:
                await answer.read()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(worker(session) for _ in range(concurrency)))
    seconds, processor = time.monotonic() - began[0], time.process_time() - began[1]
    measured = count - warm
    print(json.dumps({"per_second": measured / seconds, "cpu_ms": processor * 1000 / measured}))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], *(int(word) for word in sys.argv[2:6])))
