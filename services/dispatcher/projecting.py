"""Keeping the projections that follow the ledger: off the attempt path, without the broker, by one dispatcher each."""

import asyncio
from typing import Final, Protocol
from uuid import UUID

import asyncpg

from libs.common.postgres.checkpoint import Checkpoint
from libs.common.postgres.pool import CONNECTION_ERRORS, RETRYABLE_ERRORS, Connection, Pool
from libs.common.runtime.logs import logger
from libs.common.runtime.waiting import set_within
from services.dispatcher.metrics import COUNTED

_LOG: Final = logger("projecting")
POLL_SECONDS: Final = 1.0


class Projection(Protocol):
    """A module that takes in the ledger's facts, batch by batch: `statistics` or `health`."""

    @property
    def FOLLOWER(self) -> str:  # noqa: N802  a module's constant
        """The name of its checkpoint."""

    @property
    def BATCH(self) -> int:  # noqa: N802  a module's constant
        """Facts that it takes in at a time."""

    async def count(self, connection: Connection, checkpoint: Checkpoint) -> int:
        """Take in the next facts; how many there were."""


async def run(pool: Pool, process: UUID, projection: Projection, stopping: asyncio.Event) -> None:
    """Take in facts until told to stop, then let another go on."""
    checkpoint = Checkpoint(projection.FOLLOWER, process)
    while not stopping.is_set():
        try:
            while await _count(pool, checkpoint, projection) == projection.BATCH and not stopping.is_set():
                pass
        except (*CONNECTION_ERRORS, *RETRYABLE_ERRORS, asyncpg.PostgresError) as error:
            _LOG.warning("projecting.interrupted", of=projection.FOLLOWER, reason=str(error) or type(error).__name__)
        await set_within(stopping, POLL_SECONDS)
    try:
        await checkpoint.leave(pool)
    except (*CONNECTION_ERRORS, asyncpg.PostgresError) as error:
        _LOG.info("projecting.not_left", of=projection.FOLLOWER, reason=str(error) or type(error).__name__)


async def _count(pool: Pool, checkpoint: Checkpoint, projection: Projection) -> int:
    async with pool.acquire() as connection:
        facts = await projection.count(connection, checkpoint)
    COUNTED.labels(projection.FOLLOWER).inc(facts)
    return facts
