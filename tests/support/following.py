"""Following a ledger to its end: a fact can be read once no older transaction runs, whoever's in the whole server."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from libs.common.postgres.checkpoint import Checkpoint
from tests.support.patience import eventually

Count = Callable[[Any, Checkpoint], Awaitable[int]]


async def follow_to_the_end(connection: Any, follower: str, process: UUID, count: Count) -> None:
    """Have `count` take in what there is, as `process`, until nothing lies behind the follower's checkpoint."""
    checkpoint = Checkpoint(follower, process)

    async def take() -> bool:
        while await count(connection, checkpoint):
            pass
        return await _is_behind(connection, follower)

    await eventually(take, lambda behind: not behind)


async def _is_behind(connection: Any, follower: str) -> bool:
    behind: bool = await connection.fetchval(
        """
        SELECT EXISTS (
            SELECT FROM hookledger.checkpoint c JOIN hookledger.fact f
                ON hookledger.is_followed(f.kind, f.data)
                    AND (f.epoch, f.xact, f.position) > (c.epoch, c.xact, c.position)
            WHERE c.follower = $1
        )
        """,
        follower,
    )
    return behind
