"""The lease of this process: the right to send and to record, renewed each second, five long.

Work belongs to a process, not to a delivery: when a process dies, everything that it had in flight moves at once. A
process that was only asleep finds its lease passed, drops what it had in flight, and begins a new epoch.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg

from libs.common.domain.lanes import Standing
from libs.common.postgres.pool import CONNECTION_ERRORS, Connection, Pool
from libs.common.runtime.clock import monotonic, new_id
from libs.common.runtime.logs import logger
from libs.common.runtime.waiting import set_within
from services.dispatcher.metrics import LEASES_LOST

_LOG: Final = logger("lease")
LENGTH: Final = timedelta(seconds=5)
RENEW_SECONDS: Final = 1.0


class LeaseLostError(Exception):
    """The lease has passed: this process may neither begin a send nor record an outcome."""


class Lease:
    """This process's row in `process`.

    Args:
        pool: of the dispatcher.
        lost: called when the lease has passed, before a new epoch begins; drops what is in flight.
        shared_anew: called when there are more or fewer dispatchers.

    Attributes:
        standing: of this dispatcher among those that live, as it was a second ago at most.
    """

    def __init__(
        self, pool: Pool, lost: Callable[[], Awaitable[None]], shared_anew: Callable[[], None] = lambda: None
    ) -> None:
        self.process: Final[UUID] = new_id()
        self.standing = Standing()
        self._pool = pool
        self._lost = lost
        self._shared_anew = shared_anew
        self._epoch = 0
        self._until = 0.0
        self._changing = asyncio.Lock()
        self._ended = False

    @property
    def held(self) -> bool:
        """Whether the lease holds by this process's own clock, which started before the database's did."""
        return monotonic() < self._until

    @property
    def epoch(self) -> int:
        """Counts the leases of this process. What was begun under an earlier one is no longer its own."""
        return self._epoch

    async def begin(self) -> None:
        """Enter the process row, with the next epoch.

        Raises:
            asyncpg.UniqueViolationError: the row of the last epoch still stands; its work is not moved yet.
        """
        asked = monotonic()
        others = await self._pool.fetchrow(
            """
            WITH entered AS (
                INSERT INTO hookledger.process (id, epoch, service, host, started_at, alive_until)
                VALUES ($1, $2, 'dispatcher', $3, clock_timestamp(), clock_timestamp() + $4)
            )
            SELECT count(*) + 1 AS dispatchers, count(*) FILTER (WHERE id < $1) AS rank FROM hookledger.process
            WHERE service = 'dispatcher' AND alive_until > clock_timestamp()
            """,
            self.process,
            self._epoch + 1,
            socket.gethostname(),
            LENGTH,
        )
        assert others is not None, "it counts"
        self._stand(Standing(rank=others["rank"], of=others["dispatchers"]))
        self._epoch += 1
        self._until = asked + LENGTH.total_seconds()

    async def run(self, stopping: asyncio.Event) -> None:
        """Renew until told to stop."""
        while not await set_within(stopping, RENEW_SECONDS):
            await self._renew_or_begin_again()

    async def end(self) -> None:
        """Leave: whoever reclaims next finds no row, and nothing is renewed any more.

        A renewal that is under way is waited for: it might take the missing row for a lost lease, and begin another.
        """
        async with self._changing:
            self._ended = True
            self._until = 0.0
            await self._pool.execute(
                "DELETE FROM hookledger.process WHERE id = $1 AND epoch = $2", self.process, self._epoch
            )

    async def fence(self, connection: Connection) -> datetime:
        """The database's time, if the lease holds by it; and it will until this transaction ends.

        The row lock keeps others from reclaiming this process's work in between.

        Raises:
            LeaseLostError: the lease has passed.
        """
        now: datetime | None = await connection.fetchval(
            """
            SELECT clock_timestamp() FROM hookledger.process
            WHERE id = $1 AND epoch = $2 AND alive_until > clock_timestamp() FOR KEY SHARE
            """,
            self.process,
            self._epoch,
        )
        if now is None:
            raise LeaseLostError
        return now

    def _stand(self, standing: Standing) -> None:
        if standing != self.standing:
            self.standing = standing
            self._shared_anew()

    async def _renew_or_begin_again(self) -> None:
        async with self._changing:
            if not self._ended:
                await self._try_to_renew()

    async def _try_to_renew(self) -> None:
        asked = monotonic()
        try:
            alive = await self._pool.fetchrow(
                """
                WITH renewed AS (
                    UPDATE hookledger.process SET alive_until = clock_timestamp() + $3
                    WHERE id = $1 AND epoch = $2 AND alive_until > clock_timestamp() RETURNING id
                )
                SELECT count(*) AS dispatchers, count(*) FILTER (WHERE id < $1) AS rank FROM hookledger.process
                WHERE service = 'dispatcher' AND alive_until > clock_timestamp() AND EXISTS (SELECT FROM renewed)
                """,
                self.process,
                self._epoch,
                LENGTH,
                timeout=LENGTH.total_seconds(),
            )
            if alive is not None and alive["dispatchers"]:
                self._stand(Standing(rank=alive["rank"], of=alive["dispatchers"]))
                self._until = asked + LENGTH.total_seconds()
                return
            if self._until:  # it is lost once, however long its row stands until its work has moved
                LEASES_LOST.inc()
                _LOG.warning("lease.lost", process=str(self.process), epoch=self._epoch)
            self._until = 0.0
            await self._lost()
            await self.begin()
            _LOG.info("lease.begun", process=str(self.process), epoch=self._epoch)
        except asyncpg.UniqueViolationError:
            _LOG.info("lease.waiting", reason="the work of the last epoch is not moved yet")
        except (*CONNECTION_ERRORS, asyncpg.PostgresError) as error:
            _LOG.warning("lease.not_renewed", reason=str(error) or type(error).__name__)
