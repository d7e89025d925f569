"""Twilio: the URL is signed, so it matters how the sender wrote it."""

import hashlib
from datetime import UTC, datetime
from http import HTTPStatus

import pytest

from libs.common.domain.providers.scheme import Identity
from libs.common.domain.providers.settings import Settings, SettingsError, Verification
from libs.common.domain.providers.twilio import scheme
from libs.common.domain.signatures.verdict import RefusalReason, Verdict, Verified
from tests.support.signing import FORM, JSON, twilio_form, twilio_json, twilio_query
from tests.support.trust import reason, sent, trusting

TOKEN = "12345"
PATH = "/in/src_1?a=b%2Fc"
BODY = b"CallSid=CA1&From=%2B12349013030&Digits="
PINNED = scheme(Settings(public_url="https://hooks.example.com"))
UNPINNED = scheme(Settings())


def judge(url: str, *, host: str = "internal:8080", public_url: str | None = "https://hooks.example.com") -> Verdict:
    """A form that Twilio signed for `url`, and that arrived for `host`."""
    request = sent(twilio_form(BODY, TOKEN, url) | FORM | {"Host": host}, BODY, target=PATH)
    return scheme(Settings(public_url=public_url)).verify(request, trusting("other", TOKEN))


# The URL


@pytest.mark.parametrize("port", ["", ":443"])
def test_the_public_url_is_believed_with_and_without_its_default_port(port: str) -> None:
    assert judge(f"https://hooks.example.com{port}{PATH}") == Verified()


@pytest.mark.parametrize("port", ["", ":8443"])
def test_a_port_of_ones_own_may_be_left_out_of_what_is_signed(port: str) -> None:
    assert judge(f"https://hooks.example.com{port}{PATH}", public_url="https://hooks.example.com:8443") == Verified()


def test_what_a_proxy_takes_off_the_path_stands_in_the_public_url() -> None:
    assert judge(f"https://a.example.com/hooks{PATH}", public_url="https://a.example.com/hooks/") == Verified()


@pytest.mark.parametrize(
    "url", ["http://hooks.example.com", "https://internal:8080", "https://hooks.example.com:8443", "https://evil.test"]
)
def test_with_a_public_url_no_other_is_believed_whatever_the_request_says(url: str) -> None:
    assert reason(judge(url + PATH)) is RefusalReason.MISMATCH


@pytest.mark.parametrize("url", ["https://a.test", "https://a.test:443", "http://a.test", "http://a.test:80"])
def test_without_one_the_host_is_the_requests_under_either_scheme(url: str) -> None:
    assert judge(url + PATH, host="a.test", public_url=None) == Verified()


def test_forwarded_headers_are_not_looked_at() -> None:
    headers = twilio_form(BODY, TOKEN, f"https://a.test{PATH}") | FORM
    forwarded = {"X-Forwarded-Host": "a.test", "X-Forwarded-Proto": "https", "Forwarded": "host=a.test;proto=https"}
    request = sent(headers | forwarded | {"Host": "internal"}, BODY, target=PATH)
    assert reason(UNPINNED.verify(request, trusting(TOKEN))) is RefusalReason.MISMATCH


@pytest.mark.parametrize("host", ["", "a b", "a.test/x", "u@a.test", ["a.test", "a.test"]])
def test_a_host_that_is_none_is_malformed(host: str | list[str]) -> None:
    headers = {**twilio_form(BODY, TOKEN, f"https://a.test{PATH}"), **FORM, "Host": host}
    assert reason(UNPINNED.verify(sent(headers, BODY, target=PATH), trusting(TOKEN))) is RefusalReason.MALFORMED


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.example.com",
        "ftp://a.test",
        "https://u:p@a.test",
        "https://a.test?x",
        "https://a.test/#x",
        "https://a\n",
    ],
)
def test_a_public_url_that_no_path_fits_behind_is_refused(url: str) -> None:
    with pytest.raises(SettingsError) as refused:
        scheme(Settings(public_url=url))
    assert refused.value.place == ("public_url",)


def test_a_verification_is_refused() -> None:
    with pytest.raises(SettingsError):
        scheme(Settings(verification=Verification()))


# The body


