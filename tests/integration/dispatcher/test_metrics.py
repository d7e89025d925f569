"""What the dispatcher's metrics tell, seen through what happens."""

from datetime import timedelta

from prometheus_client import REGISTRY

from services.dispatcher import backlog
from tests.integration.dispatcher.parts import dispatching
from tests.integration.dispatcher.world import World
from tests.support.receiver import Receiver

MINUTE = timedelta(minutes=1)


def told(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"hookledger_{name}", labels) or 0.0


async def test_what_is_due_is_counted_with_its_age_until_it_is_sent(world: World, receiver: Receiver) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.script("/hook"))
    await world.waiting(app, endpoint, 3, due_in=-MINUTE)
    await world.waiting(app, endpoint, 2, due_in=MINUTE)
    ended, late = told("deliveries_ended_total", status="succeeded"), told("delivery_lateness_seconds_sum")
    attempts, timed = told("attempts_total", status="succeeded"), told("attempt_seconds_count")
    async with dispatching(world) as parts:
        await backlog.look(parts.pool)
        assert told("due_deliveries", lane="ready") == 3
        assert 60 <= told("oldest_due_seconds", lane="ready") < 90
        assert told("due_deliveries", lane="full") == told("oldest_due_seconds", lane="full") == 0
        parts.start_claiming()
        await receiver.wait_for(3)
        await parts.attempts.drain(5.0)
        await backlog.look(parts.pool)
    assert told("due_deliveries", lane="ready") == told("oldest_due_seconds", lane="ready") == 0
    assert told("deliveries_ended_total", status="succeeded") - ended == 3
    assert told("attempts_total", status="succeeded") - attempts == told("attempt_seconds_count") - timed == 3
    assert told("delivery_lateness_seconds_sum") - late > 180


async def test_what_waits_for_a_receiver_that_has_all_it_may_is_told_apart(world: World) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, "http://127.0.0.1:9/")
    await world.waiting(app, endpoint, 1, due_in=-MINUTE)
    await world.owner.execute("UPDATE hookledger.lane SET ready_at = 'infinity' WHERE endpoint = $1", endpoint)
    async with dispatching(world) as parts:
        await backlog.look(parts.pool)
    await world.owner.execute("UPDATE hookledger.lane SET ready_at = head_due WHERE endpoint = $1", endpoint)
    assert told("due_deliveries", lane="full") == 1
    assert told("due_deliveries", lane="ready") == 0


async def test_a_message_for_nobody_is_unmatched_and_one_that_waits_for_fan_out_has_an_age(world: World) -> None:
    app = await world.application()
    messages = await world.accept(app)
    before = told("messages_unmatched_total")
    async with dispatching(world) as parts:
        await backlog.look(parts.pool)
        assert told("oldest_unfanned_seconds") > 0
        await parts.fan_outs.take(messages, path="envelope")
        await backlog.look(parts.pool)
    assert told("oldest_unfanned_seconds") == 0
    assert told("messages_unmatched_total") - before == 1
