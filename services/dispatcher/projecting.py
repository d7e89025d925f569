"""What follows a ledger without the broker: projections and operational messages, off the attempt path.

One dispatcher at a time follows for each.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final
from uuid import UUID

import asyncpg

from libs.common.postgres import health, statistics
from libs.common.postgres.checkpoint import Checkpoint
from libs.common.postgres.following import Tail
from libs.common.postgres.pool import CONNECTION_ERRORS, RETRYABLE_ERRORS, Connection, Pool
from libs.common.runtime.logs import logger
from libs.common.runtime.waiting import set_within
from services.dispatcher.metrics import COUNTED
from services.dispatcher.operational import deliveries, endpoints, telling

_LOG: Final = logger("projecting")
POLL_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """Takes in a ledger's facts, batch by batch.

    Attributes:
        follower: the name of its checkpoint.
        batch: facts that it takes in at a time.
        count: takes in the next facts; how many there were.
    """

    follower: str
    batch: int
    count: Callable[[Connection, Checkpoint], Awaitable[int]]


STATISTICS: Final = Projection(follower=statistics.FOLLOWER, batch=statistics.BATCH, count=statistics.count)
HEALTH: Final = Projection(follower=health.FOLLOWER, batch=health.BATCH, count=health.count)
KINDS: Final = frozenset((*statistics.KINDS, *health.KINDS))
"""The kinds of fact that they take in."""
OPERATIONAL: Final = (
    Projection(follower=deliveries.FOLLOWER, batch=telling.BATCH, count=deliveries.tell),
    Projection(follower=endpoints.FOLLOWER, batch=telling.BATCH, count=endpoints.tell),
)


def through(tail: Tail) -> tuple[Projection, ...]:
    """The projections, with each fact read once for all who follow."""
    return (
        replace(STATISTICS, count=partial(statistics.count, read_on=tail.read_on)),
        replace(HEALTH, count=partial(health.count, read_on=tail.read_on)),
    )


async def run(pool: Pool, process: UUID, projection: Projection, stopping: asyncio.Event) -> None:
    """Take in facts until told to stop, then let another go on."""
    checkpoint = Checkpoint(projection.follower, process)
    while not stopping.is_set():
        try:
            while await _count(pool, checkpoint, projection) >= projection.batch and not stopping.is_set():
                pass
        except (*CONNECTION_ERRORS, *RETRYABLE_ERRORS, asyncpg.PostgresError) as error:
            _LOG.warning("projecting.interrupted", of=projection.follower, reason=str(error) or type(error).__name__)
        await set_within(stopping, POLL_SECONDS)
    try:
        await checkpoint.leave(pool)
    except (*CONNECTION_ERRORS, asyncpg.PostgresError) as error:
        _LOG.info("projecting.not_left", of=projection.follower, reason=str(error) or type(error).__name__)


async def _count(pool: Pool, checkpoint: Checkpoint, projection: Projection) -> int:
    async with pool.acquire() as connection:
        facts = await projection.count(connection, checkpoint)
    COUNTED.labels(projection.follower).inc(facts)
    return facts
