"""Ordered endpoints: by key, in the order of acceptance, one at a time, whoever claims and whoever dies."""

import asyncio
from collections import defaultdict
from uuid import UUID

import orjson
import pytest

from libs.common.contracts.registry import OnExhausted
from libs.common.domain.ids import delivery_id
from libs.common.domain.lanes import ordering_lane
from libs.common.domain.message import Message
from services.dispatcher import reclaim
from tests.integration.dispatcher.parts import Parts, dispatching
from tests.integration.dispatcher.world import World, until
from tests.support.receiver import Received, Receiver, Reply


async def test_the_lane_of_a_key_is_the_same_in_sql(world: World) -> None:
    endpoint = UUID(int=7 << 64)
    for key in (None, "", "customer 4711", "Größe"):
        found = await world.owner.fetchval("SELECT hookledger.ordering_lane($1, $2)", endpoint, key)
        assert found == ordering_lane(endpoint, key)


async def test_each_key_is_delivered_in_order_while_two_dispatchers_share_and_one_dies(
    world: World, receiver: Receiver
) -> None:
    app = await world.application()
    receiver.script("/", *[200, 500, 200, 200, 503, 200] * 5, then=200)
    await world.endpoint(app, receiver.url("/"), schedule=(0.01,) * 10, ordered=True)
    async with dispatching(world) as other:
        async with dispatching(world) as doomed:
            await _give(world, app, (doomed, other), rounds=6, keys=6)
            other.start_claiming()
            doomed.start_claiming()
            await receiver.wait_for(6)
            await _kill(world, doomed)
        await reclaim.reclaim_one(other.pool, world.epoch, other.snapshot.holds)
        other.claims.note([])
        assert await world.until_over(app, 36) == {"succeeded": 36}
    assert_in_order(receiver.got("/"), keys=6, rounds=6)
    assert await world.owner.fetchval("SELECT count(*) FROM hookledger.lane") == 0, "empty lanes of keys go"


async def test_without_a_key_the_endpoint_has_one_order(world: World, receiver: Receiver) -> None:
    app = await world.application()
    receiver.script("/", 500, 200, 500, then=200)
    await world.endpoint(app, receiver.url("/"), schedule=(0.02,) * 3, ordered=True)
    async with dispatching(world) as one, dispatching(world) as other:
        one.start_claiming()
        other.start_claiming()
        for number in range(8):
            [message] = await world.accept(app, body=orjson.dumps({"key": "", "number": number}))
            await (one, other)[number % 2].fan_outs.take([message], path="envelope")
        assert await world.until_over(app, 8) == {"succeeded": 8}
    assert_in_order(receiver.got("/"), keys=1, rounds=8)


async def test_a_head_waits_for_an_older_message_of_its_key_that_is_not_fanned_out(
    world: World, receiver: Receiver
) -> None:
    app = await world.application()
    await world.endpoint(app, receiver.url("/"), ordered=True)
    [first] = await world.accept(app, body=_body("a", 0), ordering_key="a")
    [stranger] = await world.accept(app, body=_body("b", 0), ordering_key="b")
    [second] = await world.accept(app, body=_body("a", 1), ordering_key="a")
    async with dispatching(world) as parts:
        parts.start_claiming()
        await parts.fan_outs.take([second], path="envelope")
        await parts.fan_outs.take([stranger], path="envelope")
        await receiver.wait_for(1)  # the stranger's key waits for nobody
        assert [orjson.loads(request.body) for request in receiver.got("/")] == [{"key": "b", "number": 0}]
        await parts.fan_outs.take([first], path="envelope")
        assert await world.until_over(app, 3) == {"succeeded": 3}
    assert_in_order(receiver.got("/"), keys=2)


async def test_a_head_waits_while_a_transaction_that_began_before_it_may_still_accept(
    world: World, receiver: Receiver
) -> None:
    app = await world.application()
    await world.endpoint(app, receiver.url("/"), ordered=True)
    async with dispatching(world) as parts, world.owner.acquire() as slow:
        parts.start_claiming()
        open_one = slow.transaction()
        await open_one.start()
        await slow.fetchval("SELECT pg_current_xact_id()")
        [message] = await world.accept(app, body=_body("a", 0), ordering_key="a")
        await parts.fan_outs.take([message], path="envelope")

        async def looked_at() -> bool:
            return bool(await world.owner.fetchval("SELECT not_before > '-infinity' FROM hookledger.lane"))

        await until(looked_at, "the lane was looked at, and parked")
        assert not receiver.requests
        await open_one.rollback()
        assert await world.until_over(app, 1) == {"succeeded": 1}


