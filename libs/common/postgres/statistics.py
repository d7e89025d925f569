"""Statistics: attempts and their durations for each endpoint and hour, counted by following the ledger.

A batch of facts is added in the transaction that moves the checkpoint, so that each fact is counted exactly once,
whoever follows and whenever it dies.
"""

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final, get_args
from uuid import UUID

from libs.common.domain.attempts import End, result, total_us
from libs.common.postgres.checkpoint import BEGINNING, Checkpoint
from libs.common.postgres.following import ReadOn, read_on
from libs.common.postgres.ledger import Appended
from libs.common.postgres.pool import Connection
from libs.common.postgres.rows import Columns

FOLLOWER: Final = "statistics"
BATCH: Final = 5_000
_HOUR: Final = timedelta(hours=1)
KINDS: Final = tuple(end.__name__ for end in get_args(End))
_HOURS: Final = Columns(
    app="uuid", endpoint="uuid", hour="timestamptz", result="text", attempts="bigint", total_us="bigint"
)
_ADD: Final = f"""
    INSERT INTO projection_1.endpoint_hour AS e (app, endpoint, hour, result, attempts, total_us)
    SELECT * FROM {_HOURS.unnested("u", first=1)}
    ON CONFLICT (app, endpoint, hour, result) DO UPDATE
    SET attempts = e.attempts + excluded.attempts, total_us = e.total_us + excluded.total_us
"""  # noqa: S608  of constants


async def count(connection: Connection, checkpoint: Checkpoint, read_on: ReadOn = read_on) -> int:
    """Count the next facts, in a transaction of their own; how many there were. `BATCH` or more: there may be more.

    None are counted while another process owns the checkpoint.
    """
    async with connection.transaction():
        cursor = await checkpoint.own(connection)
        if cursor is None:
            return 0
        batch = await read_on(connection, cursor, kinds=KINDS, most=BATCH)
        if batch.facts:
            await _add(connection, batch.found)
            await checkpoint.move(connection, batch.last)
    return batch.facts


async def forget(connection: Connection, checkpoint: Checkpoint) -> None:
    """Count again from the ledger's first fact: takes the checkpoint from its owner, in the caller's transaction."""
    await checkpoint.rewind(connection, BEGINNING)
    await connection.execute("""
        DELETE FROM projection_1.endpoint_hour;
        INSERT INTO projection_1.endpoint_hour (app, endpoint, hour, result, attempts, total_us)
        SELECT app, endpoint, hour, result, attempts, total_us FROM hookledger.baseline_hour;
    """)


async def _add(connection: Connection, ended: Iterable[Appended]) -> None:
    hours: dict[tuple[UUID, UUID | None, datetime, str], list[int]] = defaultdict(lambda: [0, 0])
    hour = ends = datetime.min.replace(tzinfo=UTC)
    for item in ended:
        end = item.fact
        assert isinstance(end, End)
        if not hour <= end.at < ends:
            hour = end.at.replace(minute=0, second=0, microsecond=0)
            ends = hour + _HOUR
        counted = hours[item.app, item.endpoint, hour, result(end)]
        counted[0] += 1
        counted[1] += total_us(end) or 0
    if hours:
        await connection.execute(_ADD, *_HOURS.arrays((*key, *counted) for key, counted in sorted(hours.items())))
