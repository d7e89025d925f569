"""Lanes: what waits is claimed once, fairly, within its endpoint's limit, and never forgotten."""

import asyncio
from collections import Counter
from datetime import datetime, timedelta
from uuid import UUID

from libs.common.domain.endpoint import DEFAULT_MAX_INFLIGHT
from libs.common.postgres.pool import Connection, Pool
from libs.common.runtime.clock import new_id
from services.dispatcher import lanes
from services.dispatcher.projection import delivery_of
from tests.integration.dispatcher.claiming import claim
from tests.integration.dispatcher.parts import dispatching
from tests.integration.dispatcher.raw_receiver import Conversation, RawReceiver, raw_receiver
from tests.integration.dispatcher.world import World, until
from tests.support.receiver import Receiver

NOWHERE = "http://127.0.0.1:9/"


async def test_no_more_are_in_flight_than_the_endpoint_takes_however_many_claim(world: World) -> None:
    app = await world.application()
    most = 0
    now = 0

    def converse(receiver: RawReceiver) -> Conversation:
        async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
            nonlocal most, now
            while True:
                await receiver.read_request(reader)
                now += 1
                most = max(most, now)
                await asyncio.sleep(0.06)
                now -= 1
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        return conversation

    async with raw_receiver(converse) as receiver:
        endpoint = await world.endpoint(app, receiver.url())
        await world.waiting(app, endpoint, 400)
        async with dispatching(world) as one, dispatching(world) as other:
            one.start_claiming()
            other.start_claiming()
            assert await world.until_over(app, 400) == {"succeeded": 400}
    assert DEFAULT_MAX_INFLIGHT - 4 <= most <= DEFAULT_MAX_INFLIGHT
    assert len(receiver.requests) == 400
    assert await world.owner.fetchval("SELECT sum(inflight) FROM hookledger.lane") == 0


async def test_every_application_comes_to_its_turn_when_a_claim_has_not_room_for_all(world: World) -> None:
    """Those for whom there was no room keep their place in the line; those who were served go to its end."""
    apps = [await world.application() for _ in range(5)]
    for app in apps:
        for endpoint in await world.endpoints(app, [NOWHERE] * 4):
            await world.waiting(app, endpoint, 100)
    served: list[UUID] = []
    for _ in range(5):
        async with world.owner.acquire() as connection, connection.transaction():
            claimed = await claim(connection, most=64)
            served += {await _app_of(connection, item.lane) for item in claimed}
    assert Counter(served) == Counter(apps)
    await world.rebuild()


async def test_four_claimers_at_once_claim_everything_and_nothing_twice(world: World) -> None:
    waiting = set[UUID]()
    for _ in range(3):
        app = await world.application()
        for endpoint in await world.endpoints(app, [NOWHERE] * 3):
            waiting |= set(await world.waiting(app, endpoint, 150))
    await world.owner.execute("UPDATE hookledger.lane SET max_inflight = 1000")
    claimed = await asyncio.gather(*(_claim_until_empty(world.owner) for _ in range(4)))
    everything = [delivery for deliveries in claimed for delivery in deliveries]
    assert len(everything) == len(waiting)
    assert set(everything) == waiting
    await world.rebuild()


async def test_no_head_is_lost_when_what_comes_and_what_is_claimed_meet(world: World) -> None:
    """Hammered: were a lane refreshed from a snapshot older than its lock, deliveries would stay where nobody looks."""
    app = await world.application()
    endpoints = await world.endpoints(app, [NOWHERE] * 2)
    total = 300
    enqueued = [(new_id(), endpoints[number % 2]) for number in range(total)]
    done = asyncio.Event()

    async def enqueue(rows: list[tuple[UUID, UUID]]) -> None:
        for delivery, endpoint in rows:
            async with world.owner.acquire() as connection, connection.transaction():
                now = await _now(connection)
                change = {endpoint: lanes.LaneChange(app=app, endpoint=endpoint, max_inflight=4)}
                await lanes.lock(connection, change)
                await lanes.enqueue(connection, [(delivery, endpoint, now)], None)
                await lanes.refresh(connection, change, now, served=False)

    async def claim_all() -> list[UUID]:
        taken: list[UUID] = []
        while not (done.is_set() and not await _anything_ready(world.owner)):
            batch = await _claim_and_finish(world.owner, app)
            taken += batch
            if not batch:
                await asyncio.sleep(0.001)
        return taken

    async def enqueue_all() -> None:
        await asyncio.gather(*(enqueue(enqueued[part::3]) for part in range(3)))
        done.set()

    async with asyncio.timeout(30):
        claims = asyncio.gather(*(claim_all() for _ in range(3)))
        await enqueue_all()
        claimed = await claims
    assert Counter(delivery for batch in claimed for delivery in batch) == Counter(d for d, _ in enqueued)
    assert await world.owner.fetchval("SELECT count(*) FROM hookledger.queue") == 0