async def test_an_exhausted_head_lets_the_next_one_go(world: World, receiver: Receiver) -> None:
    app = await world.application()
    receiver.script("/", 500, then=200)
    await world.endpoint(app, receiver.url("/"), schedule=(), ordered=True)
    messages = await world.accept(app, 2, ordering_key="a")
    async with dispatching(world) as parts:
        await parts.fan_outs.take(messages, path="envelope")
        parts.start_claiming()
        assert await world.until_over(app, 2) == {"exhausted": 1, "succeeded": 1}


async def test_a_held_head_keeps_its_place_until_it_is_skipped(world: World, receiver: Receiver) -> None:
    app = await world.application()
    receiver.script("/", 404, then=200)
    hold = {"ordered": True, "on_exhausted": OnExhausted.HOLD}
    endpoint = await world.endpoint(app, receiver.url("/"), schedule=(), **hold)
    messages = await world.accept(app, 2, ordering_key="a")
    async with dispatching(world) as parts:
        await parts.fan_outs.take(messages, path="envelope")
        parts.start_claiming()
        head, behind = await _in_order(world, endpoint, messages)
        await world.until_status(head, "held")
        assert (await world.state(behind))["status"] == "waiting"
        await world.assert_verified()
        await _ask_to_skip(world, head)
        assert await parts.skips.take() == 1
        assert await world.until_over(app, 2) == {"cancelled": 1, "succeeded": 1}
    assert await world.facts(head) == [
        *("DeliveryScheduled", "AttemptStarted", "AttemptEnded", "DeliveryHeld", "DeliverySkipped"),
    ]


async def test_a_held_head_goes_when_its_endpoint_holds_no_more(world: World, receiver: Receiver) -> None:
    app = await world.application()
    receiver.script("/", 404, then=200)
    hold = {"ordered": True, "on_exhausted": OnExhausted.HOLD}
    endpoint = await world.endpoint(app, receiver.url("/"), schedule=(), **hold)
    messages = await world.accept(app, 2, ordering_key="a")
    async with dispatching(world) as parts:
        await parts.fan_outs.take(messages, path="envelope")
        parts.start_claiming()
        head, _ = await _in_order(world, endpoint, messages)
        await world.until_status(head, "held")
        await world.change(endpoint, on_exhausted=OnExhausted.RELEASE)
        await _look_now(world, head)
        parts.claims.note([])
        assert await world.until_over(app, 2) == {"exhausted": 1, "succeeded": 1}


async def test_an_operator_skips_a_head_that_waits_for_its_retry(world: World, receiver: Receiver) -> None:
    app = await world.application()
    receiver.script("/", 500, then=200)
    endpoint = await world.endpoint(app, receiver.url("/"), schedule=(3600,), ordered=True)
    messages = await world.accept(app, 3, ordering_key="a")
    async with dispatching(world) as parts:
        await parts.fan_outs.take(messages, path="envelope")
        parts.start_claiming()
        head, *_ = await _in_order(world, endpoint, messages)
        await world.until_status(head, "waiting")

        async def failed_once() -> bool:
            return bool((await world.state(head))["failures"])

        await until(failed_once, "the head has failed")
        assert len(receiver.requests) == 1
        await _ask_to_skip(world, head)
        assert await parts.skips.take() == 1
        assert await world.until_over(app, 3) == {"cancelled": 1, "succeeded": 2}
    assert await world.owner.fetchval("SELECT count(*) FROM hookledger.skip_request") == 0


