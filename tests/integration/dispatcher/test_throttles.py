"""Throttles: so many attempts per second over all dispatchers, first ones included, and nobody else waits for it."""

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from libs.common.domain.ids import delivery_id
from libs.common.domain.throttle import LATENESS
from tests.integration.dispatcher.parts import Parts, dispatching
from tests.integration.dispatcher.raw_receiver import Conversation, RawReceiver, raw_receiver
from tests.integration.dispatcher.world import World, until
from tests.support.receiver import Receiver

RATE = 50
SECOND = timedelta(seconds=1)
SPAN = timedelta(seconds=6)
MOMENT = timedelta(seconds=2)


async def test_three_dispatchers_together_keep_an_endpoints_rate(world: World, receiver: Receiver) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.url("/"), throttle_rate=RATE)
    await world.waiting(app, endpoint, 400)
    async with dispatching(world) as one, dispatching(world) as two, dispatching(world) as three:
        for parts in (one, two, three):
            parts.start_claiming()
        await receiver.wait_for(370)
        begin = receiver.requests[0].at + LATENESS  # after what it made up for at the start
        times = [request.at for request in receiver.requests if request.at >= begin]
        assert most_within(SPAN, times) <= 55 * SPAN.total_seconds()
        assert most_within(MOMENT, times) >= 45 * MOMENT.total_seconds(), "whatever else the machine does at times"
        for parts in (one, two, three):
            parts.stopping.set()


async def test_an_endpoint_that_was_idle_gets_a_tenth_of_a_seconds_worth_at_once(
    world: World, receiver: Receiver
) -> None:
    app = await world.application()
    await world.endpoint(app, receiver.url("/"), throttle_rate=RATE)
    async with dispatching(world) as parts:
        parts.start_claiming()
        for _ in range(2):  # a new account, and one that was used before
            await parts.fan_outs.take(await world.accept(app, 40), path="envelope")
            assert (await world.until_over(app, 40)).keys() == {"succeeded"}
            await asyncio.sleep(1)
    rows = await world.owner.fetch(
        """
        SELECT DISTINCT ON (d.created_at) count(*) AS at_once, a.started_at - d.created_at AS late
        FROM projection_1.delivery_state d JOIN projection_1.attempt a USING (delivery)
        WHERE d.app = $1 GROUP BY d.created_at, a.started_at ORDER BY d.created_at, a.started_at
        """,
        app,
    )
    assert len(rows) >= 2
    for row in rows:
        assert row["at_once"] <= RATE / 10 + row["late"] / SECOND * RATE + 1


async def test_the_first_attempt_of_all_waits_for_nothing(world: World, receiver: Receiver) -> None:
    app = await world.application()
    await world.endpoint(app, receiver.url("/"), throttle_rate=1)
    async with dispatching(world) as parts:
        parts.start_claiming()
        await parts.fan_outs.take(await world.accept(app), path="envelope")
        await world.until_over(app, 1)
    waited = await world.owner.fetchval(
        "SELECT a.started_at - d.created_at FROM projection_1.attempt a JOIN projection_1.delivery_state d USING (delivery)"
        " WHERE d.app = $1",
        app,
    )
    assert waited < SECOND / 2


def most_within(span: timedelta, times: Sequence[datetime]) -> int:
    """How many of these times, in their order, any such span holds at most."""
    return max(bisect_left(times, time + span) - number for number, time in enumerate(times))


async def test_first_attempts_and_all_endpoints_of_an_application_share_its_rate(
    world: World, receiver: Receiver
) -> None:
    app = await world.application(throttle_rate=RATE)
    endpoints = await world.endpoints(app, [receiver.url("/a"), receiver.url("/b")])
    other = await world.application()
    await world.endpoint(other, receiver.url("/other"))
    async with dispatching(world) as one, dispatching(world) as two:
        one.start_claiming()
        two.start_claiming()
        messages = await world.accept(app, 60)
        await one.fan_outs.take(messages[:30], path="envelope")
        await two.fan_outs.take([*messages[30:], *await world.accept(other, 5)], path="envelope")
        await world.until_over(other, 5)
        assert len(receiver.got("/a")) + len(receiver.got("/b")) < 60, "another application waits for nobody's rate"
        assert await world.until_over(app, 120) == {"succeeded": 120}
        took = await world.owner.fetchval(
            "SELECT max(started_at) - min(started_at) FROM projection_1.attempt WHERE app = $1", app
        )
        assert took >= 120 / RATE * SECOND - LATENESS
        assert len(receiver.got("/a")) == len(receiver.got("/b")) == 60
        facts = await world.facts(delivery_id(messages[-1].id, endpoints[0]))
        assert facts == ["DeliveryScheduled", "AttemptStarted", "AttemptEnded"], "waiting costs no attempt"
        due = await world.owner.fetch(
            "SELECT due_at FROM projection_1.delivery_state WHERE app = $1 AND due_at IS NOT NULL", app
        )
        assert due == []


