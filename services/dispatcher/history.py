"""The history that a job is about: the messages of its range, in their order, and what it wants for each."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg

from libs.common.contracts.registry import JobDocument
from libs.common.domain.delivery import Delivery, Status
from libs.common.domain.endpoint import Endpoint, match
from libs.common.domain.facts import MessageFannedOut, Origin
from libs.common.domain.ids import delivery_id, lowest
from libs.common.domain.job import Candidate, Task, Wish, wish, within
from libs.common.postgres.ledger import appended
from libs.common.postgres.pool import Connection
from libs.common.runtime.expressions.evaluation import PayloadFilters
from services.dispatcher import projection

SCAN: Final = 1_000
FILTERED_SCAN: Final = 32
"""Messages that are looked at together where each one's payload, a MiB at most, is asked for its filter."""
CHUNK: Final = 128
PENDING_AT_MOST: Final = timedelta(seconds=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job, and the last message that it has looked at."""

    id: UUID
    app: UUID
    document: JobDocument
    cursor: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A message of the job's range, the `position`th of those that are looked at now, and its delivery's id.

    `wanted_from` is the time before which nothing of it is to be sent: its acceptance, or a later one asked for.
    """

    position: int
    message: UUID
    delivery: UUID
    accepted_at: datetime
    wanted_from: datetime
    matches: bool
    pending: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the job wants for a message; `known` says that there was a delivery when it was read."""

    place: Place
    wish: Wish
    known: bool


@dataclass(slots=True, kw_only=True)
class Chunk:
    """What one transaction does for a job. `cursor` is None where the range has come to its end."""

    examined: int
    cursor: UUID | None
    wanted: list[Wanted] = field(default_factory=list)
    waits: bool = False

    def stop_before(self, place: Place) -> None:
        """Go no further than up to this message, and come back to it a little later."""
        self.examined = place.position
        self.cursor = UUID(int=place.message.int - 1)
        self.waits = True


async def next_chunk(connection: Connection, job: Job, endpoint: Endpoint, now: datetime) -> Chunk:
    """The next messages of the job's range, at most `CHUNK` of which it wants something for."""
    places, scanned_to = await _scan(connection, job, endpoint)
    states = await _read(connection, [place.delivery for place in places])
    skipped = await _skipped(connection, states)
    missed = await _missed(connection, job, [p.message for p in places if p.matches and p.delivery not in states])
    chunk = Chunk(examined=len(places), cursor=scanned_to)
    for place in places:
        state = states.get(place.delivery)
        if place.pending and state is None and now - place.accepted_at < PENDING_AT_MOST:
            chunk.stop_before(place)  # its fan-out comes first; one that keeps failing is not waited for
            break
        candidate = Candidate(
            delivery=state,
            matches=place.matches,
            missed=place.message in missed,
            skipped=place.delivery in skipped,
            early=place.wanted_from > now,
        )
        wanted = wish(job.document.task, candidate, only_failed=job.document.only_failed)
        if wanted is None or (place.pending and state is None):
            continue
        if job.document.task is Task.RESEND and state is not None and state.asked:
            chunk.stop_before(place)  # another's attempt comes first
            break
        chunk.wanted.append(Wanted(place=place, wish=wanted, known=state is not None))
        if len(chunk.wanted) == CHUNK:
            chunk.examined, chunk.cursor = place.position + 1, place.message
            break
    return chunk


async def _scan(connection: Connection, job: Job, endpoint: Endpoint) -> tuple[list[Place], UUID | None]:
    """The next messages after the cursor, and the last id that was looked at; None where there are no more."""
    after, last = _bounds(job)
    filtered = endpoint.filter is not None
    most = FILTERED_SCAN if filtered else SCAN
    rows = await connection.fetch(
        """
        SELECT m.id, m.event_type, m.channels, m.accepted_at, m.origin, o.message IS NOT NULL AS pending,
            nullif(m.deliver_at, '-infinity') AS deliver_at, -- see `messages`
            b.message IS NOT NULL AS kept, CASE WHEN $5 THEN b.body END AS body
        FROM hookledger.message m
            LEFT JOIN hookledger.outbox o ON o.message = m.id
            LEFT JOIN hookledger.message_body b ON b.message = m.id
        WHERE m.app = $1 AND m.id > $2 AND m.id <= $3
        ORDER BY m.id LIMIT $4
        """,
        job.app,
        after,
        last,
        most,
        filtered,
    )
    places = []
    for position, row in enumerate(row for row in rows if row["kept"] and _is_meant(job.document, row)):
        filters = PayloadFilters(row["body"] or b"")
        place = Place(
            position=position,
            message=row["id"],
            delivery=delivery_id(row["id"], endpoint.id),
            accepted_at=row["accepted_at"],
            wanted_from=row["deliver_at"] or row["accepted_at"],
            matches=match(
                endpoint, event_type=row["event_type"], channels=frozenset(row["channels"]), judge=filters.judge
            ).matched,
            pending=row["pending"],
        )
        places.append(place)
        if filters.asked:
            await asyncio.sleep(0)  # a costly filter keeps everything else waiting for one message at most
    return places, rows[-1]["id"] if len(rows) == most else None


def _bounds(job: Job) -> tuple[UUID, UUID]:
    """The range of ids that is still to be looked at: above the first, up to the second."""
    document = job.document
    if document.message is not None:
        return max(job.cursor, UUID(int=document.message.int - 1)), document.message
    assert document.since is not None
    assert document.until is not None
    since, until = (int(at.timestamp() * 1000) for at in (document.since, document.until))
    return max(job.cursor, lowest(max(since, 0))), lowest(until + 1)


def _is_meant(document: JobDocument, row: asyncpg.Record) -> bool:
    if document.message is not None:
        return True
    assert document.since is not None
    assert document.until is not None
    return (
        document.since <= row["accepted_at"] < document.until
        and row["origin"] != Origin.EXAMPLE  # meant for one endpoint, and no part of the history
        and (document.event_types is None or row["event_type"] in document.event_types)
    )


async def _read(connection: Connection, deliveries: Sequence[UUID]) -> dict[UUID, Delivery]:
    rows = await connection.fetch(
        f"SELECT {projection.STATE_COLUMNS} FROM delivery_state d WHERE d.delivery = ANY($1)",  # noqa: S608  a constant
        deliveries,
    )
    return {row["delivery"]: projection.delivery_of(row) for row in rows}


async def _skipped(connection: Connection, states: Mapping[UUID, Delivery]) -> set[UUID]:
    """Those of the deliveries that are cancelled because somebody had them passed over, by their last such fact."""
    cancelled = [delivery for delivery, state in states.items() if state.status is Status.CANCELLED]
    if not cancelled:
        return set()
    rows = await connection.fetch(
        """
        SELECT DISTINCT ON (stream) stream, kind FROM hookledger.fact
        WHERE stream = ANY($1) AND kind IN ('DeliveryCancelled', 'DeliverySkipped')
        ORDER BY stream, version DESC
        """,
        cancelled,
    )
    return {row["stream"] for row in rows if row["kind"] == "DeliverySkipped"}


async def _missed(connection: Connection, job: Job, messages: Sequence[UUID]) -> set[UUID]:
    """Those of the messages that were fanned out while the endpoint was disabled."""
    if not messages or not job.document.disabled:
        return set()
    rows = await connection.fetch(
        """
        SELECT stream, version, app, endpoint, kind, schema, at, data FROM hookledger.fact
        WHERE stream = ANY($1) AND kind = 'MessageFannedOut'
        """,
        messages,
    )
    found = set()
    for item in map(appended, rows):
        assert isinstance(item.fact, MessageFannedOut)
        if within(job.document.disabled, item.fact.registry_version):
            found.add(item.stream)
    return found
