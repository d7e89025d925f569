"""Following a ledger to its end: a fact can be read once no older transaction runs, whoever's in the whole server."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from libs.common.postgres.checkpoint import Checkpoint
from tests.support.patience import eventually

Count = Callable[[Any, Checkpoint], Awaitable[int]]


async def follow_to_the_end(connection: Any, follower: str, process: UUID, count: Count) -> None:
    """Have `count` take in what there is, as `process`, until the follower has come to the end."""
    checkpoint = Checkpoint(follower, process)
    await step_to_the_end(connection, follower, lambda: count(connection, checkpoint))


async def step_to_the_end(connection: Any, follower: str, step: Callable[[], Awaitable[object]]) -> None:
    """Take steps until nothing lies behind the follower's checkpoint; a step says whether there may be more at once.

    What is committed by now is not read in parts.
    """

    async def take() -> bool:
        while await step():
            pass
        return await _is_behind(connection, follower)

    await eventually(lambda: _is_hidden(connection), lambda hidden: not hidden)
    await eventually(take, lambda behind: not behind)


async def _is_hidden(connection: Any) -> bool:
    """Whether something that began before a committed fact is under way."""
    hidden: bool = await connection.fetchval(
        """
        SELECT EXISTS (
            SELECT FROM hookledger.fact f
            WHERE hookledger.is_followed(f.kind, f.data)
                AND (f.epoch, f.xact) >= ((SELECT max(epoch) FROM hookledger.ledger_epoch),
                    pg_snapshot_xmin(pg_current_snapshot()))
        )
        """
    )
    return hidden


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
