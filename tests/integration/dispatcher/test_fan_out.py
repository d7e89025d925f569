"""Fan-out: each message goes to the endpoints that match, once, whoever takes it and however often it comes."""

import asyncio
from datetime import datetime, timedelta

import pytest

from libs.common.domain.ids import delivery_id
from libs.common.domain.message import Message
from libs.common.runtime.clock import new_id
from services.dispatcher.fanout import MOST_MATCHES
from services.dispatcher.metrics import FANNED_OUT
from services.dispatcher.planning import Match, Plan
from tests.integration.dispatcher.parts import Parts, dispatching
from tests.integration.dispatcher.world import BODY, World, until
from tests.support.receiver import Receiver, Reply

OVERDUE = timedelta(seconds=10)


async def test_a_message_taken_twice_by_two_dispatchers_is_delivered_once(world: World, receiver: Receiver) -> None:
    app = await world.application()
    endpoints = await world.endpoints(app, [receiver.url("/a"), receiver.url("/b")])
    async with dispatching(world) as one, dispatching(world) as other:
        batch = await world.accept(app, 20, overdue=OVERDUE)
        one.start_sweeping()
        other.start_sweeping()
        one.start_claiming()  # for what the replicas' shares have no room for
        taken = await asyncio.gather(
            *(parts.fan_outs.take(batch, path="envelope") for parts in (one, other, one, other))
        )
        assert taken == [True] * 4
        assert await world.until_over(app, 40) == {"succeeded": 40}
    assert len(receiver.got("/a")) == len(receiver.got("/b")) == 20
    for endpoint in endpoints:
        facts = await world.facts(delivery_id(batch[0].id, endpoint))
        assert facts == ["DeliveryScheduled", "AttemptStarted", "AttemptEnded"]
    assert await world.facts(batch[0].id) == ["MessageAccepted", "MessageFannedOut"]


async def test_what_comes_again_beside_what_is_new_takes_no_place(world: World, receiver: Receiver) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.url())
    async with dispatching(world) as parts:
        first, second = await world.accept(app, 2)
        assert await parts.fan_outs.take([first], path="envelope")
        assert await parts.fan_outs.take([first, second], path="envelope")
        assert await world.until_over(app, 2) == {"succeeded": 2}
        await until(lambda: _nothing_in_flight(parts), "every place is given back")
    assert len(receiver.got("/")) == 2
    for message in (first, second):
        assert await world.facts(delivery_id(message.id, endpoint)) == [
            "DeliveryScheduled",
            "AttemptStarted",
            "AttemptEnded",
        ]
    await world.assert_verified()


async def _nothing_in_flight(parts: Parts) -> bool:
    return parts.capacity.in_flight == 0


async def test_what_was_sent_is_the_accepted_bytes_under_the_messages_id(world: World, receiver: Receiver) -> None:
    app = await world.application()
    await world.endpoint(app, receiver.url())
    async with dispatching(world) as parts:
        await parts.fan_outs.take(await world.accept(app), path="envelope")
        [request] = await receiver.wait_for(1)
        await world.until_over(app, 1)
    assert request.body == BODY
    assert request.id.startswith("msg_")


async def test_what_is_to_be_delivered_later_waits_for_its_time(world: World, receiver: Receiver) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.url())
    async with dispatching(world) as parts:
        parts.start_claiming()
        [message] = await world.accept(app, deliver_in=timedelta(seconds=0.7))
        assert await parts.fan_outs.take([message], path="envelope")
        delivery = delivery_id(message.id, endpoint)
        first = await world.state(delivery)
        assert (first["due_at"], first["attempts"]) == (message.deliver_at, 0)
        await world.until_over(app, 1)
    sent_at = await world.owner.fetchval("SELECT started_at FROM projection_1.attempt WHERE delivery = $1", delivery)
    assert message.deliver_at is not None
    assert sent_at >= message.deliver_at


async def test_a_time_of_delivery_that_is_over_means_now(world: World, receiver: Receiver) -> None:
    app = await world.application()
    await world.endpoint(app, receiver.url())
    async with dispatching(world) as parts:
        await parts.fan_outs.take(await world.accept(app, deliver_in=timedelta(days=-1)), path="envelope")
        assert await world.until_over(app, 1) == {"succeeded": 1}


