"""Ceiling: a bare aiohttp client signs and posts the same body again and again, on one core.

One session, kept connections, uvloop, a stamp and an HMAC for each request. No queue, no ledger, no retry.
`python -m bench.ceilings.client URL SECONDS PAYLOAD_BYTES CONNECTIONS`
"""

import asyncio
import base64
import json
import sys
import time

import aiohttp
import uvloop

from bench.load import payload
from libs.common.domain.signatures import standard


async def main(url: str, seconds: float, size: int, connections: int) -> None:
    """Post for so long, print requests a second and the processor time of each."""
    secret = standard.parse_secret("whsec_" + base64.b64encode(bytes(24)).decode())
    count = 0

    async def worker(session: aiohttp.ClientSession) -> None:
        nonlocal count
        while time.monotonic() < ends:
            body = payload(count, size)
            count += 1
            signed = standard.headers([secret], message_id="ceiling", timestamp=int(time.time()), body=body)
            headers = {"Content-Type": "application/json", **signed}
            async with session.post(f"{url}/ceiling", data=body, headers=headers) as answer:
                await answer.read()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        began = time.monotonic()
        ends = began + 0.2  # connections open, code warms up
        await asyncio.gather(*(worker(session) for _ in range(connections)))
        count, began, used = 0, time.monotonic(), time.process_time()
        ends = began + seconds
        await asyncio.gather(*(worker(session) for _ in range(connections)))
        took, used = time.monotonic() - began, time.process_time() - used
    print(json.dumps({"per_second": count / took, "cpu_us": used * 1e6 / count}))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