def test_fields_are_sorted_and_each_different_value_counts_once() -> None:
    url = "https://hooks.example.com/in/src_1"
    body = b"b=2&a=1&b=1&b=2&c="
    signature = twilio_form(b"a=1&b=1&b=2&c=", TOKEN, url)
    assert PINNED.verify(sent(signature | FORM, body, target="/in/src_1"), trusting(TOKEN)) == Verified()


def test_json_is_signed_by_its_hash_in_the_query() -> None:
    body = b'{"a": 1}'
    target = "/in/src_1" + twilio_query(body)
    headers = twilio_json(body, TOKEN, f"https://hooks.example.com{target}") | JSON
    assert PINNED.verify(sent(headers, body, target=target), trusting(TOKEN)) == Verified()
    assert reason(PINNED.verify(sent(headers, body + b" ", target=target), trusting(TOKEN))) is RefusalReason.MISMATCH


def test_a_signed_json_request_does_not_pass_for_a_form_without_fields() -> None:
    body = b'{"a": 1}'
    target = "/in/src_1" + twilio_query(body)
    headers = twilio_json(body, TOKEN, f"https://hooks.example.com{target}") | FORM
    assert reason(PINNED.verify(sent(headers, b"", target=target), trusting(TOKEN))) is RefusalReason.MISMATCH


def test_json_without_its_hash_is_signed_by_nobody() -> None:
    headers = twilio_json(b"{}", TOKEN, "https://hooks.example.com/in/src_1") | JSON
    request = sent(headers, b"{}", target="/in/src_1")
    assert reason(PINNED.verify(request, trusting(TOKEN))) is RefusalReason.MALFORMED


def test_two_hashes_are_malformed() -> None:
    target = f"/in/src_1{twilio_query(b'{}')}&bodySHA256={hashlib.sha256(b'{}').hexdigest()}"
    headers = twilio_json(b"{}", TOKEN, f"https://hooks.example.com{target}") | JSON
    assert reason(PINNED.verify(sent(headers, b"{}", target=target), trusting(TOKEN))) is RefusalReason.MALFORMED


@pytest.mark.parametrize("body", [b"\xff", b"a=%ff", b"&".join([b"a=1"] * 257)])
def test_a_form_that_cannot_be_read_is_malformed(body: bytes) -> None:
    headers = {"X-Twilio-Signature": "A" * 27 + "="} | FORM
    assert reason(PINNED.verify(sent(headers, body), trusting(TOKEN))) is RefusalReason.MALFORMED


# Identity


@pytest.mark.parametrize(
    ("document", "event_type"),
    [
        ({"EventType": "onMessageAdded", "MessageSid": "IM1"}, "onMessageAdded"),
        ({"StatusCallbackEvent": "participant-join"}, "participant-join"),
        ({"MessageStatus": "delivered", "SmsStatus": "delivered"}, "message.delivered"),
        ({"SmsStatus": "received"}, "message.received"),
        ({"CallStatus": "in-progress"}, "call.in-progress"),
        ({"CallSid": "CA1", "Digits": "1234"}, "call"),
        ({"Unheard": "of"}, "webhook"),
    ],
)
def test_a_form_is_named_after_what_it_is_and_how_it_stands(document: dict[str, str], event_type: str) -> None:
    headers = {"i-twilio-idempotency-token": ["t-1"]}
    assert PINNED.identify(headers, document) == Identity(event_type=event_type, event_id="t-1")


EVENT = {"type": "com.twilio.messaging.message.delivered", "id": "EZ1", "time": "2021-03-23T14:41:16.000Z"}


def test_a_streams_event_tells_its_type_id_and_time() -> None:
    assert PINNED.identify({}, [EVENT]) == Identity(
        event_type="com.twilio.messaging.message.delivered",
        event_id="EZ1",
        occurred_at=datetime(2021, 3, 23, 14, 41, 16, tzinfo=UTC),
    )


def test_a_batch_of_several_has_the_id_of_the_delivery() -> None:
    found = PINNED.identify({"i-twilio-idempotency-token": ["t-1"]}, [EVENT, EVENT | {"id": "EZ2"}])
    assert isinstance(found, Identity)
    assert (found.event_type, found.event_id) == ("com.twilio.messaging.message.delivered", "t-1")


def test_twilio_expects_an_empty_answer() -> None:
    assert PINNED.success_status is HTTPStatus.NO_CONTENT
