"""Nobody waits for another's backlog, nor for another's endpoint: asserted by rank, since machines differ in speed."""

import asyncio
from collections import Counter
from uuid import UUID

from bench import volume
from libs.common.postgres.pool import Connection
from services.dispatcher.turns import Claimed
from tests.integration.dispatcher.claiming import claim
from tests.integration.dispatcher.parts import dispatching
from tests.integration.dispatcher.raw_receiver import Conversation, RawReceiver, raw_receiver
from tests.integration.dispatcher.world import World, until
from tests.support.receiver import Receiver

BACKLOG = 200_000
BIG_LANES, SMALL_APPS, EACH = 50, 20, 10


async def test_what_many_small_applications_have_due_is_claimed_in_their_turn_beside_200_000_of_another(
    world: World,
) -> None:
    big, *small = (UUID(int=(number + 1) << 64) for number in range(1 + SMALL_APPS))
    async with world.owner.acquire() as connection, connection.transaction():
        await volume.backlog(connection, big, lanes=BIG_LANES, rows=BACKLOG)
        for app in small:
            await volume.backlog(connection, app, lanes=1, rows=EACH)
    served: Counter[UUID] = Counter()
    rank = 0
    while sum(served[app] for app in small) < SMALL_APPS * EACH:
        async with world.owner.acquire() as connection, connection.transaction():
            taken = await claim(connection, most=128)
            apps = await _apps(connection, [item.lane for item in taken])
            served += apps
            rank += len(taken)
            await connection.execute(
                "UPDATE hookledger.lane SET inflight = 0, ready_at = least(ready_at, now()) WHERE head_due IS NOT NULL"
            )
    plain = await world.owner.fetchval(
        "SELECT count(*) FROM hookledger.queue q JOIN hookledger.lane l USING (lane) WHERE l.app = $1", big
    )
    # In their turn: beside each quantum of a small one the big one gets few; by `due_at` alone it would get all of it.
    assert rank <= 15 * SMALL_APPS * EACH < plain
    assert served[big] > 0
    await world.owner.execute("TRUNCATE hookledger.queue, hookledger.lane, hookledger.app_turn")


async def test_many_lanes_of_one_application_that_have_little_are_claimed_together(world: World) -> None:
    async with world.owner.acquire() as connection, connection.transaction():
        await volume.backlog(connection, UUID(int=1 << 64), lanes=100, rows=200)
        assert len(await claim(connection, most=128)) == 128
        assert len(await claim(connection, most=128)) == 72
    await world.owner.execute("TRUNCATE hookledger.queue, hookledger.lane, hookledger.app_turn")


async def test_who_finds_every_turn_in_hand_claims_from_other_lanes_of_the_same_application(world: World) -> None:
    async with world.owner.acquire() as connection, connection.transaction():
        await volume.backlog(connection, UUID(int=1 << 64), lanes=20, rows=2_000)
    async with world.owner.acquire() as one, world.owner.acquire() as other:

        async def beside() -> tuple[Claimed, ...]:
            async with other.transaction():
                return await claim(other, most=64)

        async def waits_for_the_turn() -> bool:
            return bool(await world.owner.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"))

        async with one.transaction():
            first = await claim(one, most=64)
            joining = asyncio.create_task(beside())
            await until(waits_for_the_turn, "what was claimed beside the first, but for the turn")
        second = await joining
    assert (len(first), len(second)) == (64, 64)
    assert not {item.lane for item in first} & {item.lane for item in second}
    ready = await world.owner.fetchval("SELECT ready_at <= clock_timestamp() FROM hookledger.app_turn")
    assert ready, "what is left comes in its turn"
    await world.owner.execute("TRUNCATE hookledger.queue, hookledger.lane, hookledger.app_turn")


async def test_an_endpoint_that_hangs_takes_its_share_and_no_more(world: World, receiver: Receiver) -> None:
    app = await world.application()
    hanging = 0
    release = asyncio.Event()

    def converse(raw: RawReceiver) -> Conversation:
        async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
            nonlocal hanging
            while True:
                await raw.read_request(reader)
                hanging += 1
                await release.wait()
                hanging -= 1
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        return conversation

    async with raw_receiver(converse) as slow, dispatching(world, most=48) as parts:
        stuck = await world.endpoint(app, slow.url(), timeout_ms=30_000)
        good = await world.endpoints(app, [receiver.url(f"/{number}") for number in range(9)])
        parts.start_claiming()
        for _ in range(4):
            await parts.fan_outs.take(await world.accept(app, 20), path="envelope")

        async def the_good_are_done() -> bool:
            rows = await world.owner.fetch(
                "SELECT endpoint, count(*) FROM projection_1.delivery_state WHERE app = $1 AND status = 'succeeded'"
                " GROUP BY 1",
                app,
            )
            return {row["endpoint"]: row["count"] for row in rows} == dict.fromkeys(good, 80)

        await until(the_good_are_done, "80 deliveries of each good endpoint, while the other one hangs")
        assert hanging == 32
        waiting = await world.owner.fetchrow(
            "SELECT count(*) AS n, max(attempts) AS attempts FROM projection_1.delivery_state"
            " WHERE endpoint = $1 AND status = 'waiting'",
            stuck,
        )
        assert dict(waiting or {}) == {"n": 48, "attempts": 0}
        release.set()
        assert await world.until_over(app, 800) == {"succeeded": 800}


async def _apps(connection: Connection, lanes: list[UUID]) -> Counter[UUID]:
    rows = await connection.fetch("SELECT lane, app FROM hookledger.lane WHERE lane = ANY($1)", lanes)
    app_of = {row["lane"]: row["app"] for row in rows}
    return Counter(app_of[lane] for lane in lanes)
