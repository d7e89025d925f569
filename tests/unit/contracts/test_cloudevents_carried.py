"""What one message carries: structured, batched or binary, told by its content type; a bad event of a batch stands alone."""

import json
from typing import Any

import pytest

from libs.common.contracts.cloudevents.batch import MAX_EVENTS, split
from libs.common.contracts.cloudevents.carried import MAX_BATCH_BYTES, MAX_EVENT_BYTES, Carried, read
from libs.common.contracts.cloudevents.event import CloudEvent, MalformedCloudEventError

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
BINARY = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t"}


def spelled(event_id: str = "1", data: bytes = b"1", **changes: Any) -> bytes:
    event = {"specversion": "1.0", "id": event_id, "source": "/s", "type": "t", **changes}
    return json.dumps(event).encode()[:-1] + b', "data" : ' + data + b"}"


def event_of(carried: Carried) -> CloudEvent:
    assert isinstance(carried.event, CloudEvent)
    return carried.event


def told_of(carried: Carried) -> str:
    assert isinstance(carried.event, MalformedCloudEventError)
    return str(carried.event)


@pytest.mark.parametrize(
    "content_type", [STRUCTURED, "Application/CloudEvents+JSON; charset=UTF-8", f'{STRUCTURED};charset="utf-8"; x=y']
)
def test_a_structured_event_is_one_and_the_message_is_its_bytes(content_type: str) -> None:
    [carried] = read(content_type, {}, spelled())
    assert event_of(carried).id == "1"
    assert (carried.content_type, carried.body) == (content_type, spelled())


@pytest.mark.parametrize("content_type", ["text/plain", "application/json", None])
def test_without_a_content_type_of_cloudevents_the_headers_decide(content_type: str | None) -> None:
    [carried] = read(content_type, BINARY, b"1")
    assert (event_of(carried).id, event_of(carried).data) == ("1", b"1")
    with pytest.raises(MalformedCloudEventError, match="content type"):
        read(content_type, {"ce-id": "1"}, b"1")


def test_the_content_type_goes_before_the_headers() -> None:
    [carried] = read(STRUCTURED, BINARY | {"ce-id": "2"}, spelled("3"))
    assert event_of(carried).id == "3"


@pytest.mark.parametrize("content_type", ["application/cloudevents+avro", "application/cloudevents", ""])
def test_another_format_of_cloudevents_is_refused(content_type: str) -> None:
    headers = BINARY if content_type else {}
    with pytest.raises(MalformedCloudEventError, match="content type"):
        read(content_type, headers, spelled())


@pytest.mark.parametrize("content_type", [STRUCTURED, BATCH])
def test_another_charset_is_refused(content_type: str) -> None:
    with pytest.raises(MalformedCloudEventError, match="charset"):
        read(f"{content_type}; charset=utf-16", {}, spelled())


def test_the_events_of_a_batch_keep_their_order_and_their_bytes() -> None:
    data = b'{ "z" :1.0 ,\n "a": "\\u00e9" }'
    body = b" [ " + spelled("1", data) + b" ,\n" + spelled("2", b"[1 , 2]") + b"\n] "
    first, second = read(BATCH, {}, body)
    assert (event_of(first).data, event_of(second).data) == (data, b"[1 , 2]")
    assert (first.content_type, first.body) == (STRUCTURED, spelled("1", data))
    assert second.body == spelled("2", b"[1 , 2]")


def test_an_empty_batch_has_no_events() -> None:
    assert read(BATCH, {}, b" [ ] ") == []


def test_a_bad_event_of_a_batch_leaves_its_siblings_alone() -> None:
    bad = [b"1", b"{}", spelled("2", specversion="0.3"), spelled("3", b'{"a":1,"a":2}'), b"[" + spelled("4") + b"]"]
    first, *others, last = read(BATCH, {}, b"[" + b",".join([spelled("1"), *bad, spelled("5")]) + b"]")
    assert (event_of(first).id, event_of(last).id) == ("1", "5")
    assert [carried.body for carried in others] == bad
    said = ["not a JSON object", "specversion", "specversion", "same key twice", "not a JSON object"]
    for carried, reason in zip(others, said, strict=True):
        assert reason in told_of(carried)


@pytest.mark.parametrize("body", [b"", b"[", b"[1,]", b"[" + spelled() + b'{"a":}]', b"\xff", b"[" * 100_000])
def test_a_batch_that_is_not_json_is_refused_whole(body: bytes) -> None:
    with pytest.raises(MalformedCloudEventError, match="not valid JSON"):
        split(body)


@pytest.mark.parametrize("body", [spelled(), b"1", b"null", b'"[]"'])
def test_a_batch_that_is_no_array_is_refused_whole(body: bytes) -> None:
    with pytest.raises(MalformedCloudEventError, match="not a JSON array"):
        split(body)


def test_a_batch_is_bounded_in_number_and_in_bytes() -> None:
    assert len(split(b"[" + b",".join([b"{}"] * MAX_EVENTS) + b"]")) == MAX_EVENTS
    with pytest.raises(MalformedCloudEventError, match="more than"):
        split(b"[" + b",".join([b"{}"] * (MAX_EVENTS + 1)) + b"]")
    with pytest.raises(MalformedCloudEventError, match="the batch is larger"):
        read(BATCH, {}, b" " * MAX_BATCH_BYTES + b"[]")


def test_an_event_is_bounded_in_each_form() -> None:
    large = spelled("1", b'"' + b"x" * MAX_EVENT_BYTES + b'"')
    assert "larger" in told_of(read(STRUCTURED, {}, large)[0])
    first, second = read(BATCH, {}, b"[" + large + b"," + spelled("2") + b"]")
    assert "larger" in told_of(first)
    assert event_of(second).id == "2"
    with pytest.raises(MalformedCloudEventError, match="larger"):
        read("text/plain", BINARY, b"x" * (1024 * 1024 + 1))
