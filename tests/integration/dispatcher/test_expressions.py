"""Filters and transformations on the way of a message: what is sent, and what the ledger says of what is not."""

import json
from typing import Any
from uuid import UUID

import structlog

from libs.common.contracts.registry import TransformationDocument
from libs.common.domain.ids import delivery_id
from tests.integration.dispatcher.parts import dispatching
from tests.integration.dispatcher.world import World
from tests.support.receiver import Receiver

COSTLY = "[@,@] | " * 40 + "to_string(@) == 'x'"


async def data(world: World, stream: UUID, kind: str) -> Any:
    text = await world.owner.fetchval(
        "SELECT convert_from(data, 'UTF8') FROM hookledger.fact WHERE stream = $1 AND kind = $2", stream, kind
    )
    return json.loads(text)


async def test_a_filter_decides_and_the_ledger_counts_why(world: World, receiver: Receiver) -> None:
    app = await world.application()
    for path, expression in {"/large": "total > `100`", "/small": "total < `100`", "/bad": "sum(total)"}.items():
        await world.endpoint(app, receiver.url(path), filter=expression)
    await world.endpoint(app, receiver.url("/costly"), filter=COSTLY)
    await world.endpoint(app, receiver.url("/other"), filter="`true`", event_types=("order.cancelled",))
    async with dispatching(world) as parts:
        [message] = await world.accept(app, body=b'{"total":120}')
        await parts.fan_outs.take([message], path="envelope")
        assert await world.until_over(app, 1) == {"succeeded": 1}
    assert {request.path for request in receiver.requests} == {"/large"}
    assert (await data(world, message.id, "MessageFannedOut"))["counts"] == {
        "filter": 1,
        "filtered_out": 1,
        "filter_failed": 1,
        "filter_too_costly": 1,
        "other_event_type": 1,
    }


async def test_a_payload_that_is_no_json_reaches_those_without_a_filter_only(world: World, receiver: Receiver) -> None:
    app = await world.application()
    await world.endpoint(app, receiver.url("/all"))
    await world.endpoint(app, receiver.url("/filtered"), filter="`true`")
    async with dispatching(world) as parts:
        [message] = await world.accept(app, body=b"plain text")
        await parts.fan_outs.take([message], path="envelope")
        await world.until_over(app, 1)
    assert {request.path for request in receiver.requests} == {"/all"}
    assert (await data(world, message.id, "MessageFannedOut"))["counts"] == {"all": 1, "filter_failed": 1}


async def test_a_transformation_is_what_the_receiver_gets(world: World, receiver: Receiver) -> None:
    app = await world.application()
    change = TransformationDocument(expression="{sum: total}")
    await world.endpoint(app, receiver.url("/on"), transformation=change)
    off = TransformationDocument(expression="{sum: total}", enabled=False)
    await world.endpoint(app, receiver.url("/off"), transformation=off)
    async with dispatching(world) as parts:
        await parts.fan_outs.take(await world.accept(app, body=b'{"total": 1}'), path="envelope")
        assert await world.until_over(app, 2) == {"succeeded": 2}
    assert {request.path: request.body for request in receiver.requests} == {
        "/on": b'{"sum":1}',
        "/off": b'{"total": 1}',
    }


async def test_a_transformation_that_fails_is_final_and_recorded_and_nothing_is_sent(
    world: World, receiver: Receiver
) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.url(), transformation=TransformationDocument(expression="sum(@)"))
    async with dispatching(world) as parts:
        [message] = await world.accept(app, body=b'{"total": "4711 personal"}')
        with structlog.testing.capture_logs() as lines:
            await parts.fan_outs.take([message], path="envelope")
            assert await world.until_over(app, 1) == {"refused": 1}
    [failed] = [line for line in lines if line["event"] == "attempt.transformation_failed"]
    assert failed["reason"] == "does_not_apply"
    assert "personal" not in str(lines), "nothing of a payload is logged"
    delivery = delivery_id(message.id, endpoint)
    assert await world.facts(delivery) == ["DeliveryScheduled", "AttemptStarted", "AttemptEnded", "DeliveryRefused"]
    ended = await data(world, delivery, "AttemptEnded")
    assert (ended["failure"], ended["outcome"], ended["sends"]) == ("transformation_failed", "refused", 0)
    assert receiver.requests == []
