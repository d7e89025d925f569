"""Deliveries that nobody wants any more: cancelled as soon as that is known, or expired."""

from datetime import timedelta
from uuid import UUID

import pytest

from libs.common.domain.ids import delivery_id
from tests.integration.dispatcher.parts import dispatching
from tests.integration.dispatcher.world import World
from tests.support.receiver import Receiver, Reply

HOUR = timedelta(hours=1)


@pytest.mark.parametrize("how", ["disabled", "deleted"])
async def test_what_waits_for_an_endpoint_that_is_taken_away_is_cancelled_at_once(world: World, how: str) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, "http://127.0.0.1:9/")
    deliveries = await world.waiting(app, endpoint, 40, due_in=HOUR)
    async with dispatching(world) as parts:
        parts.start_claiming()
        await _take_away(world, endpoint, how)
        await parts.snapshot.catch_up()
        parts.cancelling.wake()
        assert await world.until_over(app, 40) == {"cancelled": 40}
    assert await world.facts(deliveries[0]) == ["DeliveryScheduled", "DeliveryCancelled"]
    reason = await world.owner.fetchval(
        "SELECT convert_from(data, 'UTF8')::jsonb ->> 'reason' FROM hookledger.fact WHERE stream = $1 AND version = 2",
        deliveries[0],
    )
    assert reason == f"endpoint_{how}"


@pytest.mark.parametrize("how", ["disabled", "deleted"])
async def test_what_fails_after_its_endpoint_was_taken_away_is_cancelled_at_once_too(
    world: World, receiver: Receiver, how: str
) -> None:
    """It was in flight when the others were cancelled; its next attempt would be due in an hour."""
    app = await world.application()
    url = receiver.script("/slow", Reply(status=500, delay=0.5))
    endpoint = await world.endpoint(app, url, schedule=(3600.0,))
    async with dispatching(world) as parts:
        parts.start_claiming()
        [message] = await world.accept(app)
        await parts.fan_outs.take([message], path="envelope")
        await receiver.wait_for(1)
        await _take_away(world, endpoint, how)
        await parts.snapshot.catch_up()
        parts.cancelling.wake()
        assert await world.until_over(app, 1) == {"cancelled": 1}
    assert await world.facts(delivery_id(message.id, endpoint)) == [
        *("DeliveryScheduled", "AttemptStarted", "AttemptEnded", "RetryScheduled", "DeliveryCancelled"),
    ]


@pytest.mark.parametrize("how", ["created", "enabled"])
async def test_what_waits_for_an_endpoint_that_a_claim_has_not_heard_of_is_delivered(
    world: World, receiver: Receiver, how: str
) -> None:
    """A claim catches up first; but it may wait for a connection after that, and others fan out meanwhile."""
    app = await world.application()
    async with dispatching(world) as parts:
        endpoint = await world.endpoint(app, receiver.url(), disabled=how == "enabled")
        if how == "enabled":
            await parts.snapshot.catch_up()
            await world.change(endpoint, disabled=False)
        await world.waiting(app, endpoint, 3)
        assert await parts.claims._claim(3) == ([], 3)
        assert await world.statuses(app) == {"waiting": 3}
        assert parts.capacity.in_flight == 0
        parts.start_claiming()
        assert await world.until_over(app, 3) == {"succeeded": 3}


async def test_a_retry_goes_where_the_endpoint_has_moved_to_in_between(world: World, receiver: Receiver) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.script("/old", then=500), schedule=(0.3,))
    async with dispatching(world) as parts:
        [message] = await world.accept(app)
        await parts.fan_outs.take([message], path="envelope")
        await receiver.wait_for(1, "/old")
        await world.change(endpoint, url=receiver.url("/new"))
        parts.start_claiming()  # which catches up before it claims
        await receiver.wait_for(1, "/new")
        assert await world.until_over(app, 1) == {"succeeded": 1}
    versions = await world.owner.fetch(
        "SELECT config_version FROM projection_1.attempt WHERE delivery = $1 ORDER BY number",
        delivery_id(message.id, endpoint),
    )
    assert [row["config_version"] for row in versions] == [1, 2]


async def test_what_has_waited_for_more_than_30_days_expires(world: World, receiver: Receiver) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.url())
    [old] = await world.waiting(app, endpoint, 1, age=timedelta(days=30, minutes=1))
    [younger] = await world.waiting(app, endpoint, 1, age=timedelta(days=29))
    async with dispatching(world) as parts:
        parts.start_claiming()
        assert await world.until_over(app, 2) == {"expired": 1, "succeeded": 1}
    assert await world.facts(old) == ["DeliveryScheduled", "DeliveryExpired"]
    assert (await world.state(younger))["status"] == "succeeded"
    assert len(receiver.requests) == 1


async def _take_away(world: World, endpoint: UUID, how: str) -> None:
    if how == "deleted":
        await world.delete(endpoint)
    else:
        await world.change(endpoint, disabled=True)
