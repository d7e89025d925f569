"""The ledger: facts are appended at the next version of their stream, and read back as they were."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest

from libs.common.domain.delivery import Status, fold
from libs.common.domain.endpoint import Rule
from libs.common.domain.facts import (
    AttemptEnded,
    AttemptStarted,
    DeliveryExhausted,
    DeliveryFact,
    DeliveryScheduled,
    Fact,
    MessageAccepted,
    MessageFannedOut,
    Origin,
    RetryScheduled,
    Timings,
    Trigger,
)
from libs.common.domain.ids import delivery_id
from libs.common.domain.outcome import Failure, Outcome
from libs.common.postgres.ledger import Appended, append, read_streams
from libs.common.postgres.pool import Pool, open_pool, transaction
from libs.common.runtime.clock import new_id

AT = datetime(2026, 2, 3, 4, 5, 6, 789012, tzinfo=UTC)
EPOCH = 1


@pytest.fixture(scope="module")
async def pool(database: str) -> AsyncIterator[Pool]:
    """The dispatcher's."""
    async with await open_pool(database, "dispatcher", size=4) as opened:
        yield opened


async def test_what_is_appended_is_read_back_stream_by_stream_in_the_order_of_versions(pool: Pool) -> None:
    message, app, endpoint = new_id(), new_id(), new_id()
    delivery = delivery_id(message, endpoint)
    of_message: list[Fact] = [
        MessageAccepted(
            at=AT, event_type="a.b", origin=Origin.SOURCE, source=new_id(), registry_version=7, publish=True
        ),
        MessageFannedOut(at=AT, registry_version=8, counts={Rule.ALL: 1, Rule.DISABLED: 2}),
    ]
    of_delivery = _life(app, message, endpoint)
    appended = [
        *(
            Appended(stream=message, version=n, app=app, endpoint=None, fact=fact)
            for n, fact in enumerate(of_message, 1)
        ),
        *(
            Appended(stream=delivery, version=n, app=app, endpoint=endpoint, fact=fact)
            for n, fact in enumerate(of_delivery, 1)
        ),
    ]
    async with transaction(pool) as connection:
        await append(connection, EPOCH, list(reversed(appended)))
    async with pool.acquire() as connection:
        read = await read_streams(connection, [delivery, message])
    assert read == sorted(appended, key=lambda item: (item.stream, item.version))
    assert fold([item.fact for item in read if item.stream == delivery]).status is Status.EXHAUSTED  # type: ignore[misc]


async def test_a_version_is_taken_once_and_the_whole_append_fails_with_it(pool: Pool) -> None:
    app, message, endpoint = new_id(), new_id(), new_id()
    delivery = delivery_id(message, endpoint)
    facts = [
        Appended(stream=delivery, version=n, app=app, endpoint=endpoint, fact=fact)
        for n, fact in enumerate(_life(app, message, endpoint), 1)
    ]
    async with transaction(pool) as connection:
        await append(connection, EPOCH, facts[:2])
    with pytest.raises(asyncpg.UniqueViolationError):
        async with transaction(pool) as connection:
            await append(connection, EPOCH, facts[1:])
    async with pool.acquire() as connection:
        assert await read_streams(connection, [delivery]) == facts[:2]


async def test_of_two_writers_of_one_version_the_second_fails_when_the_first_commits(pool: Pool) -> None:
    stream = new_id()
    async with pool.acquire() as one, pool.acquire() as other:
        first = one.transaction()
        await first.start()
        await append(one, EPOCH, [_accepted(stream)])
        async with other.transaction():
            await other.execute("SET LOCAL lock_timeout = '50ms'")
            savepoint = other.transaction()
            await savepoint.start()
            with pytest.raises(asyncpg.LockNotAvailableError):
                await append(other, EPOCH, [_accepted(stream)])
            await savepoint.rollback()
        await first.commit()
        with pytest.raises(asyncpg.UniqueViolationError):
            await append(other, EPOCH, [_accepted(stream)])


async def test_a_fact_knows_its_place_position_transaction_and_epoch(pool: Pool) -> None:
    streams = [new_id() for _ in range(3)]
    async with transaction(pool) as connection:
        await append(connection, EPOCH, [_accepted(stream) for stream in streams])
        own = await connection.fetchval("SELECT pg_current_xact_id()::text")
    rows = await pool.fetch(
        "SELECT xact::text, position, epoch FROM hookledger.fact WHERE stream = ANY($1) ORDER BY position", streams
    )
    assert {row["xact"] for row in rows} == {own}
    assert {row["epoch"] for row in rows} == {EPOCH}
    positions = [row["position"] for row in rows]
    assert positions == list(range(positions[0], positions[0] + 3))


async def test_data_is_json_that_psql_can_show(pool: Pool) -> None:
    stream = new_id()
    async with transaction(pool) as connection:
        await append(connection, EPOCH, [_accepted(stream)])
    shown = await pool.fetchval(
        "SELECT convert_from(data, 'UTF8')::jsonb ->> 'event_type' FROM hookledger.fact WHERE stream = $1", stream
    )
    assert shown == "order.completed"


def _accepted(stream: UUID) -> Appended:
    fact = MessageAccepted(
        at=AT, event_type="order.completed", origin=Origin.API, source=None, registry_version=1, publish=False
    )
    return Appended(stream=stream, version=1, app=new_id(), endpoint=None, fact=fact)


def _life(app: UUID, message: UUID, endpoint: UUID) -> list[DeliveryFact]:
    """A delivery that fails twice and is exhausted."""
    first, second, process = new_id(), new_id(), new_id()

    def started(attempt: UUID, number: int) -> AttemptStarted:
        return AttemptStarted(
            at=AT,
            attempt=attempt,
            run=1,
            number=number,
            trigger=Trigger.SCHEDULED,
            config_version=3,
            signing_key=None,
            process=process,
        )

    def ended(attempt: UUID, status: int | None, failure: Failure | None, delay: timedelta | None) -> AttemptEnded:
        return AttemptEnded(
            at=AT,
            attempt=attempt,
            outcome=Outcome.RETRYABLE,
            status=status,
            failure=failure,
            url="https://receiver.example/hook",
            peer="198.51.100.7:443",
            sends=2,
            timings=Timings(dns=timedelta(microseconds=1), total=timedelta(seconds=1.5)),
            base_delay=delay,
            jitter=None if delay is None else -0.25,
            retry_after=delay,
        )

    return [
        DeliveryScheduled(
            at=AT, app=app, message=message, endpoint=endpoint, config_version=3, rule=Rule.EVENT_TYPE, due_at=AT
        ),
        started(first, 1),
        ended(first, 503, None, timedelta(minutes=5)),
        RetryScheduled(at=AT, due_at=AT + timedelta(minutes=5)),
        started(second, 2),
        ended(second, None, Failure.TIMEOUT, None),
        DeliveryExhausted(at=AT),
    ]
