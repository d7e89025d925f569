"""Slack: events, handshakes, interactions, slash commands."""

import json
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from urllib.parse import urlencode

import pytest

from libs.common.domain.providers.scheme import Challenge, Identity, Unreadable
from libs.common.domain.providers.slack import SCHEME
from libs.common.domain.signatures.verdict import RefusalReason, Verified
from tests.support import signing
from tests.support.signing import FORM
from tests.support.trust import NOW, reason, sent, trusting

SECRET = "8f742231b10e8888abcd99yyyzzz85a5"
BODY = b'{"type":"event_callback"}'
SIGNED = signing.slack(BODY, SECRET, NOW)


@pytest.mark.parametrize("seconds", [-300, 0, 300])
def test_five_minutes_to_either_side_are_believed(seconds: int) -> None:
    now = NOW + timedelta(seconds=seconds)
    assert SCHEME.verify(sent(SIGNED, BODY), trusting("next", SECRET, now=now)) == Verified()


@pytest.mark.parametrize(("seconds", "expected"), [(301, RefusalReason.STALE), (-301, RefusalReason.FUTURE)])
def test_more_are_not(seconds: int, expected: RefusalReason) -> None:
    now = NOW + timedelta(seconds=seconds)
    assert reason(SCHEME.verify(sent(SIGNED, BODY), trusting(SECRET, now=now))) is expected


@pytest.mark.parametrize("name", list(SIGNED))
def test_both_headers_come_once(name: str) -> None:
    missing = sent({key: value for key, value in SIGNED.items() if key != name}, BODY)
    assert reason(SCHEME.verify(missing, trusting(SECRET))) is RefusalReason.MISSING
    repeated = sent({**SIGNED, name: [SIGNED[name]] * 2}, BODY)
    assert reason(SCHEME.verify(repeated, trusting(SECRET))) is RefusalReason.MALFORMED


@pytest.mark.parametrize(
    "changed",
    [{"X-Slack-Signature": "v0="}, {"X-Slack-Signature": "v1" + "0" * 64}, {"X-Slack-Request-Timestamp": "1e9"}],
)
def test_headers_of_another_form_are_malformed(changed: dict[str, str]) -> None:
    assert reason(SCHEME.verify(sent(SIGNED | changed, BODY), trusting(SECRET))) is RefusalReason.MALFORMED


def test_the_handshake_is_answered_with_its_challenge() -> None:
    # https://docs.slack.dev/reference/events/url_verification
    document = {
        "token": "Jhj5dZrVaK7ZwHHjRyZWjbDl",
        "challenge": "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P",
        "type": "url_verification",
    }
    assert SCHEME.identify({}, document) == Challenge(answer=document["challenge"])


@pytest.mark.parametrize("challenge", [None, "", 5, "<b>\n", "é", "x" * 513])
def test_a_challenge_that_is_more_than_a_word_is_not_repeated(challenge: object) -> None:
    assert isinstance(SCHEME.identify({}, {"type": "url_verification", "challenge": challenge}), Unreadable)


def test_an_event_has_the_inner_type_the_events_id_and_its_time() -> None:
    document = {
        "type": "event_callback",
        "event": {"type": "app_mention"},
        "event_id": "Ev123ABC456",
        "event_time": 1515449522,
    }
    assert SCHEME.identify({}, document) == Identity(
        event_type="app_mention", event_id="Ev123ABC456", occurred_at=datetime(2018, 1, 8, 22, 12, 2, tzinfo=UTC)
    )


def test_a_slash_command_is_a_form_and_gets_no_body_that_slack_would_show() -> None:
    document = SCHEME.extract_document(sent(FORM).headers, b"command=%2Fweather&text=94070")
    assert document == {"command": "/weather", "text": "94070"}
    assert SCHEME.identify({}, document) == Identity(event_type="slash_command", event_id=None, bare_answer=True)


def test_an_interaction_is_json_in_a_form() -> None:
    payload = json.dumps({"type": "block_actions"})
    document = SCHEME.extract_document(sent(FORM).headers, urlencode({"payload": payload}).encode())
    assert document == payload.encode()
    assert SCHEME.identify({}, json.loads(document)) == Identity(
        event_type="block_actions", event_id=None, bare_answer=True
    )


def test_slack_expects_200() -> None:
    assert SCHEME.success_status is HTTPStatus.OK
