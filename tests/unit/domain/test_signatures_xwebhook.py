"""The x-webhook profile: a wrapped payload and one plain HMAC."""

import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from libs.common.domain.signatures import xwebhook

ACCEPTED_AT = datetime(2026, 8, 21, 10, 0, 0, 100_999, tzinfo=UTC)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def wrap(
    payload: bytes,
    *,
    event_type: str = "order.completed",
    content_type: str = "application/json",
    is_json: bool = True,
    accepted_at: datetime = ACCEPTED_AT,
) -> bytes:
    return xwebhook.wrap(
        message_id="msg_1",
        event_type=event_type,
        accepted_at=accepted_at,
        payload=payload,
        content_type=content_type,
        is_json=is_json,
    )


def test_the_body_tells_id_event_time_and_payload() -> None:
    assert wrap(b'{"total": 5}') == (
        b'{"id":"msg_1","event":"order.completed","timestamp":"2026-08-21T10:00:00.100Z","data":{"total": 5}}'
    )


@pytest.mark.parametrize(
    "payload", [b'{ "b":1.0,\t"a":1e2 }', b'{"a":1,"a":2}', b"[1, 2]", '{"a":"♥\\u0041"}'.encode()]
)
def test_the_payloads_bytes_are_not_written_anew(payload: bytes) -> None:
    assert wrap(payload).endswith(b'"data":' + payload + b"}")


@pytest.mark.parametrize("payload", [b"", b"total=5", b"\xff\x00", b'1,"id":"msg_2"'])
def test_a_payload_that_is_not_json_is_sent_as_base64_with_its_content_type(payload: bytes) -> None:
    body = json.loads(wrap(payload, content_type='text/plain; charset="utf-8"', is_json=False))
    assert body["id"] == "msg_1"
    assert body["data"].keys() == {"base64", "contentType"}
    assert body["data"]["contentType"] == 'text/plain; charset="utf-8"'


def test_base64_holds_the_payloads_bytes() -> None:
    body = wrap(b"total=5", content_type="application/x-www-form-urlencoded", is_json=False)
    assert body.endswith(b'"data":{"base64":"dG90YWw9NQ==","contentType":"application/x-www-form-urlencoded"}}')


def test_a_time_of_another_zone_is_sent_in_utc() -> None:
    elsewhere = ACCEPTED_AT.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert wrap(b"1", accepted_at=elsewhere) == wrap(b"1")


def test_the_signature_is_keyed_with_the_secret_as_it_is_read() -> None:
    body = wrap(b'{"total": 5}')
    assert xwebhook.headers(SECRET, body=body, event_type="order.completed", attempt_id="atmpt_1") == {
        "X-Webhook-Signature": "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest(),
        "X-Webhook-Event": "order.completed",
        "X-Webhook-Delivery": "atmpt_1",
    }


def test_attempts_differ_in_their_own_id_alone() -> None:
    body = wrap(b"1")
    first = xwebhook.headers(SECRET, body=body, event_type="ping", attempt_id="atmpt_1")
    second = xwebhook.headers(SECRET, body=body, event_type="ping", attempt_id="atmpt_2")
    assert {name for name in first if first[name] != second[name]} == {"X-Webhook-Delivery"}
