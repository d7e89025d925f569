"""Projecting everything again, from the two ledgers alone, while the system runs.

The streams are taken in chunks of their ids, each chunk one short transaction. It first locks the deliveries' rows, as
everyone does who adds facts to a delivery; then, in a later statement, it reads the facts and folds them: nobody can
have added to them since. Rows are brought to the fold in place, never deleted and inserted again: who waits for the
lock of a deleted row goes on without it, and the outcome that it came to record would be lost.

A delivery that appears after the locking was fanned out meanwhile, rows and facts in one transaction, and is left
alone. Whatever is killed in between was rolled back or stands; it can be run again.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol, TypeVar
from uuid import UUID

from libs.common.contracts import registry as documents
from libs.common.postgres import health, schedule, statistics
from libs.common.postgres.checkpoint import Checkpoint
from libs.common.postgres.chunks import Chunk, delivery_chunks, registry_chunks
from libs.common.postgres.findings import Say
from libs.common.postgres.folding import (
    ATTEMPT_COLUMNS,
    DELIVERY_COLUMNS,
    OBJECT_COLUMNS,
    fold_deliveries,
    fold_registry,
)
from libs.common.postgres.pool import RETRYABLE_ERRORS, Connection, connect
from libs.common.postgres.retaining import whole_ledger
from libs.common.postgres.staging import Staging, values
from libs.common.runtime.clock import new_id
from libs.common.runtime.failpoints import Failpoint, reach

_LOCK: Final = 0x72656275  # "rebu"
_TRIES: Final = 10
_NOWHERE: Final = UUID(int=0)

_DELIVERIES: Final = Staging("projection_1.delivery_state", key=("delivery",), columns=DELIVERY_COLUMNS)
_ATTEMPTS: Final = Staging("projection_1.attempt", key=("delivery", "attempt"), columns=ATTEMPT_COLUMNS[2:])
_OBJECTS: Final = Staging("hookledger.registry_object", key=("id",), columns=(*OBJECT_COLUMNS, "data"))

Result = TypeVar("Result")


class RebuildRunningError(Exception):
    """Another rebuild of this database is running."""


class Progress(Protocol):
    """Who wants to know how far it has come."""

    def begin(self, total: int) -> None:
        """There are so many steps, as far as is known now: others may be added meanwhile."""

    def advance(self, steps: int) -> None:
        """So many more are done."""


@dataclass(slots=True, kw_only=True)
class Rebuilt:
    """What was projected again, and how many rows were not as they ought to be."""

    facts: int = 0
    deliveries: int = 0
    registry_objects: int = 0
    mended: int = 0
    mended_objects: int = 0


async def rebuild_database(url: str, progress: Progress, say: Say) -> Rebuilt:
    """Project everything again; what cannot be folded is said and left as it is.

    Args:
        url: of the user who owns the tables.
        progress: is told of each fact once for the deliveries, and of those that are followed once more for the
            statistics and once for health.
        say: takes lines for the operator.

    Raises:
        DatabaseUnavailableError: with one line for the operator.
        RebuildRunningError: another rebuild is under way.
        RetainingError: weeks of the ledger are being let go of.
        UnknownFactError: the ledger was written by a newer version.
    """
    async with _alone(url) as connection, whole_ledger(connection):
        progress.begin(
            await connection.fetchval("""
                SELECT count(*) + 2 * count(*) FILTER (WHERE hookledger.is_followed(kind, data)) FROM hookledger.fact
            """)
        )
        rebuild = _Rebuild(connection, progress, say)
        await rebuild.run()
        return rebuild.rebuilt


@asynccontextmanager
async def _alone(url: str) -> AsyncIterator[Connection]:
    """A connection with the owner's rights, the only one that rebuilds."""
    connection = await connect(url)
    try:
        if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
            raise RebuildRunningError("another rebuild of this database is running")
        yield connection
    finally:
        await connection.close()


async def _again(transaction: Callable[[], Awaitable[Result]]) -> Result:
    """Do a transaction as often as it loses against another.

    Raises:
        asyncpg.PostgresError: it lost too often.
    """
    for _ in range(_TRIES - 1):
        try:
            return await transaction()
        except RETRYABLE_ERRORS:
            continue
    return await transaction()


