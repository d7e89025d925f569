"""Events: what is told on the broker of messages and deliveries."""

from datetime import UTC, datetime

import orjson
import pytest
from pamqp.commands import Basic
from pamqp.frame import marshal

from libs.common.domain.facts import Origin
from libs.common.domain.message import Message
from libs.common.runtime.clock import new_id
from services.dispatcher import events


@pytest.mark.parametrize("length", [1, 255, 256])
def test_an_event_type_of_any_length_is_a_routing_key_as_far_as_one_goes(length: int) -> None:
    message = Message(
        id=new_id(),
        org=new_id(),
        app=new_id(),
        event_type="a" * length,
        body=b"{}",
        accepted_at=datetime.now(UTC),
        registry_version=1,
        origin=Origin.API,
        publish=True,
    )
    event = events.accepted(message)
    assert event.routing_key == "a" * min(length, 255)
    assert orjson.loads(event.body)["type"] == "a" * length
    assert marshal(Basic.Publish(exchange="accepted", routing_key=event.routing_key), 1)