async def test_a_time_that_an_earlier_version_took_for_one_before_all_others_means_now(
    world: World, receiver: Receiver
) -> None:
    app = await world.application()
    await world.endpoint(app, receiver.script("/", 500))
    async with dispatching(world) as parts:
        parts.start_claiming()
        [message] = await world.accept(app)
        await world.owner.execute("UPDATE hookledger.message SET deliver_at = '-infinity' WHERE id = $1", message.id)
        await parts.fan_outs.take([message], path="envelope")
        assert await world.until_over(app, 1) == {"succeeded": 1}


async def test_an_attempt_is_committed_before_its_request_is_seen(world: World, receiver: Receiver) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.script("/slow", Reply(hang=True)))
    async with dispatching(world) as parts:
        [message] = await world.accept(app)
        await parts.fan_outs.take([message], path="envelope")
        await receiver.wait_for(1)
        assert await world.facts(delivery_id(message.id, endpoint)) == ["DeliveryScheduled", "AttemptStarted"]
        receiver.close()
        await world.until_over(app, 1)


async def test_a_dispatcher_whose_snapshot_is_older_than_the_message_catches_up_first(
    world: World, receiver: Receiver
) -> None:
    app = await world.application()
    async with dispatching(world) as parts:
        known = parts.snapshot.version
        await world.endpoint(app, receiver.url("/new"))
        assert parts.snapshot.version == known  # nobody has told it
        await parts.fan_outs.take(await world.accept(app), path="envelope")
        await receiver.wait_for(1, "/new")
        await world.until_over(app, 1)


async def test_the_ledger_says_which_rule_sent_a_message_and_how_many_it_was_kept_from(
    world: World, receiver: Receiver
) -> None:
    app = await world.application()
    await world.endpoints(app, [receiver.url("/all")])
    await world.endpoints(app, [receiver.url("/typed")], event_types=("order.completed",))
    await world.endpoints(app, [receiver.url("/other")], event_types=("order.cancelled",))
    await world.endpoints(app, [receiver.url("/off")] * 2, disabled=True)
    async with dispatching(world) as parts:
        [message] = await world.accept(app)
        await parts.fan_outs.take([message], path="envelope")
        assert await world.until_over(app, 2) == {"succeeded": 2}
    data = await world.owner.fetchval(
        "SELECT convert_from(data, 'UTF8')::jsonb ->> 'counts' FROM hookledger.fact"
        " WHERE stream = $1 AND kind = 'MessageFannedOut'",
        message.id,
    )
    assert data == '{"all": 1, "disabled": 2, "event_type": 1, "other_event_type": 1}'
    assert {request.path for request in receiver.requests} == {"/all", "/typed"}


async def test_more_matches_than_one_transaction_takes_go_on_where_it_stopped(world: World) -> None:
    app = await world.application()
    count = MOST_MATCHES + 50
    await world.endpoints(app, ["http://127.0.0.1:9/"] * count, disabled=False, schedule=())
    async with dispatching(world, most=1) as parts:
        [message] = await world.accept(app)
        await parts.fan_outs.take([message], path="envelope")

        async def scheduled() -> bool:
            return sum((await world.statuses(app)).values()) == count

        await until(scheduled, "every endpoint has its delivery")
        assert await world.facts(message.id) == ["MessageAccepted", "MessageFannedOut", "MessageFannedOut"]
        assert await world.owner.fetchval("SELECT count(*) FROM hookledger.outbox") == 0


async def test_what_finds_no_place_waits_in_its_lane_and_is_claimed(world: World, receiver: Receiver) -> None:
    app = await world.application()
    await world.endpoint(app, receiver.url())
    async with dispatching(world, most=2) as parts:
        await parts.fan_outs.take(await world.accept(app, 30), path="envelope")
        parts.start_claiming()
        assert await world.until_over(app, 30) == {"succeeded": 30}
    assert len({request.id for request in receiver.requests}) == 30
    assert len(receiver.requests) == 30


