"""What an attempt sends: the same bytes each time, freshly signed with every key in force."""

import base64
import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from standardwebhooks import Webhook

from libs.common.domain.endpoint import Endpoint, Profile, SigningKey
from libs.common.domain.facts import AttemptStarted, Origin, Trigger
from libs.common.domain.ids import Prefix, encode, time_ordered
from libs.common.domain.message import Message
from libs.common.domain.signatures import xwebhook
from services.dispatcher.flight import Flight
from services.dispatcher.signing import NoSigningKeyError, sign

NOW = datetime.now(UTC).replace(microsecond=0)
BODY = b'{"a":1, "b":"\xc3\xa9"}'
NEW, OLD = ("whsec_" + base64.b64encode(bytes([number]) * 24).decode() for number in (1, 2))


def an_id(number: int) -> UUID:
    return time_ordered(1_700_000_000_000, bytes([number]) * 10)


def flight(*keys: SigningKey, profile: Profile = Profile.STANDARD) -> Flight:
    return Flight(
        delivery=an_id(2),
        started=AttemptStarted(
            at=NOW,
            attempt=an_id(3),
            run=1,
            number=1,
            trigger=Trigger.SCHEDULED,
            config_version=1,
            signing_key=None,
            process=an_id(4),
        ),
        message=Message(
            id=an_id(1),
            org=an_id(5),
            app=an_id(6),
            event_type="order.completed",
            body=BODY,
            accepted_at=NOW,
            registry_version=1,
            origin=Origin.API,
        ),
        endpoint=Endpoint(id=an_id(7), app=an_id(6), version=1, url="https://a.example/", keys=keys, profile=profile),
        lane=an_id(7),
        counted=False,
        lease=1,
    )


def test_the_standard_form_verifies_with_the_standard_webhooks_library() -> None:
    request = sign(flight(SigningKey(id=an_id(9), secret=NEW)), NOW)
    assert request.body == BODY
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["webhook-id"] == encode(Prefix.MESSAGE, an_id(1))
    Webhook(NEW).verify(BODY, request.headers)


def test_after_a_rotation_the_old_key_signs_until_it_expires() -> None:
    keys = (SigningKey(id=an_id(9), secret=NEW), SigningKey(id=an_id(8), secret=OLD, expires_at=NOW + timedelta(1)))
    during = sign(flight(*keys), NOW)
    Webhook(NEW).verify(BODY, during.headers)
    Webhook(OLD).verify(BODY, during.headers)
    after = sign(flight(*keys), NOW + timedelta(1))
    assert len(after.headers["webhook-signature"].split()) == 1


def test_a_second_attempt_has_the_same_id_and_body_and_a_fresh_signature() -> None:
    one = sign(flight(SigningKey(id=an_id(9), secret=NEW)), NOW)
    two = sign(flight(SigningKey(id=an_id(9), secret=NEW)), NOW + timedelta(seconds=5))
    assert (one.body, one.headers["webhook-id"]) == (two.body, two.headers["webhook-id"])
    assert one.headers["webhook-timestamp"] != two.headers["webhook-timestamp"]
    assert one.headers["webhook-signature"] != two.headers["webhook-signature"]


def test_the_simple_form_wraps_the_payloads_bytes_and_signs_what_is_sent() -> None:
    request = sign(flight(SigningKey(id=an_id(9), secret=NEW), profile=Profile.X_WEBHOOK), NOW)
    assert BODY in request.body
    assert json.loads(request.body).keys() == {"id", "event", "timestamp", "data"}
    assert request.headers["X-Webhook-Delivery"] == encode(Prefix.ATTEMPT, an_id(3))
    assert request.headers["X-Webhook-Event"] == "order.completed"
    again = xwebhook.headers(NEW, body=request.body, event_type="order.completed", attempt_id="x")
    assert request.headers["X-Webhook-Signature"] == again["X-Webhook-Signature"]


@pytest.mark.parametrize(
    "keys",
    [
        (),
        (SigningKey(id=an_id(9), secret=NEW, expires_at=NOW),),
        (SigningKey(id=an_id(9), secret="not a secret"),),
    ],
    ids=["none", "expired", "unusable"],
)
def test_nothing_is_sent_unsigned(keys: tuple[SigningKey, ...]) -> None:
    with pytest.raises(NoSigningKeyError):
        sign(flight(*keys), NOW)
