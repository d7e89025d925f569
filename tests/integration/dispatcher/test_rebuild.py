"""Rebuild beside running dispatchers: nothing that they write meanwhile is lost, and nobody is sent anything twice."""

import asyncio
from collections import Counter

import pytest

from libs.common.domain.commands import RecordAnswer
from libs.common.domain.facts import Timings
from libs.common.domain.ids import delivery_id
from libs.common.domain.outcome import Answer
from libs.common.postgres import chunks
from libs.common.runtime import clock
from services.dispatcher import projecting, reclaim
from services.dispatcher.flight import Flight
from services.dispatcher.recorder import Ending
from tests.integration.dispatcher.parts import Parts, dispatching
from tests.integration.dispatcher.world import World, until
from tests.support.receiver import Receiver

NOWHERE = "http://127.0.0.1:9/"


async def test_dispatchers_deliver_while_everything_is_projected_again_and_again(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_STREAMS", 50)
    app = await world.application()
    flaky = receiver.script("/flaky", *[200, 500, 200, 200, 503] * 200)
    # Two of five answers are failures: with nine retries one delivery in some ten thousand would meet nothing else.
    await world.endpoints(app, [receiver.url("/steady"), flaky, receiver.url("/other")], schedule=(0.05,) * 30)
    rebuilds = 0
    delivered = False

    async def rebuild() -> None:
        nonlocal rebuilds
        while not delivered:
            rebuilt = await world.rebuild()
            assert (rebuilt.mended, rebuilt.mended_objects) == (0, 0), "what dispatchers write is what the fold says"
            await world.assert_verified()
            rebuilds += 1

    over = asyncio.Event()
    async with dispatching(world) as one, dispatching(world) as other, asyncio.TaskGroup() as group:
        group.create_task(rebuild())
        for projection in (projecting.STATISTICS, projecting.HEALTH):
            group.create_task(projecting.run(one.pool, one.lease.process, projection, over))
        for parts in (one, other):
            parts.start_claiming()
        for number in range(40):
            batch = await world.accept(app, 10)
            await (one, other)[number % 2].fan_outs.take(batch, path="envelope")
        assert await world.until_over(app, 1200) == {"succeeded": 1200}
        delivered = True
        over.set()
    assert rebuilds > 2
    results = await world.owner.fetch("SELECT result FROM projection_1.attempt WHERE app = $1", app)
    sent = Counter(row["result"] for row in results)
    assert sent.keys() == {"succeeded", "retryable"}
    assert sent.total() == len(receiver.requests)


async def test_damage_is_mended_while_dispatchers_deliver(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_STREAMS", 50)
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.url("/hook"))
    deliveries = await world.waiting(app, endpoint, 400)
    await world.owner.execute("UPDATE projection_1.delivery_state SET failures = 3 WHERE app = $1", app)
    await world.owner.execute("DELETE FROM hookledger.queue WHERE delivery = ANY($1)", deliveries[::2])
    await world.owner.execute("UPDATE hookledger.lane SET inflight = max_inflight, ready_at = 'infinity'")
    async with dispatching(world) as parts:
        parts.start_claiming()
        rebuilt = await world.rebuild()
        assert rebuilt.mended >= 400
        assert await world.until_over(app, 400) == {"succeeded": 400}
    assert len(receiver.requests) == 400


async def test_deliveries_that_lost_their_row_hold_up_nobody_and_go_on_after_a_rebuild(
    world: World, receiver: Receiver
) -> None:
    app = await world.application()
    deliveries = await world.waiting(app, await world.endpoint(app, receiver.url("/hook")), 20)
    await world.owner.execute("DELETE FROM projection_1.delivery_state WHERE delivery = ANY($1)", deliveries[::2])
    async with dispatching(world) as parts:
        parts.start_claiming()
        assert await world.until_over(app, 10) == {"succeeded": 10}
        await world.rebuild()
        assert await world.until_over(app, 20) == {"succeeded": 20}
    assert len(receiver.requests) == 20


async def test_an_outcome_that_comes_while_its_row_is_projected_again_is_recorded_after_it(world: World) -> None:
    """Were the row deleted and inserted, whoever waits for its lock would find none, and drop the outcome."""
    async with dispatching(world) as parts:
        flight = await _flight(world, parts)
        await world.owner.execute(
            "UPDATE projection_1.delivery_state SET failures = 3 WHERE delivery = $1", flight.delivery
        )
        async with world.owner.acquire() as holding:
            async with holding.transaction():
                # Rebuild stands still after it has locked the row, before it writes.
                await holding.execute("LOCK TABLE projection_1.attempt IN SHARE MODE")
                rebuilding = asyncio.create_task(world.rebuild())
                await _waiters(world, 1)
                recording = asyncio.ensure_future(parts.recorder.batcher.submit(_ending(flight)))
                await _waiters(world, 2)
            assert (await rebuilding).mended == 1
            assert await recording is not None
        state = await world.state(flight.delivery)
        assert (state["status"], state["failures"]) == ("succeeded", 0)


async def test_a_delivery_that_is_fanned_out_meanwhile_is_left_alone(world: World, receiver: Receiver) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.url("/hook"))
    [before] = await world.waiting(app, endpoint, 1)
    async with dispatching(world) as parts, world.owner.acquire() as holding:
        async with holding.transaction():
            await holding.execute("SELECT FROM projection_1.delivery_state WHERE delivery = $1 FOR UPDATE", before)
            rebuilding = asyncio.create_task(world.rebuild())
            await _waiters(world, 1)
            [message] = await world.accept(app)
            await parts.fan_outs.take([message], path="envelope")
            await world.until_status(delivery_id(message.id, endpoint), "succeeded")
        assert (await rebuilding).mended == 0
    assert (await world.state(delivery_id(message.id, endpoint)))["status"] == "succeeded"