async def test_a_full_lane_is_looked_at_again_when_something_of_it_is_over(world: World) -> None:
    app = await world.application()
    [endpoint] = await world.endpoints(app, [NOWHERE])
    deliveries = await world.waiting(app, endpoint, 2)
    change = lanes.LaneChange(app=app, endpoint=endpoint, max_inflight=1)
    async with world.owner.acquire() as connection, connection.transaction():
        await lanes.lock(connection, {endpoint: change})
        [first] = await claim(connection, most=10)
    async with world.owner.acquire() as connection:
        assert await lanes.next_ready(connection) is None
    async with world.owner.acquire() as connection, connection.transaction():
        now = await _now(connection)
        over = lanes.LaneChange(app=app, endpoint=endpoint, max_inflight=1, finished=1)
        await lanes.lock(connection, {endpoint: over})
        await lanes.finish(connection, [first.delivery])
        await lanes.refresh(connection, {endpoint: over}, now, served=False)
        [second] = await claim(connection, most=10)
    assert {first.delivery, second.delivery} == set(deliveries)
    await world.rebuild()


async def test_a_lane_that_is_full_does_not_keep_the_claimers_spinning(world: World) -> None:
    """A limit that was lowered, or a count that is too high, must not leave a lane ready and unservable."""
    app = await world.application()
    [endpoint] = await world.endpoints(app, [NOWHERE])
    await world.waiting(app, endpoint, 1)
    await world.owner.execute("UPDATE hookledger.lane SET inflight = max_inflight")
    async with world.owner.acquire() as connection, connection.transaction():
        assert await claim(connection, most=10) == ()
        assert await lanes.next_ready(connection) is None
    await world.rebuild()


async def test_what_is_due_later_is_not_claimed_now_and_the_claimers_know_when(world: World) -> None:
    app = await world.application()
    [endpoint] = await world.endpoints(app, [NOWHERE])
    await world.waiting(app, endpoint, 1, due_in=timedelta(hours=1))
    async with world.owner.acquire() as connection, connection.transaction():
        now = await _now(connection)
        assert await claim(connection, most=10) == ()
        ready = await lanes.next_ready(connection)
    assert ready is not None
    assert timedelta(minutes=59) < ready - now <= timedelta(hours=1)


async def test_claimers_sleep_until_the_next_due_time(world: World, receiver: Receiver) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.url())
    async with dispatching(world) as parts:
        parts.start_claiming()
        await asyncio.sleep(0.1)  # it has found nothing and sleeps
        [delivery] = await world.waiting(app, endpoint, 1, due_in=timedelta(milliseconds=300))
        parts.claims.note([delivery_of(await world.state(delivery))])
        [request] = await receiver.wait_for(1)
        due_at: datetime = (await world.state(delivery))["created_at"] + timedelta(milliseconds=300)
        late = request.at - due_at
        assert timedelta(0) <= late < timedelta(milliseconds=500), "who looks each second would be later"
        await world.until_over(app, 1)


async def test_a_small_application_is_served_while_another_has_20_000_due(world: World, receiver: Receiver) -> None:
    big, small = await world.application(), await world.application()
    for path in ("/big/1", "/big/2"):
        await world.waiting(big, await world.endpoint(big, receiver.url(path)), 10_000)
    async with dispatching(world, most=64) as parts:
        parts.start_claiming()
        await receiver.wait_for(50)
        endpoint = await world.endpoint(small, receiver.url("/small"))
        await world.waiting(small, endpoint, 20)
        parts.claims.note([])
        assert await world.until_over(small, 20) == {"succeeded": 20}
        assert (await world.statuses(big))["waiting"] > 15_000
        parts.stopping.set()
        parts.claims.note([])
        await parts.attempts.drain(5)


async def _claim_and_finish(pool: Pool, app: UUID) -> list[UUID]:
    """A claim, and in another transaction the end of all that was claimed."""
    async with pool.acquire() as connection:
        async with connection.transaction():
            claimed = await claim(connection, most=8)
        if not claimed:
            return []
        async with connection.transaction():
            now = await _now(connection)
            over = {
                lane: lanes.LaneChange(app=app, endpoint=lane, max_inflight=4, finished=count)
                for lane, count in Counter(item.lane for item in claimed).items()
            }
            await lanes.lock(connection, over)
            await lanes.finish(connection, [item.delivery for item in claimed])
            await lanes.refresh(connection, over, now, served=False)
    return [item.delivery for item in claimed]


async def _claim_until_empty(pool: Pool) -> list[UUID]:
    taken: list[UUID] = []

    async def nothing_left() -> bool:
        async with pool.acquire() as connection:
            async with connection.transaction():
                taken.extend(item.delivery for item in await claim(connection, most=50))
            return not await connection.fetchval("SELECT count(*) FROM hookledger.queue WHERE owner IS NULL")

    await until(nothing_left, "everything claimed")
    return taken


async def _anything_ready(pool: Pool) -> bool:
    async with pool.acquire() as connection:
        return await lanes.next_ready(connection) is not None


async def _app_of(connection: Connection, lane: UUID) -> UUID:
    app: UUID = await connection.fetchval("SELECT app FROM hookledger.lane WHERE lane = $1", lane)
    return app


async def _now(connection: Connection) -> datetime:
    now: datetime = await connection.fetchval("SELECT clock_timestamp()")
    return now