async def test_skips_of_what_is_in_flight_keep_no_others_waiting(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.dispatcher.skips.AT_ONCE", 2)
    app, other = await world.application(), await world.application()
    answer = asyncio.Event()
    hanging = await world.endpoint(
        app, receiver.script("/hanging", *[Reply(status=500, until=answer)] * 3), schedule=(3600,)
    )
    endpoint = await world.endpoint(other, receiver.url("/other"))
    async with dispatching(world) as parts:
        messages = await world.accept(app, 3)
        await parts.fan_outs.take(messages, path="envelope")
        await receiver.wait_for(3)
        in_flight = [delivery_id(message.id, hanging) for message in messages]
        [waiting] = await world.waiting(other, endpoint, 1)
        for delivery in (*in_flight, waiting):
            await _ask_to_skip(world, delivery)
        assert await parts.skips.take() == 1
        await world.until_status(waiting, "cancelled")
        assert await world.statuses(app) == {"sending": 3}

        answer.set()
        for delivery in in_flight:
            await world.until_status(delivery, "waiting")
        assert [await parts.skips.take(), await parts.skips.take()] == [2, 1]
        assert await world.statuses(app) == {"cancelled": 3}
    assert await world.owner.fetchval("SELECT count(*) FROM hookledger.skip_request") == 0


async def test_what_waits_in_order_for_a_disabled_endpoint_is_cancelled_at_once(
    world: World, receiver: Receiver
) -> None:
    app = await world.application()
    receiver.script("/", then=500)
    endpoint = await world.endpoint(app, receiver.url("/"), schedule=(3600,), ordered=True)
    messages = await world.accept(app, 12, ordering_key="a")
    async with dispatching(world) as parts:
        await parts.fan_outs.take(messages, path="envelope")
        parts.start_claiming()
        await receiver.wait_for(1)
        await world.change(endpoint, disabled=True)
        await parts.snapshot.catch_up()
        parts.cancelling.wake()
        assert await world.until_over(app, 12) == {"cancelled": 12}
    assert len(receiver.requests) == 1


async def test_a_lost_queue_comes_back_in_order(world: World, receiver: Receiver) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.url("/"), ordered=True)
    async with dispatching(world) as parts:
        await _give(world, app, (parts,), rounds=3, keys=2)
        await world.owner.execute("TRUNCATE hookledger.queue, hookledger.lane, hookledger.app_turn")
        await world.rebuild()
        lanes = await world.owner.fetch("SELECT lane FROM hookledger.lane WHERE endpoint = $1", endpoint)
        assert {row["lane"] for row in lanes} == {ordering_lane(endpoint, key) for key in ("0", "1")}
        parts.start_claiming()
        assert await world.until_over(app, 6) == {"succeeded": 6}
    assert_in_order(receiver.got("/"), keys=2, rounds=3)


def assert_in_order(requests: list[Received], *, keys: int, rounds: int | None = None) -> None:
    """By key, each number comes after the one before it; a number may come again before the next one does."""
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    for request in requests:
        said = orjson.loads(request.body)
        numbers[said["key"]].append(said["number"])
    assert len(numbers) == keys
    for key, seen in numbers.items():
        assert seen == sorted(seen), key
        assert sorted(set(seen)) == list(range(rounds if rounds is not None else len(set(seen)))), key


async def _give(world: World, app: UUID, dispatchers: tuple[Parts, ...], *, rounds: int, keys: int) -> None:
    """Accept messages of many keys and have them fanned out by several, the later ones first."""
    given: list[list[Message]] = [[] for _ in dispatchers]
    for number in range(rounds):
        for key in range(keys):
            accepted = await world.accept(app, body=_body(str(key), number), ordering_key=str(key))
            given[(number + key) % len(dispatchers)] += accepted
    await asyncio.gather(
        *(_take_backwards(parts, messages) for parts, messages in zip(dispatchers, given, strict=True))
    )


async def _take_backwards(parts: Parts, messages: list[Message]) -> None:
    for start in range(len(messages), 0, -4):
        await parts.fan_outs.take(messages[max(0, start - 4) : start], path="envelope")


async def _kill(world: World, parts: Parts) -> None:
    """What is left of a process that was killed: its attempts, and a lease that has passed."""
    parts.stopping.set()
    await parts.attempts.drop()
    await world.owner.execute(
        "UPDATE hookledger.process SET alive_until = clock_timestamp() - interval '1 s' WHERE id = $1",
        parts.lease.process,
    )


async def _in_order(world: World, endpoint: UUID, messages: list[Message]) -> list[UUID]:
    rows = await world.owner.fetch(
        "SELECT stream FROM hookledger.fact WHERE stream = ANY($1) AND version = 1 ORDER BY epoch, xact, position",
        [message.id for message in messages],
    )
    return [delivery_id(row["stream"], endpoint) for row in rows]


async def _look_now(world: World, delivery: UUID) -> None:
    """As if the minute after which a held head is looked at were over."""
    await world.owner.execute("UPDATE hookledger.queue SET due_at = now() WHERE delivery = $1", delivery)
    await world.owner.execute("UPDATE hookledger.lane SET head_due = now(), ready_at = now()")
    await world.owner.execute("UPDATE hookledger.app_turn SET ready_at = now()")


def _body(key: str, number: int) -> bytes:
    return orjson.dumps({"key": key, "number": number})


async def _ask_to_skip(world: World, delivery: UUID) -> None:
    await world.owner.execute("INSERT INTO hookledger.skip_request (delivery, actor) VALUES ($1, 'key:me')", delivery)
