"""The publish API's document, read without a server."""

from datetime import UTC, datetime
from uuid import UUID

import orjson
import pytest

from libs.common.runtime.http import ApiError
from services.ingress.message_in import parse
from services.ingress.wishes import read_wishes

AT = datetime(2026, 8, 21, 10, tzinfo=UTC)


def now() -> datetime:
    return AT


@pytest.mark.parametrize("payload", [b"{}", b'{ "a" : 1.0 }', b'{"payload":{}}', '{"é":"\\u00e9"}'.encode()])
def test_the_payload_is_a_slice_of_the_request(payload: bytes) -> None:
    message = parse(b'{"payload":  ' + payload + b' ,"eventType":"a.b"}', now)
    assert (message.event_type, message.body, message.content_type) == ("a.b", payload, "application/json")


def test_what_may_be_absent_may_be_null() -> None:
    message = parse(
        b'{"eventType":"a","payload":{},"eventId":null,"channels":null,"tags":null,"payloadRetentionPeriod":null,'
        b'"transformationsParams":null,"application":null}',
        now,
    )
    assert (message.event_id, message.channels, message.tags, message.application) == (None, (), (), None)


def test_the_application_is_kept_as_it_came() -> None:
    assert parse(b'{"eventType":"a","payload":{},"application": {"name" :1}}', now).application == b'{"name" :1}'


def test_the_answer_shows_the_payload_as_it_came() -> None:
    message = parse(b'{"eventType":"a","payload":{"b" : 1.0}}', now)
    answer = message.answer(UUID(int=7), AT, with_content=True)
    assert b'"payload":{"b" : 1.0}' in answer
    assert orjson.loads(answer)["timestamp"] == "2026-08-21T10:00:00Z"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("0001-01-01T00:00:00Z", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("0001-01-01T00:00:00.000001Z", "0001-01-01T00:00:00.000001Z"),
        ("0001-01-01T00:00:00-14:00", "0001-01-01T14:00:00Z"),
        ("2026-08-21T10:00:00+02:00", "2026-08-21T08:00:00Z"),
    ],
)
def test_a_time_is_shown_in_utc_and_one_that_is_not_set_is_none(given: str, shown: str | None) -> None:
    message = parse(b'{"eventType":"a","payload":{},"deliverAt":"%s"}' % given.encode(), now)
    assert orjson.loads(message.answer(UUID(int=7), AT, with_content=True))["deliverAt"] == shown
    assert read_wishes({"hookledgerapp": "a", "hookledgerdeliverat": given}, AT).deliver_at == message.deliver_at


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b'{"eventType":"a","payload":{},"channels":["a",1]}', ["body", "channels"]),
        (b'{"eventType":"a","payload":{},"tags":[1]}', ["body", "tags"]),
        (b'{"eventType":"a","payload":{},"transformationsParams":{"rawPayload":1}}', ["body", "transformationsParams"]),
        (b'{"eventType":"a","payload":1}', ["body", "payload"]),
        (b'{"eventType":"a","payload":{},"deliverAt":"9999-12-31T23:59:59.999999Z"}', ["body", "deliverAt"]),
        (b'{"eventType":"a","payload":{},"deliverAt":"9999-12-31T23:59:59-14:00"}', ["body", "deliverAt"]),
        (b'{"eventType":"a","payload":{},"application":[null]}', ["body", "application"]),
        (
            b'{"eventType":"a","payload":{},"transformationsParams":{"rawPayload":"x","headers":{"content-type":"a\\nb"}}}',
            ["body", "transformationsParams", "headers", "content-type"],
        ),
    ],
)
def test_a_refusal_says_where(body: bytes, place: list[str]) -> None:
    with pytest.raises(ApiError) as caught:
        parse(body, now)
    assert caught.value.status == 422
    assert isinstance(caught.value.detail, list)
    assert caught.value.detail[0]["loc"][: len(place)] == place
