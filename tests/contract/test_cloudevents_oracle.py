"""Our reading and writing of CloudEvents against the library of the CloudEvents project."""

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from cloudevents.core.bindings import amqp, rabbitmq
from cloudevents.core.v1.event import CloudEvent as TheirEvent

from libs.common.contracts.cloudevents import structured
from libs.common.contracts.cloudevents.carried import read
from libs.common.contracts.cloudevents.event import CloudEvent

AT = datetime(2026, 8, 21, 10, 0, 0, 123456, tzinfo=UTC)
JSON_EVENT: tuple[str, Any, bytes] = ("application/json", {"n": 1, "text": "zoë"}, '{"n":1,"text":"zoë"}'.encode())
TEXT_EVENT: tuple[str, Any, bytes] = ("text/plain", "zoë\n", "zoë\n".encode())
IMAGE: tuple[str, Any, bytes] = ("image/png", b"\x89PNG\0\xff", b"\x89PNG\0\xff")


def theirs(content_type: str, data: Any) -> TheirEvent:
    attributes = {
        "id": "1/é",
        "source": "/orders?a=b",
        "type": "order.completed",
        "time": AT,
        "subject": "order 7",
        "datacontenttype": content_type,
        "hookledgerapp": "app_1",
    }
    return TheirEvent(attributes=attributes, data=data)


def same(event: object, content_type: str, data: bytes) -> bool:
    assert isinstance(event, CloudEvent)
    assert (event.id, event.source, event.type) == ("1/é", "/orders?a=b", "order.completed")
    assert (event.time, event.subject) == (AT, "order 7")
    assert event.extensions == {"hookledgerapp": "app_1"}
    assert event.datacontenttype == content_type
    assert event.data is not None
    if content_type == "application/json":
        assert orjson.loads(event.data) == orjson.loads(data)
    else:
        assert event.data == data
    return True


@pytest.mark.parametrize(("content_type", "data", "as_bytes"), [JSON_EVENT, TEXT_EVENT, IMAGE])
def test_what_their_library_writes_we_read_in_each_form(content_type: str, data: Any, as_bytes: bytes) -> None:
    event = theirs(content_type, data)
    for_rabbitmq = rabbitmq.to_binary_event(event)
    [carried] = read(for_rabbitmq.content_type, for_rabbitmq.headers, for_rabbitmq.body)
    assert same(carried.event, content_type, as_bytes)
    assert carried.body == for_rabbitmq.body

    for_amqp = amqp.to_binary_event(event)
    # Milliseconds stand there for AMQP 1.0's timestamp, which RabbitMQ hands over as its own.
    headers = for_amqp.application_properties | {"cloudEvents_time": AT}
    [carried] = read(str(for_amqp.properties["content-type"]), headers, for_amqp.application_data)
    assert same(carried.event, content_type, as_bytes)

    whole = rabbitmq.to_structured_event(event)
    [carried] = read(whole.content_type, whole.headers, whole.body)
    assert same(carried.event, content_type, as_bytes)

    first, second = read("application/cloudevents-batch+json", {}, b"[" + whole.body + b"," + whole.body + b"]")
    assert same(first.event, content_type, as_bytes)
    assert same(second.event, content_type, as_bytes)


@pytest.mark.parametrize(("content_type", "data", "as_bytes"), [JSON_EVENT, IMAGE])
def test_what_we_write_their_library_reads(content_type: str, data: Any, as_bytes: bytes) -> None:
    body = structured.encode(
        id="1/é",
        source="/orders?a=b",
        type="order.completed",
        time=AT,
        data=as_bytes,
        datacontenttype=content_type,
        subject="order 7",
        extensions={"hookledgerapp": "app_1"},
    )
    message = rabbitmq.RabbitMQMessage(headers={}, content_type=structured.CONTENT_TYPE, body=body)
    event = rabbitmq.from_structured_event(message)
    assert event.get_attributes() == theirs(content_type, data).get_attributes()
    assert event.get_data() == data
