"""Taking over from dead processes: their attempts are declared unknown, and another follows."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final
from uuid import UUID

import asyncpg

from libs.common.domain.commands import DeclareUnknown
from libs.common.domain.delivery import Delivery, Status, decide
from libs.common.domain.facts import AttemptStarted
from libs.common.postgres.ledger import appended
from libs.common.postgres.pool import CONNECTION_ERRORS, Connection, Pool, transaction
from libs.common.postgres.snapshot import RegistrySnapshot
from libs.common.runtime.failpoints import Failpoint, reach
from libs.common.runtime.logs import logger
from libs.common.runtime.waiting import set_within
from services.dispatcher import projection, transitions
from services.dispatcher.metrics import RECLAIMED
from services.dispatcher.transitions import Transition

_LOG: Final = logger("reclaim")
CHECK_SECONDS: Final = 1.0


async def run(pool: Pool, epoch: int, snapshot: RegistrySnapshot, stopping: asyncio.Event) -> None:
    """Look each second for processes whose lease has passed."""
    while not stopping.is_set():
        try:
            while await _any_dead(pool):
                await snapshot.catch_up()  # they may have sent to endpoints that this process has not heard of
                if not await reclaim_one(pool, epoch, snapshot.holds):
                    break
        except (*CONNECTION_ERRORS, asyncpg.PostgresError) as error:
            _LOG.warning("reclaim.interrupted", reason=str(error) or type(error).__name__)
        await set_within(stopping, CHECK_SECONDS)


async def _any_dead(pool: Pool) -> bool:
    dead: bool = await pool.fetchval(
        "SELECT EXISTS (SELECT FROM hookledger.process WHERE alive_until <= clock_timestamp())"
    )
    return dead


async def reclaim_one(pool: Pool, epoch: int, holds: Callable[[UUID], bool]) -> bool:
    """Take over from one dead process, if there is one. `holds`: whether an endpoint holds what is exhausted.

    Its row is deleted in the same transaction: whoever still records under it waits for this, and then finds no lease.
    """
    async with transaction(pool) as connection:
        dead: UUID | None = await connection.fetchval("""
            DELETE FROM hookledger.process WHERE id = (
                SELECT id FROM hookledger.process WHERE alive_until <= clock_timestamp()
                ORDER BY alive_until LIMIT 1 FOR UPDATE SKIP LOCKED
            ) RETURNING id
        """)
        if dead is None:
            return False
        taken = await take_over(connection, epoch, dead, holds)
        reach(Failpoint.RECLAIM_IN_TRANSACTION)
    RECLAIMED.inc(len(taken))
    transitions.count_ended(taken)
    _LOG.warning("reclaim.process", process=str(dead), deliveries=len(taken))
    return True


async def take_over(
    connection: Connection, epoch: int, process: UUID, holds: Callable[[UUID], bool]
) -> Sequence[Transition]:
    """Declare unknown what `process` had in flight; what that made of the deliveries."""
    rows = await connection.fetch(
        "SELECT delivery, lane, counted FROM hookledger.queue WHERE owner = $1 ORDER BY delivery", process
    )
    if not rows:
        return ()
    owned = {row["delivery"]: row for row in rows}
    states = await projection.lock(connection, list(owned))
    flying = {
        delivery: state
        for delivery, state in states.items()
        if state.status is Status.SENDING and state.process == process
    }
    begun = await _begun(connection, flying)
    now = await connection.fetchval("SELECT clock_timestamp()")
    changes = []
    for delivery, state in flying.items():
        assert state.attempt is not None
        facts = decide(state, DeclareUnknown(at=now, attempt=state.attempt, holds=holds(state.endpoint)))
        changes.append(
            Transition.of(
                delivery=delivery,
                before=state,
                facts=facts,
                started=begun[delivery],
                lane=owned[delivery]["lane"],
                counted=owned[delivery]["counted"],
            )
        )
    await transitions.write(connection, epoch, changes, now)
    return changes


async def _begun(connection: Connection, flying: dict[UUID, Delivery]) -> dict[UUID, AttemptStarted]:
    """The start of each attempt in flight: its stream's last one. Since then a resend may have been asked for."""
    rows = await connection.fetch(
        """
        SELECT f.stream, f.version, f.app, f.endpoint, f.kind, f.schema, f.at, f.data
        FROM unnest($1::uuid[]) AS u (stream)
        CROSS JOIN LATERAL (
            SELECT * FROM hookledger.fact
            WHERE stream = u.stream AND kind = 'AttemptStarted' ORDER BY version DESC LIMIT 1
        ) f
        """,
        list(flying),
    )
    begun = {}
    for row in rows:
        fact = appended(row).fact
        assert isinstance(fact, AttemptStarted)
        begun[row["stream"]] = fact
    return begun