async def test_raising_nothing_but_the_rate_is_enough_to_go_faster(world: World, receiver: Receiver) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.url("/"), throttle_rate=1)
    await world.waiting(app, endpoint, 40)
    async with dispatching(world) as parts:
        parts.start_claiming()
        await receiver.wait_for(1)
        await world.change(endpoint, throttle_rate=1000)
        await parts.snapshot.catch_up()
        parts.claims.note([])
        assert await world.until_over(app, 40) == {"succeeded": 40}


async def test_first_and_claimed_attempts_have_one_limit_in_flight_over_two_dispatchers(world: World) -> None:
    app = await world.application()
    counted = InFlight()
    async with (
        raw_receiver(_counting(counted)) as receiver,
        dispatching(world) as one,
        dispatching(world) as two,
    ):
        await one.lease._renew_or_begin_again()
        endpoint = await world.endpoint(app, receiver.url())
        await world.waiting(app, endpoint, 60)
        await _send(world, one, two, app)
        await counted.reaches(32)
        assert await world.until_over(app, 100) == {"succeeded": 100}
    assert counted.most == 32


async def test_a_limit_that_is_raised_reaches_the_dispatcher_that_had_no_share_of_it(
    world: World, receiver: Receiver
) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.url(), max_inflight=1)
    async with dispatching(world) as one, dispatching(world) as two:
        await one.lease._renew_or_begin_again()
        [without] = [parts for parts in (one, two) if parts.lease.standing.rank == 1]
        await world.waiting(app, endpoint, 4)
        without.start_claiming()

        async def known_to_be_full() -> bool:
            return endpoint in without.capacity.full(without.snapshot.version)

        await until(known_to_be_full, "it has no share")
        await world.change(endpoint, max_inflight=2)
        assert await world.until_over(app, 4) == {"succeeded": 4}


async def test_all_endpoints_of_an_application_have_one_limit_in_flight_over_two_dispatchers(
    world: World, receiver: Receiver
) -> None:
    app, other = await world.application(max_inflight=7), await world.application()
    await world.endpoint(other, receiver.url("/other"))
    counted = InFlight()
    async with (
        raw_receiver(_counting(counted)) as slow,
        dispatching(world) as one,
        dispatching(world) as two,
    ):
        await one.lease._renew_or_begin_again()
        for endpoint in await world.endpoints(app, [slow.url(), slow.url(), slow.url()]):
            await world.waiting(app, endpoint, 20)
        await _send(world, one, two, app)
        await one.fan_outs.take(await world.accept(other, 40), path="envelope")
        assert await world.until_over(other, 40) == {"succeeded": 40}, "another application waits for nobody's limit"
        await counted.reaches(7)
        assert await world.until_over(app, 180) == {"succeeded": 180}
    assert counted.most == 7


class InFlight:
    """How many requests are under way at a receiver that answers none until it is let go."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.release = asyncio.Event()

    async def reaches(self, count: int) -> None:
        """Let all be answered once `count` are under way, and no more come."""

        async def all_taken() -> bool:
            return self.now == count

        await until(all_taken, f"{count} in flight")
        await asyncio.sleep(0.2)  # nobody may begin one more
        assert self.most == count
        self.release.set()


def _counting(counted: InFlight) -> Callable[[RawReceiver], Conversation]:
    def converse(receiver: RawReceiver) -> Conversation:
        async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
            while True:
                await receiver.read_request(reader)
                counted.now += 1
                counted.most = max(counted.most, counted.now)
                await counted.release.wait()
                counted.now -= 1
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        return conversation

    return converse


async def _send(world: World, one: Parts, two: Parts, app: UUID) -> None:
    """Let two dispatchers claim what waits, and fan out 40 messages beside."""
    one.start_claiming()
    two.start_claiming()
    messages = await world.accept(app, 40)
    await one.fan_outs.take(messages[:20], path="envelope")
    await two.fan_outs.take(messages[20:], path="envelope")