async def test_a_message_that_cannot_be_fanned_out_does_not_hold_back_the_others(
    world: World, receiver: Receiver
) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.url())
    async with dispatching(world) as parts:
        batch = await world.accept(app, 9, overdue=OVERDUE)
        bad = batch[4]
        await _spoil(world, bad, delivery_id(bad.id, endpoint))
        assert await asyncio.wait_for(parts.fan_outs.take(batch, path="envelope"), 5)
        assert await world.until_over(app, 8) == {"succeeded": 8}

        parts.start_sweeping()
        later = await world.accept(app, 2, overdue=OVERDUE)
        assert await world.until_over(app, 10) == {"succeeded": 10}
        assert len(later) == 2
        left = await world.owner.fetch("SELECT message FROM hookledger.outbox")
        assert [row["message"] for row in left] == [bad.id]
    await _mend(world, delivery_id(bad.id, endpoint))


async def test_a_message_that_trips_over_our_own_code_does_so_alone(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = await world.application()
    await world.endpoint(app, receiver.url())
    async with dispatching(world) as parts:
        batch = await world.accept(app, 9, overdue=OVERDUE)
        add = parts.fan_outs._planner.add_at_once

        def trip(plan: Plan, message: Message, match: Match, at: datetime) -> bool:
            if message.id == batch[4].id:
                raise KeyError("a defect")
            return add(plan, message, match, at)

        monkeypatch.setattr(parts.fan_outs._planner, "add_at_once", trip)
        before = FANNED_OUT.labels("envelope")._value.get()
        assert await asyncio.wait_for(parts.fan_outs.take(batch, path="envelope"), 5)
        assert FANNED_OUT.labels("envelope")._value.get() - before == 8
        assert await world.until_over(app, 8) == {"succeeded": 8}
        await until(lambda: _nothing_in_flight(parts), "places given back")
        left = await world.owner.fetch("SELECT message FROM hookledger.outbox WHERE app = $1", app)
        assert [row["message"] for row in left] == [batch[4].id]
        monkeypatch.undo()
        assert await asyncio.wait_for(parts.fan_outs.take([batch[4]], path="envelope"), 5)
        assert await world.until_over(app, 9) == {"succeeded": 9}


async def test_messages_whose_envelope_was_lost_are_taken_when_they_are_overdue(
    world: World, receiver: Receiver
) -> None:
    app = await world.application()
    await world.endpoint(app, receiver.url())
    async with dispatching(world) as parts:
        await world.accept(app, 5, overdue=OVERDUE)
        fresh = await world.accept(app, 1)
        parts.start_sweeping()
        await world.until_over(app, 5)
        assert len(receiver.requests) == 5
        await parts.fan_outs.take(fresh, path="envelope")
        await world.until_over(app, 6)


async def test_a_large_fan_out_that_is_cut_off_by_a_stop_is_finished_by_another(world: World) -> None:
    app = await world.application()
    count = MOST_MATCHES + 5
    await world.endpoints(app, ["http://127.0.0.1:9/"] * count, schedule=())
    async with dispatching(world, most=1) as parts:
        [message] = await world.accept(app, overdue=OVERDUE)
        taken = asyncio.create_task(parts.fan_outs.take([message], path="envelope"))
        await asyncio.sleep(0)  # the batcher has it in hand
        parts.fan_outs.stop()
        assert await taken is True
    async with dispatching(world, most=1) as other:
        other.start_sweeping()

        async def scheduled() -> bool:
            return sum((await world.statuses(app)).values()) == count

        await until(scheduled, "every endpoint has its delivery")


async def _spoil(world: World, message: Message, delivery: object) -> None:
    """A delivery's row that has no fact: a defect that only an operator could have made."""
    await world.owner.execute(
        """
        INSERT INTO projection_1.delivery_state (delivery, app, message, endpoint, status, version, run, attempts,
            failures, unknowns, created_at, updated_at)
        VALUES ($1, $2, $3, $4, 'cancelled', 1, 1, 0, 0, 0, now(), now())
        """,
        delivery,
        new_id(),
        message.id,
        new_id(),
    )


async def _mend(world: World, delivery: object) -> None:
    await world.owner.execute("DELETE FROM projection_1.delivery_state WHERE delivery = $1", delivery)
