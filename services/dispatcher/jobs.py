"""Working through jobs: what people ask to be sent once more, a chunk of messages in each transaction.

A job's row says how far it has come, and moves in the transaction of what was requested: whoever is killed leaves
nothing half done, and any dispatcher goes on. What is requested waits in the endpoint's lanes like everything else, a
few hundred at a time, so that a long job neither overtakes nor delays ordinary traffic; in an ordered endpoint each
stands where its message came in.

No query looks for jobs while there are none: a job raises the registry's version, which every dispatcher watches.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, cast
from uuid import UUID

import asyncpg

from libs.common.contracts import registry as documents
from libs.common.contracts.registry import JobDocument, Kind
from libs.common.domain.commands import Command, Reopen, RequestResend
from libs.common.domain.delivery import Delivery, Status, UnderWayError, decide, fold
from libs.common.domain.endpoint import Endpoint, Rule
from libs.common.domain.facts import DeliveryScheduled
from libs.common.domain.ids import Prefix, encode
from libs.common.domain.job import Task, Wish, begin
from libs.common.postgres.ledger import Appended, append
from libs.common.postgres.pool import CONNECTION_ERRORS, Connection, Pool, transaction
from libs.common.postgres.snapshot import RegistrySnapshot
from libs.common.runtime.logs import logger
from libs.common.runtime.waiting import set_within
from services.dispatcher import lanes, projection, transitions
from services.dispatcher.history import Chunk, Job, Place, Wanted, next_chunk
from services.dispatcher.lease import Lease, LeaseLostError
from services.dispatcher.transitions import Transition

_LOG: Final = logger("jobs")
BACKLOG: Final = 256
"""A job goes on when fewer than so many deliveries are due in those of its endpoint's lanes that can go on."""

WATCH_SECONDS: Final = 1.0
_PACE: Final = timedelta(milliseconds=200)
_APART: Final = timedelta(milliseconds=100)
"""Between the looks of an application's jobs that wait: of a thousand resends, each looks once in 100 s."""


