"""Leases: a dead process's attempts are declared unknown and followed by another; one that slept says nothing more."""

import asyncio
from datetime import timedelta

import pytest

from libs.common.contracts.registry import OnExhausted
from libs.common.domain.ids import delivery_id
from libs.common.domain.retry import MOST_UNKNOWN_IN_A_ROW
from services.dispatcher import reclaim
from services.dispatcher.lease import LeaseLostError
from services.dispatcher.metrics import LEASES_LOST
from tests.integration.dispatcher.parts import Parts, dispatching
from tests.integration.dispatcher.world import World, until
from tests.support.receiver import Receiver, Reply


async def test_the_attempts_of_a_dead_process_are_unknown_and_followed_by_another(
    world: World, receiver: Receiver
) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.script("/hook", Reply(hang=True)))
    async with dispatching(world, renewing=False) as dead:
        [message] = await world.accept(app)
        await dead.fan_outs.take([message], path="envelope")
        await receiver.wait_for(1)
        await _pass(world, dead)
        await dead.attempts.drop()  # as the kernel would
        async with dispatching(world) as other:
            assert await reclaim.reclaim_one(other.pool, world.epoch, other.snapshot.holds)
            other.start_claiming()
            assert await world.until_over(app, 1) == {"succeeded": 1}
    delivery = delivery_id(message.id, endpoint)
    assert await world.facts(delivery) == [
        *("DeliveryScheduled", "AttemptStarted", "AttemptOutcomeUnknown", "RetryScheduled"),
        *("AttemptStarted", "AttemptEnded"),
    ]
    attempts = await world.owner.fetch(
        "SELECT number, result, sends, process FROM projection_1.attempt WHERE delivery = $1 ORDER BY number", delivery
    )
    assert [tuple(row.values())[:3] for row in attempts] == [(1, "unknown", 1), (2, "succeeded", 1)]
    assert attempts[0]["process"] == dead.lease.process
    assert len({request.id for request in receiver.requests}) == 1


async def test_unknown_attempts_use_no_place_in_the_schedule_and_five_in_a_row_exhaust(world: World) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, "http://127.0.0.1:9/", schedule=())
    [delivery] = await world.waiting(app, endpoint, 1)
    for number in range(1, MOST_UNKNOWN_IN_A_ROW + 1):
        async with dispatching(world, renewing=False) as dying:
            flights, _ = await dying.claims._claim(1)
            assert len(flights) == 1
            await _pass(world, dying)
            assert await reclaim.reclaim_one(dying.pool, world.epoch, dying.snapshot.holds)
        state = await world.state(delivery)
        assert (state["unknowns"], state["failures"]) == (number, 0)
        assert state["status"] == ("exhausted" if number == MOST_UNKNOWN_IN_A_ROW else "waiting")


async def test_whoever_takes_over_looks_first_which_endpoints_there_are(world: World) -> None:
    """What is exhausted keeps its place at an endpoint that the dead process knew, and this one has not heard of."""
    app = await world.application()
    async with dispatching(world) as other:
        hold = {"ordered": True, "on_exhausted": OnExhausted.HOLD}
        endpoint = await world.endpoint(app, "http://127.0.0.1:9/", schedule=(), **hold)
        [delivery] = await world.waiting(app, endpoint, 1)
        for number in range(1, MOST_UNKNOWN_IN_A_ROW + 1):
            async with dispatching(world, renewing=False) as dying:
                assert len((await dying.claims._claim(1))[0]) == 1
                await _pass(world, dying)
            if number < MOST_UNKNOWN_IN_A_ROW:
                assert await reclaim.reclaim_one(other.pool, world.epoch, other.snapshot.holds)
        other.tasks.create_task(reclaim.run(other.pool, world.epoch, other.snapshot, other.stopping))
        await world.until_status(delivery, "held")


async def test_a_process_whose_lease_has_passed_records_nothing_and_begins_again(
    world: World, receiver: Receiver
) -> None:
    app = await world.application()
    answering = asyncio.Event()
    url = receiver.script("/hook", Reply(until=answering), Reply(status=204))
    endpoint = await world.endpoint(app, url)
    async with dispatching(world, renewing=False) as sleeper, dispatching(world) as other:
        [message] = await world.accept(app)
        await sleeper.fan_outs.take([message], path="envelope")
        await receiver.wait_for(1)
        await _pass(world, sleeper)
        assert await reclaim.reclaim_one(other.pool, world.epoch, other.snapshot.holds)
        answering.set()
        await asyncio.wait([*sleeper.attempts._tasks], timeout=5)  # the answer comes, and is not recorded
        delivery = delivery_id(message.id, endpoint)
        assert await world.facts(delivery) == [
            *("DeliveryScheduled", "AttemptStarted", "AttemptOutcomeUnknown", "RetryScheduled"),
        ]
        assert sleeper.capacity.in_flight == 0

        with pytest.raises(LeaseLostError):
            await sleeper.claims._claim(1)
        await sleeper.lease._renew_or_begin_again()
        assert sleeper.lease.held
        sleeper.start_claiming()
        assert await world.until_over(app, 1) == {"succeeded": 1}
    assert (await world.state(delivery))["last_status"] == 204
    assert len(receiver.requests) == 2


