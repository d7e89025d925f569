"""Circuit breakers: an endpoint that is down is left alone but for probes, and gets everything when it is up again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import asyncpg
from prometheus_client import REGISTRY

from libs.common.domain.breaker import BreakerPolicy, Evidence
from libs.common.domain.outcome import Failure
from libs.common.runtime.clock import new_id
from services.dispatcher import breakers, reclaim
from tests.integration.dispatcher.parts import Parts, dispatching
from tests.integration.dispatcher.world import World, until
from tests.support.receiver import Receiver, Reply

SECOND = timedelta(seconds=1)
POLICY = BreakerPolicy(failures=5, after=0.3 * SECOND, wait=0.5 * SECOND, longest_wait=SECOND)
PATIENT = (0.1, 0.2, 0.4, 0.8, 1, 1, 1, 1, 1, 1)
"""A schedule that is not spent by what the endpoint is tried with before its breaker opens."""


async def test_an_endpoint_that_is_down_sees_only_probes_and_then_gets_everything(
    world: World, receiver: Receiver
) -> None:
    app = await world.application()
    other = await world.application()
    await world.endpoint(other, receiver.url("/other"))
    endpoint = await world.endpoint(app, receiver.script("/down", then=503), schedule=PATIENT)
    async with breaking(world) as parts:
        await world.waiting(app, endpoint, 40)
        opened = await _open(world, endpoint)
        await _until_quiet(world, endpoint)
        before = len(receiver.got("/down"))
        first = (await _open(world, endpoint))["openings"]
        await parts.fan_outs.take(await world.accept(app, 20), path="envelope")  # first attempts wait, too
        await parts.fan_outs.take(await world.accept(other, 20), path="envelope")
        assert await world.until_over(other, 20) == {"succeeded": 20}, "nobody else waits for it"
        await _openings(world, endpoint, 4)
        seen = len(receiver.got("/down")) - before
        last = (await _open(world, endpoint))["openings"]
        assert 4 - first <= seen <= last - first + 1, "a probe for each opening, and perhaps one under way"
        attempts = await world.owner.fetchval(
            "SELECT count(*) FROM projection_1.delivery_state WHERE app = $1 AND status = 'waiting' AND attempts = 0",
            app,
        )
        assert attempts >= 20 - 4, "what waits has used no attempt"
        receiver.script("/down")
        assert await world.until_over(app, 60) == {"succeeded": 60}
        assert await _breaker(world, endpoint) is None
        await parts.fan_outs.take(await world.accept(app, 3), path="envelope")
        assert await world.until_over(app, 63) == {"succeeded": 63}, "first attempts go at once again"
    assert opened["openings"] == 1


async def test_two_dispatchers_make_one_probe(world: World, receiver: Receiver) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.script("/down", then=503), schedule=PATIENT)
    async with breaking(world) as one, breaking(world) as two:
        await world.waiting(app, endpoint, 60)
        await _open(world, endpoint)
        await _until_quiet(world, endpoint)
        answering = asyncio.Event()
        receiver.script("/down", Reply(until=answering, status=503), then=503)
        before = len(receiver.got("/down"))
        await receiver.wait_for(len(receiver.requests) + 1)
        for parts in (one, two):
            await until(partial(_knows, parts, endpoint), "this one knows of it")  # first attempts ask nobody else
            await parts.fan_outs.take(await world.accept(app, 5), path="envelope")
        await asyncio.sleep(1)  # the probe hangs, and nobody may begin another
        assert len(receiver.got("/down")) == before + 1
        receiver.script("/down")
        answering.set()
        assert await world.until_over(app, 70) == {"succeeded": 70}


async def test_when_a_prober_dies_another_probes_within_seconds(world: World, receiver: Receiver) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.script("/down", then=503), schedule=PATIENT)
    async with breaking(world, renewing=False) as dead:
        await world.waiting(app, endpoint, 20)
        await _open(world, endpoint)
        await _until_quiet(world, endpoint)
        receiver.script("/down", Reply(hang=True))
        await receiver.wait_for(len(receiver.requests) + 1)
        dead.stopping.set()
        dead.claims.note([])
        await world.owner.execute("UPDATE hookledger.process SET alive_until = now() WHERE id = $1", dead.lease.process)
        await dead.attempts.drop()  # as the kernel would
        async with breaking(world) as other:
            assert await reclaim.reclaim_one(other.pool, world.epoch, other.snapshot.holds)
            assert await world.until_over(app, 20) == {"succeeded": 20}
            unknown = await world.owner.fetchval(
                "SELECT count(*) FROM projection_1.attempt WHERE app = $1 AND result = 'unknown'", app
            )
            assert unknown == 1


async def test_ordered_lanes_keep_their_order_over_an_outage(world: World, receiver: Receiver) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.script("/down", then=503), schedule=PATIENT, ordered=True)
    async with breaking(world) as parts:
        for number in range(30):
            batch = await world.accept(app, body=b'{"n":%d}' % number, ordering_key=str(number % 3))
            await parts.fan_outs.take(batch, path="envelope")
        await _open(world, endpoint)
        await _openings(world, endpoint, 2)
        receiver.script("/down")
        assert await world.until_over(app, 30) == {"succeeded": 30}
    numbers = [int(request.body[5:-1]) for request in receiver.requests if request.status == 200]
    for key in range(3):
        of_key = [number for number in numbers if number % 3 == key]
        assert of_key == list(range(key, 30, 3))


async def test_who_answers_with_4xx_is_up(world: World, receiver: Receiver) -> None:
    app = await world.application()
    endpoint = await world.endpoint(
        app, receiver.script("/busy", *[429] * 100), schedule=(0.1,) * 10, retry_client_errors=True
    )
    async with breaking(world):
        await world.waiting(app, endpoint, 30)
        assert await world.until_over(app, 30) == {"succeeded": 30}
        assert await _breaker(world, endpoint) is None


async def test_an_endpoint_that_answers_somebody_stays_closed(world: World, receiver: Receiver) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.script("/half", *[503, 503, 200] * 60), schedule=PATIENT * 4)
    before = REGISTRY.get_sample_value("hookledger_breaker_changes_total", {"change": "opened"})
    async with breaking(world):
        await world.waiting(app, endpoint, 60)
        assert await world.until_over(app, 60) == {"succeeded": 60}
    assert REGISTRY.get_sample_value("hookledger_breaker_changes_total", {"change": "opened"}) == before


async def test_changing_the_endpoint_closes_its_breaker_at_once(world: World, receiver: Receiver) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.script("/down", then=503), schedule=(10, 20, 30, 40))
    slow = BreakerPolicy(failures=5, after=0 * SECOND, wait=600 * SECOND, longest_wait=600 * SECOND)
    async with breaking(world, slow) as parts:
        await world.waiting(app, endpoint, 32)
        await receiver.wait_for(32)
        await _open(world, endpoint)
        await world.waiting(app, endpoint, 5)
        await world.change(endpoint, url=receiver.url("/up"))
        await parts.snapshot.catch_up()
        await receiver.wait_for(5, "/up", within=4)
        assert await _breaker(world, endpoint) is None
        await world.change(endpoint, disabled=True)
        await parts.snapshot.catch_up()
        parts.cancelling.wake()
        assert await world.until_over(app, 37) == {"succeeded": 5, "cancelled": 32}


async def test_what_is_too_old_ends_without_taking_the_probes_place(world: World, receiver: Receiver) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.script("/down", then=503), schedule=PATIENT)
    async with breaking(world):
        await world.waiting(app, endpoint, 10)
        await _open(world, endpoint)
        await world.waiting(app, endpoint, 50, age=timedelta(days=40), due_in=timedelta(days=-1))
        await _openings(world, endpoint, 3)
        statuses = await world.statuses(app)
        assert statuses["expired"] == 50
        receiver.script("/down")
        assert await world.until_over(app, 60) == {"succeeded": 10, "expired": 50}


async def test_a_rate_holds_for_probes_and_for_what_follows(world: World, receiver: Receiver) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.script("/down", then=503), schedule=PATIENT, throttle_rate=40)
    async with breaking(world):
        await world.waiting(app, endpoint, 40)
        await _open(world, endpoint)
        await _openings(world, endpoint, 3)
        receiver.script("/down")
        assert await world.until_over(app, 40) == {"succeeded": 40}


async def test_without_breakers_an_endpoint_is_tried_as_its_schedule_says(world: World, receiver: Receiver) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.script("/down", then=503), schedule=(0.5, 0.5))
    async with breaking(world, None):
        await world.waiting(app, endpoint, 20)
        assert await world.until_over(app, 20) == {"exhausted": 20}
        assert len(receiver.requests) == 60
        assert await _breaker(world, endpoint) is None


async def test_what_began_before_the_last_answer_says_nothing_and_an_index_finds_the_rest(world: World) -> None:
    endpoint, noise = new_id(), new_id()
    async with world.owner.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        now: datetime = await connection.fetchval("SELECT clock_timestamp() - interval '10 seconds'")
        await connection.execute(
            """
            INSERT INTO projection_1.attempt (delivery, attempt, app, message, endpoint, run, number, trigger,
                config_version, process, result, status, failure, url, sends, total_us, started_at, ended_at)
            SELECT $1, gen_random_uuid(), $1, $1, $1, 1, n, 'scheduled', 1, $1, 'retryable', 500, NULL, '', 1, 1, $2, $2
            FROM generate_series(1, 20000) AS n
            """,
            noise,
            now,
        )

        async def attempt(began: float, ended: float, *, version: int = 1, **answer: Any) -> None:
            await connection.execute(
                """
                INSERT INTO projection_1.attempt (delivery, attempt, app, message, endpoint, run, number, trigger,
                    config_version, process, result, status, failure, url, sends, total_us, started_at, ended_at)
                VALUES ($1, $2, $1, $1, $3, 1, 1, 'scheduled', $4, $1, '-', $5, $6, '', 1, 1, $7, $8)
                """,
                noise,
                new_id(),
                endpoint,
                version,
                answer.get("status"),
                answer.get("failure"),
                now + began * SECOND,
                now + ended * SECOND,
            )

        await attempt(0, 1, status=503)
        await attempt(0, 3, status=404)
        await attempt(2.5, 9, status=503)  # began before that answer
        await attempt(3, 4, status=503)
        await attempt(3.5, 5, failure=Failure.TIMEOUT)
        await attempt(4, 6, status=500, version=2)
        await attempt(4, 7, failure=Failure.TRANSFORMATION)
        await attempt(4, 8, failure=Failure.CONNECT)
        _, found = await breakers.evidence(connection, endpoint, config_version=1, since=now)
        assert found == Evidence(down=3, lasted=4 * SECOND)
        _, later = await breakers.evidence(connection, endpoint, config_version=1, since=now + 3.2 * SECOND)
        assert later == Evidence(down=2, lasted=3 * SECOND)
        _, none = await breakers.evidence(connection, endpoint, config_version=3, since=now)
        assert none == Evidence(down=0, lasted=0 * SECOND)
        await connection.execute("ANALYZE projection_1.attempt")
        plan = await connection.fetch(
            f"EXPLAIN {breakers.EVIDENCE}", endpoint, endpoint, now, 1, [Failure.TIMEOUT.value]
        )
        assert "endpoint_attempt_idx" in "\n".join(row[0] for row in plan)
        await transaction.rollback()


@asynccontextmanager
async def breaking(
    world: World, policy: BreakerPolicy | None = POLICY, *, renewing: bool = True
) -> AsyncIterator[Parts]:
    """A dispatcher with breakers that open soon, which claims."""
    async with dispatching(world, renewing=renewing, breaker=policy) as parts:
        parts.start_claiming()
        yield parts


async def _breaker(world: World, endpoint: UUID) -> asyncpg.Record | None:
    return await world.owner.fetchrow("SELECT * FROM hookledger.breaker WHERE endpoint = $1", endpoint)


async def _open(world: World, endpoint: UUID) -> asyncpg.Record:
    """The breaker, once it has opened."""

    async def found() -> asyncpg.Record | None:
        return await _breaker(world, endpoint)

    return await until(found, "the breaker opens")


async def _knows(parts: Parts, endpoint: UUID) -> bool:
    return endpoint in parts.breaking._known


async def _openings(world: World, endpoint: UUID, count: int) -> None:
    async def found() -> bool:
        row = await _breaker(world, endpoint)
        return row is not None and row["openings"] >= count

    await until(found, f"the breaker opens for the {count}th time")


async def _until_quiet(world: World, endpoint: UUID) -> datetime:
    """When what was under way or being claimed as the breaker opened is over, and no probe is."""

    async def quiet() -> datetime | None:
        found: datetime | None = await world.owner.fetchval(
            """
            SELECT clock_timestamp() FROM hookledger.breaker b
            WHERE endpoint = $1 AND openings > 1 AND open_until > clock_timestamp()
                AND NOT EXISTS (SELECT FROM projection_1.delivery_state WHERE endpoint = $1 AND status = 'sending')
            """,
            endpoint,
        )
        return found

    return await until(quiet, "nothing is under way")