class Jobs:
    """The loop that works through jobs, one chunk of each in turn.

    Args:
        pool: of the dispatcher.
        epoch: of the ledger.
        lease: without which nothing is requested.
        snapshot: of the registry, kept current by others.
        requested: called with the deliveries that have become due.
    """

    def __init__(
        self,
        *,
        pool: Pool,
        epoch: int,
        lease: Lease,
        snapshot: RegistrySnapshot,
        requested: Callable[[Sequence[Delivery]], None],
    ) -> None:
        self._pool = pool
        self._epoch = epoch
        self._lease = lease
        self._snapshot = snapshot
        self._requested = requested
        self._wake = asyncio.Event()
        self._looked_at = -1
        self._running = True

    def wake(self) -> None:
        """The registry has changed, or it is time to stop: look now."""
        self._wake.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until told to stop."""
        while not stopping.is_set():
            worked = False
            try:
                if self._running or self._looked_at != self._snapshot.version:
                    worked = await self._step()
            except (LeaseLostError, asyncpg.UniqueViolationError):
                pass  # another job has just begun the same delivery: the next time it is found
            except (*CONNECTION_ERRORS, asyncpg.PostgresError) as error:
                _LOG.warning("jobs.interrupted", reason=str(error) or type(error).__name__)
            if not worked:
                await set_within(self._wake, _PACE.total_seconds() if self._running else WATCH_SECONDS)
                self._wake.clear()

    async def _step(self) -> bool:
        """One chunk of the job that has waited longest; False where there is nothing to do now."""
        version = self._snapshot.version
        async with transaction(self._pool) as connection:
            now = await self._lease.fence(connection)
            row = await connection.fetchrow(
                """
                SELECT j.id, o.app, o.data, o.registry_version, j.cursor
                FROM hookledger.job j JOIN hookledger.registry_object o ON o.id = j.id
                WHERE j.state = 'running' AND j.ready_at <= $1
                ORDER BY j.ready_at LIMIT 1 FOR UPDATE OF j SKIP LOCKED
                """,
                now,
            )
            if row is None:
                self._running = await connection.fetchval(
                    "SELECT EXISTS (SELECT FROM hookledger.job WHERE state = 'running')"
                )
                self._looked_at = version
                return False
            self._running = True
            known = row["registry_version"] <= version
            requested: list[Delivery] = []
            if known:
                document = cast("JobDocument", documents.decode(Kind.JOB, row["data"]))
                job = Job(id=row["id"], app=row["app"], document=document, cursor=row["cursor"])
                requested = await self._work(connection, job, now)
        if not known:
            await self._snapshot.catch_up(row["registry_version"])
        elif requested:
            self._requested(requested)
        return True

    async def _work(self, connection: Connection, job: Job, now: datetime) -> list[Delivery]:
        endpoint = self._snapshot.wanted(job.document.endpoint)
        if endpoint is None:
            await _fail(connection, job, "the endpoint was disabled or deleted")
            return []
        if await _is_full(connection, endpoint, now):
            await connection.execute("UPDATE hookledger.job SET ready_at = $2 WHERE id = $1", job.id, now + _PACE)
            return []
        chunk = await next_chunk(connection, job, endpoint, now)
        if job.document.task is Task.RESEND and not chunk.examined and chunk.cursor is None:
            await _fail(connection, job, "the message's payload was erased or has expired")
            return []
        states = await self._request(connection, job, endpoint, chunk, now) if chunk.wanted else []
        await connection.execute(
            """
            UPDATE hookledger.job
            SET cursor = coalesce($2, cursor), examined = examined + $3, requested = requested + $4,
                state = CASE WHEN $2::uuid IS NULL THEN 'finished' ELSE state END,
                ready_at = $5, updated_at = clock_timestamp()
            WHERE id = $1
            """,
            job.id,
            chunk.cursor,
            chunk.examined,
            len(states),
            await _look_at(connection, job.app, now) if chunk.waits else now,
        )
        if chunk.cursor is None:
            _LOG.info("job.finished", job=encode(Prefix.JOB, job.id), task=job.document.task)
        return states

    async def _request(
        self, connection: Connection, job: Job, endpoint: Endpoint, chunk: Chunk, now: datetime
    ) -> list[Delivery]:
        """Append what the job wants, and let it wait in the endpoint's lanes; the states after that.

        The lanes are locked first, as by those who claim from them. Who records holds a delivery and waits for its
        lane, so that no delivery is waited for here: one that is locked is come back to.
        """
        lane_of, held = await _lanes(connection, endpoint, [wanted.place for wanted in chunk.wanted])
        change = {
            lane: lanes.LaneChange(app=endpoint.app, endpoint=endpoint.id, max_inflight=endpoint.max_inflight)
            for lane in held | set(lane_of.values())
        }
        await lanes.lock(connection, change)
        before = await _lock(connection, [wanted.place.delivery for wanted in chunk.wanted])
        begun: list[tuple[UUID, Delivery]] = []
        facts: list[Appended] = []
        changed: list[Transition] = []
        for wanted in chunk.wanted:
            place, state = wanted.place, before.get(wanted.place.delivery)
            if state is not None:
                try:
                    decided = decide(state, _command(wanted, job.id, now))
                except UnderWayError:
                    if job.document.task is Task.RESEND:
                        chunk.stop_before(place)
                        break
                    continue  # somebody has asked for the same since it was read
                changed.append(Transition.of(delivery=place.delivery, before=state, facts=decided))
            elif wanted.known:
                chunk.stop_before(place)
                break
            else:
                stream = begin(_first(job, place, endpoint, now), wanted.wish, job.id)
                begun.append((place.delivery, fold(stream)))
                facts += [
                    Appended(stream=place.delivery, version=number, app=job.app, endpoint=endpoint.id, fact=fact)
                    for number, fact in enumerate(stream, start=1)
                ]
        await append(connection, self._epoch, facts)
        await projection.insert(connection, begun)
        await transitions.write_facts(connection, self._epoch, changed)
        new = [*begun, *((item.delivery, item.after) for item in changed if not item.before.open)]
        if endpoint.ordered:
            in_order = [(delivery, lane_of[delivery], _due(state), state.message) for delivery, state in new]
            await lanes.enqueue_ordered(connection, in_order)
        else:
            await lanes.enqueue(
                connection, [(delivery, lane_of[delivery], _due(state)) for delivery, state in new], None
            )
        await lanes.release(connection, _nearer(changed))
        await lanes.refresh(connection, change, now, served=False)
        return [state for _, state in begun] + [change.after for change in changed]


def _nearer(changed: Sequence[Transition]) -> list[tuple[UUID, datetime]]:
    """What waits or is held already, and since when its next attempt is due; what is in flight waits when it lands."""
    return [
        (item.delivery, item.after.next_at)
        for item in changed
        if item.before.open and item.after.next_at is not None and item.before.status is not Status.SENDING
    ]


async def _lanes(
    connection: Connection, endpoint: Endpoint, places: Sequence[Place]
) -> tuple[dict[UUID, UUID], set[UUID]]:
    """The lane in which each of these deliveries is to wait, and those in which some stand already.

    The two differ where the endpoint was made ordered, or no longer is, while something waited.
    """
    rows = await connection.fetch(
        """
        SELECT u.delivery, q.lane AS held_in,
            CASE WHEN $4 THEN hookledger.ordering_lane($3, m.ordering_key) ELSE $3 END AS lane
        FROM unnest($1::uuid[], $2::uuid[]) AS u (delivery, message)
            JOIN hookledger.message m ON m.id = u.message
            LEFT JOIN hookledger.queue q ON q.delivery = u.delivery
        """,
        [place.delivery for place in places],
        [place.message for place in places],
        endpoint.id,
        endpoint.ordered,
    )
    return {row["delivery"]: row["lane"] for row in rows}, {row["held_in"] for row in rows} - {None}


async def _lock(connection: Connection, deliveries: Sequence[UUID]) -> dict[UUID, Delivery]:
    """The states of those of these deliveries that nobody else has locked."""
    rows = await connection.fetch(
        f"""
        SELECT {projection.STATE_COLUMNS} FROM delivery_state d
        WHERE d.delivery = ANY($1) ORDER BY d.delivery FOR UPDATE OF d SKIP LOCKED
        """,  # noqa: S608  a constant
        deliveries,
    )
    return {row["delivery"]: projection.delivery_of(row) for row in rows}


def _first(job: Job, place: Place, endpoint: Endpoint, now: datetime) -> DeliveryScheduled:
    at = max(now, place.accepted_at)
    return DeliveryScheduled(
        at=at,
        app=job.app,
        message=place.message,
        endpoint=endpoint.id,
        config_version=endpoint.version,
        rule=Rule.REQUESTED,
        due_at=max(at, place.wanted_from),
    )


def _command(wanted: Wanted, job: UUID, now: datetime) -> Command:
    if wanted.wish is Wish.ATTEMPT:
        return RequestResend(at=now, job=job)
    return Reopen(at=now, due_at=wanted.place.wanted_from, job=job)


def _due(state: Delivery) -> datetime:
    assert state.next_at is not None, "what has just been asked for waits"
    return state.next_at


async def _is_full(connection: Connection, endpoint: Endpoint, now: datetime) -> bool:
    """Whether enough is due in the endpoint's lanes, save those that wait for their head: it may be what is meant."""
    due: int = await connection.fetchval(
        """
        SELECT count(*) FROM (
            SELECT FROM hookledger.lane l JOIN hookledger.queue q USING (lane)
            WHERE l.app = $4 AND l.endpoint = $1 AND (l.head_due IS NULL OR l.head_due <= $2)
                AND q.owner IS NULL AND q.due_at <= $2
            LIMIT $3
        ) due
        """,
        endpoint.id,
        now,
        BACKLOG,
        endpoint.app,
    )
    return due >= BACKLOG


async def _look_at(connection: Connection, app: UUID, now: datetime) -> datetime:
    """When a job that waits looks again: after the others of its application, so that they do not all look at once."""
    last: datetime = await connection.fetchval(
        """
        SELECT max(j.ready_at) FROM hookledger.job j JOIN hookledger.registry_object o ON o.id = j.id
        WHERE j.state = 'running' AND o.app = $1
        """,
        app,
    )
    return max(now + _PACE, last + _APART)


async def _fail(connection: Connection, job: Job, reason: str) -> None:
    await connection.execute(
        "UPDATE hookledger.job SET state = 'failed', reason = $2, updated_at = clock_timestamp() WHERE id = $1",
        job.id,
        reason,
    )
    _LOG.warning("job.failed", job=encode(Prefix.JOB, job.id), reason=reason)
