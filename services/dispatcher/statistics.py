"""Keeping the statistics current: off the attempt path, without the broker, by one dispatcher at a time."""

import asyncio
from typing import Final
from uuid import UUID

import asyncpg

from libs.common.postgres import statistics
from libs.common.postgres.checkpoint import Checkpoint
from libs.common.postgres.pool import CONNECTION_ERRORS, Pool
from libs.common.runtime.logs import logger
from libs.common.runtime.waiting import set_within
from services.dispatcher.metrics import COUNTED

_LOG: Final = logger("statistics")
POLL_SECONDS: Final = 1.0


async def run(pool: Pool, process: UUID, stopping: asyncio.Event) -> None:
    """Count until told to stop, then let another go on."""
    checkpoint = Checkpoint(statistics.FOLLOWER, process)
    while not stopping.is_set():
        try:
            while await _count(pool, checkpoint) == statistics.BATCH and not stopping.is_set():
                pass
        except (*CONNECTION_ERRORS, asyncpg.PostgresError) as error:
            _LOG.warning("statistics.interrupted", reason=str(error) or type(error).__name__)
        await set_within(stopping, POLL_SECONDS)
    try:
        await checkpoint.leave(pool)
    except (*CONNECTION_ERRORS, asyncpg.PostgresError) as error:
        _LOG.info("statistics.not_left", reason=str(error) or type(error).__name__)


async def _count(pool: Pool, checkpoint: Checkpoint) -> int:
    async with pool.acquire() as connection:
        facts = await statistics.count(connection, checkpoint)
    COUNTED.inc(facts)
    return facts
