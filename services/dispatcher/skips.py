"""Deliveries that an operator wants passed over: skipped once they are not in flight, so that their lane goes on."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from uuid import UUID

import asyncpg

from libs.common.domain.commands import Skip
from libs.common.domain.delivery import Delivery, decide
from libs.common.domain.ids import Prefix, encode
from libs.common.postgres.pool import CONNECTION_ERRORS, Connection, Pool, transaction
from libs.common.runtime.logs import logger
from libs.common.runtime.waiting import set_within
from services.dispatcher import lanes, projection, transitions
from services.dispatcher.lease import Lease, LeaseLostError
from services.dispatcher.transitions import Transition

_LOG: Final = logger("skips")
LOOK_SECONDS: Final = 1.0
AT_ONCE: Final = 100


class Skips:
    """Takes up requests to skip.

    Args:
        pool: of the dispatcher.
        epoch: of the ledger.
        lease: of this process.
        waiting: called when lanes may have a new head.
    """

    def __init__(self, pool: Pool, epoch: int, lease: Lease, waiting: Callable[[Sequence[Delivery]], None]) -> None:
        self._pool = pool
        self._epoch = epoch
        self._lease = lease
        self._waiting = waiting

    async def run(self, stopping: asyncio.Event) -> None:
        """Look each second, until told to stop."""
        while not await set_within(stopping, LOOK_SECONDS):
            try:
                await self.take()
            except LeaseLostError:
                pass
            except (*CONNECTION_ERRORS, asyncpg.PostgresError) as error:
                _LOG.warning("skips.interrupted", reason=str(error) or type(error).__name__)

    async def take(self) -> int:
        """Skip what is asked for; how many deliveries that were. What is in flight is left for when it is not."""
        rows = await self._pool.fetch(
            """
            SELECT r.delivery, r.actor FROM hookledger.skip_request r
            LEFT JOIN hookledger.queue q ON q.delivery = r.delivery
            WHERE q.owner IS NULL ORDER BY r.asked_at LIMIT $1
            """,
            AT_ONCE,
        )
        if not rows:
            return 0
        async with transaction(self._pool) as connection:
            skipped = await self._skip(connection, {row["delivery"]: row["actor"] for row in rows})
        for delivery in skipped:
            _LOG.info("delivery.skipped", delivery=encode(Prefix.DELIVERY, delivery))
        if skipped:
            self._waiting([])
        return len(skipped)

    async def _skip(self, connection: Connection, actors: Mapping[UUID, str]) -> list[UUID]:
        asked = list(actors)
        now = await self._lease.fence(connection)
        # While its lane is locked, nobody begins what waits in it: then its state is locked by nobody for long.
        await lanes.hold(connection, asked)
        rows = await connection.fetch(
            "SELECT delivery, lane FROM hookledger.queue WHERE delivery = ANY($1) AND owner IS NULL", asked
        )
        states = await projection.lock(connection, sorted(row["delivery"] for row in rows))
        changes = [
            Transition.of(
                delivery=row["delivery"],
                before=states[row["delivery"]],
                facts=decide(states[row["delivery"]], Skip(at=now, actor=actors[row["delivery"]])),
                lane=row["lane"],
            )
            for row in rows
            if row["delivery"] in states and states[row["delivery"]].status.idle
        ]
        await transitions.write(connection, self._epoch, changes, now)
        await connection.execute(
            """
            DELETE FROM hookledger.skip_request r
            WHERE r.delivery = ANY($1) OR (
                r.delivery = ANY($2) AND NOT EXISTS (SELECT FROM hookledger.queue q WHERE q.delivery = r.delivery)
            )
            """,
            list(states),  # what was not skipped of these is over, and waits for a manual attempt
            asked,
        )
        return [change.delivery for change in changes]
