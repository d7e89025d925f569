"""Messages, deliveries and attempts as the other services leave them: decided by the core, written as they write."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg
from msgspec.structs import fields

from libs.common.domain import delivery, ids
from libs.common.domain.attempts import AttemptRow, attempt_rows
from libs.common.domain.commands import AbandonAttempt, DeclareUnknown, RecordAnswer, StartAttempt
from libs.common.domain.delivery import Delivery, Status
from libs.common.domain.endpoint import Rule
from libs.common.domain.facts import DeliveryFact, DeliveryScheduled, MessageAccepted, Origin, Timings
from libs.common.domain.ids import Prefix
from libs.common.domain.outcome import Answer, Failure
from libs.common.domain.retry import RetryPolicy
from libs.common.postgres import ledger
from libs.common.postgres.ledger import Appended
from libs.common.runtime.clock import new_id, random_bytes

POLICY = RetryPolicy(schedule=(timedelta(seconds=1), timedelta(seconds=2)))
SENDING = "sending"
UNKNOWN = "unknown"
ABANDONED = "abandoned"
Step = int | Failure | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """An application as the database knows it."""

    org: UUID
    app: UUID

    @classmethod
    def of(cls, organisation: str, application: str) -> "Place":
        return cls(org=ids.decode(Prefix.ORGANISATION, organisation), app=ids.decode(Prefix.APPLICATION, application))


async def accept(
    sql: "asyncpg.Connection[asyncpg.Record]",
    place: Place,
    body: bytes = b'{"a": 1}',
    *,
    event_type: str = "order.completed",
    channels: Sequence[str] = (),
    tags: Sequence[str] = (),
    event_id: str | None = None,
    content_type: str = "application/json",
    publish: bool = False,
    at: datetime | None = None,
) -> UUID:
    """A committed message, of now or of another time."""
    await asyncio.sleep(0.002)  # ids of one millisecond are in no order
    message = new_id() if at is None else ids.time_ordered(int(at.timestamp() * 1000), random_bytes(10))
    if at is None:
        at = await sql.fetchval("SELECT clock_timestamp()")
    await sql.execute(
        """
        INSERT INTO hookledger.message (id, org, app, event_type, channels, event_id, origin, content_type, body_hash,
            body_bytes, registry_version, publish, accepted_at, tags)
        VALUES ($1, $2, $3, $4, $5, $6, 'api', $7, '', $8, 1, $11, $9, $10)
        """,
        message,
        place.org,
        place.app,
        event_type,
        list(channels),
        event_id,
        content_type,
        len(body),
        at,
        list(tags),
        publish,
    )
    await sql.execute("INSERT INTO hookledger.message_body (message, salt, body) VALUES ($1, '', $2)", message, body)
    fact = MessageAccepted(
        at=at, event_type=event_type, origin=Origin.API, source=None, registry_version=1, publish=publish
    )
    await ledger.append(
        sql, await _epoch(sql), [Appended(stream=message, version=1, app=place.app, endpoint=None, fact=fact)]
    )
    return message


async def deliver(
    sql: "asyncpg.Connection[asyncpg.Record]",
    place: Place,
    message: UUID,
    endpoint: UUID,
    steps: Sequence[Step],
    *,
    response: bytes | None = None,
    url: str = "https://receiver.example/hook",
    at: datetime | None = None,
) -> UUID:
    """A delivery whose attempts went as `steps` say: a status, a failure, unknown, abandoned, or still sending."""
    stream = ids.delivery_id(message, endpoint)
    if at is None:
        # Attempts of a delivery told later are later ones, also where the one before was told ahead of the clock.
        at = await sql.fetchval(
            "SELECT greatest(clock_timestamp(), (SELECT max(updated_at) FROM projection_1.delivery_state))"
        )
    scheduled = DeliveryScheduled(
        at=at, app=place.app, message=message, endpoint=endpoint, config_version=1, rule=Rule.ALL, due_at=at
    )
    facts: list[DeliveryFact] = [scheduled]
    state = delivery.scheduled(scheduled)
    for step in steps:
        at += timedelta(milliseconds=10)
        attempt = ids.time_ordered(int(at.timestamp() * 1000), random_bytes(10))
        started = delivery.decide(
            state,
            StartAttempt(at=at, attempt=attempt, config_version=1, signing_key=None, process=new_id()),
        )
        facts += started
        state = delivery.fold(facts)
        if step == SENDING:
            break
        at += timedelta(milliseconds=25)
        facts += delivery.decide(state, _end(step, at, attempt, url))
        state = delivery.fold(facts)
        if response is not None and isinstance(step, int):
            await sql.execute(
                "INSERT INTO hookledger.attempt_content (delivery, attempt, response, url_query) VALUES ($1, $2, $3, $4)",
                stream,
                attempt,
                response,
                "token=1",
            )
    items = [
        Appended(stream=stream, version=number, app=place.app, endpoint=endpoint, fact=fact)
        for number, fact in enumerate(facts, start=1)
    ]
    async with sql.transaction():
        await ledger.append(sql, await _epoch(sql), items)
        await _project(sql, stream, state, attempt_rows(stream, facts))
        await _schedule(sql, stream, state)
    return stream


async def _epoch(sql: "asyncpg.Connection[asyncpg.Record]") -> int:
    epoch: int = await sql.fetchval("SELECT max(epoch) FROM hookledger.ledger_epoch")
    return epoch


def _end(step: Step, at: datetime, attempt: UUID, url: str) -> RecordAnswer | DeclareUnknown | AbandonAttempt:
    if step == UNKNOWN:
        return DeclareUnknown(at=at, attempt=attempt, holds=False)
    if step == ABANDONED:
        return AbandonAttempt(at=at, attempt=attempt)
    answer = Answer(failure=step) if isinstance(step, Failure) else Answer(status=int(step))
    return RecordAnswer(
        at=at,
        attempt=attempt,
        answer=answer,
        policy=POLICY,
        jitter=0.0,
        url=url,
        peer="192.0.2.1",
        sends=1,
        timings=Timings(total=timedelta(milliseconds=25)),
    )


async def _project(
    sql: "asyncpg.Connection[asyncpg.Record]", stream: UUID, state: Delivery, rows: Sequence[AttemptRow]
) -> None:
    columns = {field.name: getattr(state, field.name) for field in fields(state)}
    await _insert(sql, "projection_1.delivery_state", {"delivery": stream, **columns})
    for row in rows:
        await _insert(sql, "projection_1.attempt", {field.name: getattr(row, field.name) for field in fields(row)})


async def _schedule(sql: "asyncpg.Connection[asyncpg.Record]", stream: UUID, state: Delivery) -> None:
    """What a delivery that is not over has in the queue, in its lane and in its application's turn."""
    if state.status.terminal:
        return
    counted = state.status is Status.SENDING and state.attempts > 1  # the first began with its delivery
    due_at = state.due_at or state.updated_at
    await _insert(
        sql,
        "hookledger.queue",
        {
            "delivery": stream,
            "lane": state.endpoint,
            "due_at": due_at,
            "owner": state.process,
            "counted": counted,
        },
    )
    if state.process is not None:
        await sql.execute(
            """
            INSERT INTO hookledger.process (id, epoch, service, host, started_at, alive_until)
            VALUES ($1, 1, 'dispatcher', 'test', now(), 'infinity')
            """,
            state.process,
        )
    if state.process is None or counted:
        head = due_at if state.process is None else None
        await sql.execute(
            """
            INSERT INTO hookledger.lane AS l (lane, app, endpoint, ready_at, head_due, inflight, max_inflight)
            VALUES ($1, $2, $1, coalesce($3::timestamptz, 'infinity'), $3, $4, 32)
            ON CONFLICT (lane) DO UPDATE SET inflight = l.inflight + excluded.inflight,
                head_due = least(l.head_due, $3), ready_at = least(l.ready_at, excluded.ready_at)
            """,
            state.endpoint,
            state.app,
            head,
            int(counted),
        )
        await sql.execute(
            """
            INSERT INTO hookledger.app_turn AS t VALUES ($1, coalesce($2::timestamptz, 'infinity'))
            ON CONFLICT (app) DO UPDATE SET ready_at = least(t.ready_at, excluded.ready_at)
            """,
            state.app,
            head,
        )


async def _insert(sql: "asyncpg.Connection[asyncpg.Record]", table: str, columns: dict[str, object]) -> None:
    marks = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
    await sql.execute(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", *columns.values())  # noqa: S608  our own names
