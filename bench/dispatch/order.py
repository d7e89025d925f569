"""Ordered messages over many keys, while receivers fail by chance and dispatchers are killed."""

import asyncio
import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from bench.check import message_of
from bench.dispatch.plan import Plan
from bench.report import Measurements
from bench.run import Say
from bench.world import World
from deploy.stack.errors import StackError

KEYS: Final = 100
DISPATCHERS: Final = 3
_POSTED_A_SECOND: Final = 500.0
_BETWEEN_KILLS: Final = (1.5, 4.0)
_SCHEDULE: Final = [0.1] * 20
"""Twenty failures of one in ten in a row do not happen: each message succeeds."""
_LAST_SECONDS: Final = 200.0
"""From the last message accepted to the end of all."""
_ACCEPTED: Final = """
    SELECT m.id, m.ordering_key FROM hookledger.message m JOIN hookledger.fact f ON f.stream = m.id AND f.version = 1
    ORDER BY f.epoch, f.xact, f.position
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a receiver saw of what was accepted in an order."""

    requests: int
    late: int
    missing: int


async def measure(world: World, plan: Plan, measured: Measurements, say: Say) -> None:
    """Post, kill, wait for the end, and hold the receiver's log against the order of acceptance.

    Raises:
        StackError: something came out of order, or not at all.
    """
    application = await world.application(
        "ordered", ["/flaky/ordered"], ordered=True, retrySchedule=_SCHEDULE, maxInflight=KEYS
    )
    say(f"order: {plan.ordered:,} messages over {KEYS} keys, {DISPATCHERS} dispatchers")
    began = time.monotonic()
    killed: list[str] = []
    killing = asyncio.create_task(_kill(world, plan.kills, killed))
    try:
        await world.post(application, count=plan.ordered, rate=_POSTED_A_SECOND, connections=64, keys=KEYS)
        seconds = await world.settled(within=_LAST_SECONDS) - began
    finally:
        killing.cancel()
        await asyncio.gather(killing, return_exceptions=True)
    rows = await world.database.fetch(_ACCEPTED)
    found = judged(
        {str(row["id"]): row["ordering_key"] for row in rows},
        [message_of(request.name) for request in await world.sink.seen()],
    )
    say(f"order: {found.requests:,} requests for {plan.ordered:,} messages, {len(killed)} kills")
    measured.figure("dispatch_ordered", plan.ordered / seconds)
    measured.figure("dispatch_ordered_kills", len(killed))
    measured.figure("dispatch_out_of_order", found.late)
    if found.late or found.missing:
        raise StackError(f"{found.late} requests came out of order, {found.missing} messages never")


async def _kill(world: World, most: int, killed: list[str]) -> None:
    """SIGKILL one dispatcher after the other, by chance, and start it again at once."""
    chance = random.Random(11)
    while len(killed) < most:
        await asyncio.sleep(chance.uniform(*_BETWEEN_KILLS))
        victim = chance.choice(world.dispatchers)
        await asyncio.to_thread(victim.kill)
        killed.append(victim.label)
        victim.start()


def judged(accepted: Mapping[str, str], came: Iterable[str]) -> Order:
    """Hold what came against the key of each message, in order of acceptance. The last one may come again."""
    place = {message: number for number, message in enumerate(accepted)}
    last: dict[str, int] = {}
    seen: set[str] = set()
    requests = late = 0
    for message in came:
        key, requests = accepted[message], requests + 1
        late += place[message] < last.get(key, -1)
        last[key] = max(place[message], last.get(key, -1))
        seen.add(message)
    return Order(requests=requests, late=late, missing=len(accepted.keys() - seen))
