"""Throttles: so many attempts per second over all dispatchers, first ones included, and nobody else waits for it."""

import asyncio
from datetime import timedelta

from libs.common.domain.ids import delivery_id
from libs.common.domain.throttle import BURST
from tests.integration.dispatcher.parts import dispatching
from tests.integration.dispatcher.raw_receiver import Conversation, RawReceiver, raw_receiver
from tests.integration.dispatcher.world import World, until
from tests.support.receiver import Receiver

RATE = 50
SECOND = timedelta(seconds=1)
SPAN = timedelta(seconds=6)


async def test_three_dispatchers_together_keep_an_endpoints_rate(world: World, receiver: Receiver) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.url("/"), throttle_rate=RATE)
    await world.waiting(app, endpoint, 400)
    async with dispatching(world) as one, dispatching(world) as two, dispatching(world) as three:
        for parts in (one, two, three):
            parts.start_claiming()
        await receiver.wait_for(370)
        begin = receiver.requests[0].at + BURST  # after the burst at the start
        received = sum(begin <= request.at < begin + SPAN for request in receiver.requests)
        assert 45 <= received / SPAN.total_seconds() <= 55
        for parts in (one, two, three):
            parts.stopping.set()


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
        assert took >= 120 / RATE * SECOND - BURST
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
    now = most = 0
    release = asyncio.Event()

    def converse(receiver: RawReceiver) -> Conversation:
        async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
            nonlocal most, now
            while True:
                await receiver.read_request(reader)
                now += 1
                most = max(most, now)
                await release.wait()
                now -= 1
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        return conversation

    async with raw_receiver(converse) as receiver, dispatching(world) as one, dispatching(world) as two:
        await one.lease._renew_or_begin_again()
        endpoint = await world.endpoint(app, receiver.url())
        await world.waiting(app, endpoint, 60)
        one.start_claiming()
        two.start_claiming()
        messages = await world.accept(app, 40)
        await one.fan_outs.take(messages[:20], path="envelope")
        await two.fan_outs.take(messages[20:], path="envelope")

        async def all_taken() -> bool:
            return now == 32

        await until(all_taken, "32 in flight")
        await asyncio.sleep(0.2)  # nobody may begin one more
        assert most == 32
        release.set()
        assert await world.until_over(app, 100) == {"succeeded": 100}
    assert most == 32