async def test_what_was_left_behind_by_a_process_that_is_gone_is_taken_over(world: World, receiver: Receiver) -> None:
    """Its queue row was missing when the process was reclaimed, so that nobody would ever look for it."""
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.url("/hook"))
    [delivery] = await world.waiting(app, endpoint, 1)
    async with dispatching(world, renewing=False) as dead:
        await dead.claims._claim(1)
        await world.owner.execute("DELETE FROM hookledger.queue WHERE delivery = $1", delivery)
        await world.owner.execute("DELETE FROM hookledger.process WHERE id = $1", dead.lease.process)
    async with dispatching(world) as other:
        await world.rebuild()
        assert await reclaim.reclaim_one(other.pool, world.epoch, other.snapshot.holds)
        other.start_claiming()
        assert await world.until_over(app, 1) == {"succeeded": 1}
    assert await world.facts(delivery) == [
        *("DeliveryScheduled", "AttemptStarted", "AttemptOutcomeUnknown", "RetryScheduled"),
        *("AttemptStarted", "AttemptEnded"),
    ]


@pytest.mark.parametrize("counted", [True, False], ids=["claimed", "fanned out"])
async def test_a_lane_counts_what_it_counted_when_its_queue_row_is_made_again(world: World, counted: bool) -> None:
    async with dispatching(world) as parts:
        flight = await (_flight(world, parts) if counted else _first_flight(world, parts))
        assert flight.counted == counted
        before = await world.owner.fetchrow("SELECT * FROM hookledger.queue WHERE delivery = $1", flight.delivery)
        await world.owner.execute("DELETE FROM hookledger.queue WHERE delivery = $1", flight.delivery)
        await world.owner.execute("TRUNCATE hookledger.lane, hookledger.app_turn")
        await world.rebuild()
        after = await world.owner.fetchrow("SELECT * FROM hookledger.queue WHERE delivery = $1", flight.delivery)
        assert before is not None
        assert after is not None
        assert (after["lane"], after["owner"], after["counted"]) == (before["lane"], before["owner"], counted)
        await parts.recorder.batcher.submit(_ending(flight))
    inflight = await world.owner.fetchval("SELECT inflight FROM hookledger.lane WHERE lane = $1", flight.endpoint.id)
    assert inflight == (0 if counted else None), "no lane is needed for what none counts"


async def _flight(world: World, parts: Parts) -> Flight:
    """An attempt whose claim is committed and that nobody carries out."""
    app = await world.application()
    await world.waiting(app, await world.endpoint(app, NOWHERE, schedule=(60.0,)), 1)
    await parts.snapshot.catch_up()
    [flight], _ = await parts.claims._claim(1)
    return flight


async def _first_flight(world: World, parts: Parts) -> Flight:
    """A first attempt that began in its fan-out and that nobody carries out."""
    flights: list[Flight] = []
    app = await world.application()
    await world.endpoint(app, NOWHERE, schedule=(60.0,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts.attempts, "begin", flights.append)
        await parts.fan_outs.take(await world.accept(app), path="envelope")
    [flight] = flights
    return flight


def _ending(flight: Flight) -> Ending:
    command = RecordAnswer(
        at=clock.now(),
        attempt=flight.started.attempt,
        answer=Answer(status=200),
        policy=flight.endpoint.retry,
        jitter=0.0,
        url=NOWHERE,
        peer=None,
        sends=1,
        timings=Timings(),
    )
    return Ending(flight=flight, command=command)


async def _waiters(world: World, count: int) -> None:
    """Until so many sessions wait for a lock."""

    async def waiting() -> bool:
        waiters: int = await world.owner.fetchval("""
            SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()
        """)
        return waiters >= count

    await until(waiting, f"{count} sessions wait for a lock")
