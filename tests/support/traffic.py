"""Senders that insist, and what receivers saw, as the invariants are asked about it."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress

import aiohttp

from tests.support.client import Answer
from tests.support.invariants import Seen
from tests.support.receiver import Receiver


async def insist(send: Callable[[], Awaitable[Answer]]) -> Answer:
    """Send until there is a 2xx, as a careful sender does: the same request each time."""
    while True:
        with suppress(aiohttp.ClientError, TimeoutError):
            answer = await send()
            if 200 <= answer.status < 300:
                return answer
            assert answer.status >= 500 or answer.status == 429, f"HTTP {answer.status}: {answer.body!r}"
        await asyncio.sleep(0.1)


def seen_by(receiver: Receiver) -> dict[tuple[str, str], Seen]:
    """The receivers' own logs: the second of the three records. The ledger is the third."""
    bodies: dict[tuple[str, str], list[bytes]] = defaultdict(list)
    statuses: dict[tuple[str, str], list[int | None]] = defaultdict(list)
    for request in receiver.requests:
        bodies[request.id, request.path].append(request.body)
        statuses[request.id, request.path].append(request.status)
    return {key: Seen(bodies=tuple(bodies[key]), statuses=tuple(statuses[key])) for key in bodies}