class _Rebuild:
    """One run."""

    def __init__(self, connection: Connection, progress: Progress, say: Say) -> None:
        self._connection = connection
        self._progress = progress
        self._say = say
        self.rebuilt: Final = Rebuilt()

    async def run(self) -> None:
        for staging in (_DELIVERIES, _ATTEMPTS, _OBJECTS):
            await staging.create(self._connection)
        await _again(self._registry)
        async for chunk in delivery_chunks(self._connection):
            await _again(partial(self._deliveries, chunk))
            await _again(partial(self._queue, chunk))
        await self._lanes()
        await self._statistics()
        await self._health()

    async def _registry(self) -> None:
        """All objects in one transaction, in which nobody else changes the registry.

        Chunk by chunk, an object could not get back its name while a wrong one of a later chunk has it.
        """
        connection = self._connection
        objects = 0
        async with connection.transaction():
            await connection.execute("SELECT FROM hookledger.registry_version FOR UPDATE")
            ids = {row["id"] for row in await connection.fetch("SELECT id FROM hookledger.registry_object")}
            async for chunk in registry_chunks(connection):
                folded = await fold_registry(connection, chunk)
                self._say_unfoldable("registry object", folded.unfoldable)
                ids -= folded.unfoldable.keys()
                objects += len(folded.items)
                rows = [
                    (stream, *values(item, OBJECT_COLUMNS), documents.encode(item.document))
                    for stream, item in folded.items.items()
                ]
                await _OBJECTS.stage(connection, rows)
            deleted = await _OBJECTS.delete_different(connection, list(ids))
            inserted = await _OBJECTS.insert_missing(connection)
            reach(Failpoint.REBUILD_CHUNK)
        self.rebuilt.registry_objects = objects
        self.rebuilt.mended_objects = len({*deleted, *inserted})

    async def _deliveries(self, chunk: Chunk) -> None:
        connection = self._connection
        async with connection.transaction():
            locked = await connection.fetch(
                """
                SELECT delivery FROM projection_1.delivery_state WHERE delivery > $1 AND delivery <= $2
                ORDER BY delivery FOR UPDATE
                """,
                chunk.after,
                chunk.last,
            )
            folded = await fold_deliveries(connection, chunk)
            states = [(stream, *values(item.state, DELIVERY_COLUMNS)) for stream, item in folded.items.items()]
            await _DELIVERIES.stage(connection, states)
            inserted = await _DELIVERIES.insert_missing(connection)
            ours = ({row["delivery"] for row in locked} - folded.unfoldable.keys()) | set(inserted)
            attempts = [
                values(row, ATTEMPT_COLUMNS)
                for stream, item in folded.items.items()
                if stream in ours
                for row in item.attempts
            ]
            await _ATTEMPTS.stage(connection, attempts)
            mended = len(inserted) + len(await _ATTEMPTS.insert_missing(connection))
            for staging in (_DELIVERIES, _ATTEMPTS):
                mended += len(await staging.update_different(connection, list(ours)))
                mended += len(await staging.delete_different(connection, list(ours)))
            mended += await self._delete_orphans(chunk)
            reach(Failpoint.REBUILD_CHUNK)
        self._say_unfoldable("delivery", folded.unfoldable)
        self.rebuilt.facts += folded.facts
        self.rebuilt.deliveries += len(folded.items)
        self.rebuilt.mended += mended
        self._progress.advance(folded.facts)

    async def _delete_orphans(self, chunk: Chunk) -> int:
        """Delete attempts of deliveries that never were."""
        orphans = await self._connection.fetch(
            """
            DELETE FROM projection_1.attempt a WHERE a.delivery > $1 AND a.delivery <= $2 AND NOT EXISTS (
                SELECT FROM hookledger.fact f
                WHERE f.stream = a.delivery AND f.version = 1 AND f.kind = 'DeliveryScheduled'
            ) RETURNING a.attempt
            """,
            chunk.after,
            chunk.last,
        )
        return len(orphans)

    async def _queue(self, chunk: Chunk) -> None:
        """Put right what the queue has wrong; where it has nothing wrong, nothing is locked."""
        misplaced = await schedule.find_misplaced(self._connection, chunk)
        if misplaced:
            async with self._connection.transaction():
                await schedule.requeue(self._connection, misplaced)
            self.rebuilt.mended += len(misplaced)

    async def _lanes(self) -> None:
        """Lanes and turns, from the queue as it is now; and owners from whom nobody would take over."""
        await _again(partial(schedule.add_missing_lanes, self._connection))
        after: UUID | None = _NOWHERE
        while after is not None:
            after = await _again(partial(self._next_lanes, after))
        await _again(partial(schedule.add_missing_owners, self._connection))

    async def _next_lanes(self, after: UUID) -> UUID | None:
        async with self._connection.transaction():
            return await schedule.recount_lanes(self._connection, after)

    async def _statistics(self) -> None:
        """Forget them and count again, as a follower of the ledger from whom a dispatcher then takes over."""
        checkpoint = Checkpoint(statistics.FOLLOWER, new_id())
        async with self._connection.transaction():
            await statistics.forget(self._connection, checkpoint)
        facts = statistics.BATCH
        while facts == statistics.BATCH:
            facts = await statistics.count(self._connection, checkpoint)
            self._progress.advance(facts)
        await checkpoint.leave(self._connection)

    async def _health(self) -> None:
        """As the statistics. Nothing follows from what it comes to in between, which is of the past."""
        checkpoint = Checkpoint(health.FOLLOWER, new_id())
        async with self._connection.transaction():
            await health.forget(self._connection, checkpoint)
        facts = health.BATCH
        while facts == health.BATCH:
            facts = await health.count(self._connection, checkpoint)
            self._progress.advance(facts)
        await checkpoint.leave(self._connection)

    def _say_unfoldable(self, what: str, unfoldable: dict[UUID, str]) -> None:
        for stream, why in unfoldable.items():
            self._say(f"{what} {stream}: left as it is, its stream cannot be folded: {why}")