async def test_nothing_is_fanned_out_at_once_under_a_lease_that_has_passed(world: World) -> None:
    app = await world.application()
    await world.endpoint(app, "http://127.0.0.1:9/")
    async with dispatching(world, renewing=False) as sleeper:
        await _pass(world, sleeper)
        [message] = await world.accept(app)
        with pytest.raises(LeaseLostError):
            await sleeper.fan_outs.batcher.submit(message)
    assert await world.facts(message.id) == ["MessageAccepted"]
    assert await world.statuses(app) == {}


async def test_a_process_does_not_begin_again_before_its_work_has_moved(world: World) -> None:
    async with dispatching(world, renewing=False) as sleeper:
        lost = LEASES_LOST._value.get()
        await _pass(world, sleeper)
        for _ in range(3):
            await sleeper.lease._renew_or_begin_again()
            assert not sleeper.lease.held
        assert LEASES_LOST._value.get() - lost == 1
        assert await reclaim.reclaim_one(sleeper.pool, world.epoch, sleeper.snapshot.holds)
        await sleeper.lease._renew_or_begin_again()
        assert sleeper.lease.held


async def test_an_attempt_is_not_sent_once_the_lease_has_passed_by_the_processs_own_clock(
    world: World, receiver: Receiver
) -> None:
    app = await world.application()
    await world.waiting(app, await world.endpoint(app, receiver.url()), 1)
    async with dispatching(world, renewing=False) as sleeper:
        [flight], _ = await sleeper.claims._claim(1)
        sleeper.lease._until = 0.0
        sleeper.attempts.begin(flight)
        await asyncio.wait([*sleeper.attempts._tasks], timeout=5)
        assert receiver.requests == []
        assert sleeper.capacity.in_flight == 0


async def test_an_attempt_of_an_earlier_epoch_is_not_sent_in_the_next(world: World, receiver: Receiver) -> None:
    """Its claim had committed when the lease passed; in between it was declared unknown."""
    app = await world.application()
    await world.waiting(app, await world.endpoint(app, receiver.url()), 1)
    async with dispatching(world, renewing=False) as sleeper:
        [flight], _ = await sleeper.claims._claim(1)
        await _pass(world, sleeper)
        assert await reclaim.reclaim_one(sleeper.pool, world.epoch, sleeper.snapshot.holds)
        await sleeper.lease._renew_or_begin_again()
        assert sleeper.lease.held
        sleeper.attempts.begin(flight)
        await asyncio.wait([*sleeper.attempts._tasks], timeout=5)
        assert receiver.requests == []
        assert sleeper.capacity.in_flight == 0


async def test_a_process_that_writes_is_not_taken_over_until_it_has_written(world: World) -> None:
    async with dispatching(world, renewing=False) as writing:
        async with writing.pool.acquire() as connection, connection.transaction():
            await writing.lease.fence(connection)
            await _pass(world, writing)
            assert not await reclaim.reclaim_one(writing.pool, world.epoch, writing.snapshot.holds)
        assert await reclaim.reclaim_one(writing.pool, world.epoch, writing.snapshot.holds)


async def test_a_dead_process_is_taken_over_once_by_several_at_once(world: World, receiver: Receiver) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, "http://127.0.0.1:9/")
    await world.waiting(app, endpoint, 32)
    async with dispatching(world, renewing=False) as dead:
        flights, _ = await dead.claims._claim(32)
        assert len(flights) == 32
        await _pass(world, dead)
        taken = await asyncio.gather(
            *(reclaim.reclaim_one(dead.pool, world.epoch, dead.snapshot.holds) for _ in range(4))
        )
    assert sorted(taken) == [False, False, False, True]
    assert await world.statuses(app) == {"waiting": 32}
    assert await world.owner.fetchval("SELECT inflight FROM hookledger.lane WHERE lane = $1", endpoint) == 0


async def test_a_dispatcher_that_has_left_does_not_come_back_with_its_last_renewal(world: World) -> None:
    async with dispatching(world, renewing=False) as parts:
        async with world.owner.acquire() as connection, connection.transaction():
            await connection.execute("SELECT FROM hookledger.process WHERE id = $1 FOR UPDATE", parts.lease.process)
            ending = asyncio.create_task(parts.lease.end())  # waits for this transaction
            await until(lambda: _somebody_waits(world), "the row is about to go")
            renewing = asyncio.create_task(parts.lease._renew_or_begin_again())
            await asyncio.sleep(0.1)
        await asyncio.gather(ending, renewing)
        assert not await world.owner.fetchval(
            "SELECT EXISTS (SELECT FROM hookledger.process WHERE id = $1)", parts.lease.process
        )
        assert not parts.lease.held


async def _somebody_waits(world: World) -> bool:
    return bool(await world.owner.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"))


async def test_a_second_dispatcher_halves_the_share_of_first_attempts(world: World) -> None:
    async with dispatching(world) as one, dispatching(world):
        await one.lease._renew_or_begin_again()
        assert one.lease.standing.of == 2


async def _pass(world: World, parts: Parts) -> None:
    """Let a process's lease pass, by the database's clock, as if it had slept."""
    await world.owner.execute(
        "UPDATE hookledger.process SET alive_until = clock_timestamp() - $2::interval WHERE id = $1",
        parts.lease.process,
        timedelta(seconds=1),
    )
