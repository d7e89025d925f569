"""What a send costs by each sender, beside a bare aiohttp client that posts the same, all in one process.

One sink in a process of its own, kept connections, uvloop. Rounds take turns, so that drift of the machine cancels;
of each client's rounds the median counts.
`python -m bench.ceilings.senders [ROUNDS] [SECONDS] [PAYLOAD_BYTES] [AT_ONCE]`
"""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Final
from uuid import UUID

import aiohttp
import uvloop

from libs.common.domain.addresses import AddressPolicy
from services.dispatcher.senders import SENDERS

BARE: Final = "bare aiohttp"
_APP: Final = UUID(int=1)
_TIMEOUT: Final = timedelta(seconds=15)
_HEADERS: Final = {
    "Content-Type": "application/json",
    "webhook-id": "msg_0000000000000000000000",
    "webhook-timestamp": "1700000000",
    "webhook-signature": "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
}

Post = Callable[[], Awaitable[int | None]]


async def main(rounds: int, seconds: float, size: int, at_once: int) -> None:
    """Take turns, print processor microseconds and rate of each client, and its ratio to the bare one."""
    sink = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.sink", stdout=asyncio.subprocess.PIPE)
    assert sink.stdout is not None
    try:
        url = f"http://127.0.0.1:{int(await sink.stdout.readline())}/senders"
        async with AsyncExitStack() as stack:
            clients = await _clients(stack, url, bytes(size))
            costs: dict[str, list[tuple[float, float]]] = {name: [] for name in clients}
            for post in clients.values():
                await _round(post, 0.3, at_once)  # connections open, code warms up
            for _ in range(rounds):
                for name, post in clients.items():
                    costs[name].append(await _round(post, seconds, at_once))
    finally:
        sink.terminate()
        await sink.wait()
    bare = statistics.median(cost for cost, _ in costs[BARE])
    print(
        json.dumps(
            {
                name: {
                    "cpu_us": round(statistics.median(cost for cost, _ in of), 1),
                    "per_second": round(statistics.median(rate for _, rate in of)),
                    "of_bare": round(statistics.median(cost for cost, _ in of) / bare, 3),
                }
                for name, of in costs.items()
            },
            indent=1,
        )
    )


async def _clients(stack: AsyncExitStack, url: str, body: bytes) -> dict[str, Post]:
    session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))

    async def bare() -> int | None:
        async with session.post(url, data=body, headers=_HEADERS) as answer:
            await answer.read()
            return answer.status

    clients: dict[str, Post] = {BARE: bare}
    for name, kind in SENDERS.items():
        sender = await stack.enter_async_context(kind(AddressPolicy(development=True)))

        async def post(send: Callable[..., Awaitable[object]] = sender.send) -> int | None:
            report = await send(url, _HEADERS, body, app=_APP, timeout=_TIMEOUT)
            return report.answer.status  # type: ignore[attr-defined,no-any-return]

        clients[name] = post
    return clients


async def _round(post: Post, seconds: float, at_once: int) -> tuple[float, float]:
    """Processor microseconds of each send, and sends a second."""
    count, began, used = 0, time.monotonic(), time.process_time()
    ends = began + seconds

    async def worker() -> None:
        nonlocal count
        while time.monotonic() < ends:
            status = await post()
            assert status == 200, status
            count += 1

    await asyncio.gather(*(worker() for _ in range(at_once)))
    return (time.process_time() - used) * 1e6 / count, count / (time.monotonic() - began)


if __name__ == "__main__":
    given = sys.argv[1:]
    uvloop.run(
        main(
            int(given[0]) if given else 5,
            float(given[1]) if given[1:] else 1.0,
            int(given[2]) if given[2:] else 1024,
            int(given[3]) if given[3:] else 64,
        )
    )
