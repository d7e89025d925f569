"""What an attempt sends: the same bytes each time, freshly signed with every key in force."""

import base64
import json
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

import pytest
from standardwebhooks import Webhook
from svix.webhooks import Webhook as SvixWebhook

from libs.common.domain.delivery import Delivery, Status
from libs.common.domain.endpoint import Endpoint, Profile, SigningKey
from libs.common.domain.facts import AttemptStarted, Origin, Trigger
from libs.common.domain.ids import Prefix, encode, time_ordered
from libs.common.domain.message import Message
from libs.common.domain.signatures import standard, xwebhook
from libs.common.domain.signatures.verdict import Refused, Verified
from libs.common.runtime import ed25519
from libs.common.runtime.expressions.evaluation import TransformationError
from services.dispatcher.flight import Flight
from services.dispatcher.signing import NoSigningKeyError, sign

NOW = datetime.now(UTC).replace(microsecond=0)
BODY = b'{"a":1, "b":"\xc3\xa9"}'
NEW, OLD = ("whsec_" + base64.b64encode(bytes([number]) * 24).decode() for number in (1, 2))


def an_id(number: int) -> UUID:
    return time_ordered(1_700_000_000_000, bytes([number]) * 10)


def flight(
    *keys: SigningKey,
    profile: Profile = Profile.STANDARD,
    compat_headers: bool = False,
    headers: tuple[tuple[str, str], ...] = (),
    transformation: str | None = None,
    body: bytes = BODY,
) -> Flight:
    started = AttemptStarted(
        at=NOW,
        attempt=an_id(3),
        run=1,
        number=1,
        trigger=Trigger.SCHEDULED,
        config_version=1,
        signing_key=None,
        process=an_id(4),
    )
    return Flight(
        delivery=an_id(2),
        state=Delivery(
            app=an_id(6),
            message=an_id(1),
            endpoint=an_id(7),
            status=Status.SENDING,
            version=2,
            created_at=NOW,
            updated_at=NOW,
            due_at=None,
        ),
        started=started,
        message=Message(
            id=an_id(1),
            org=an_id(5),
            app=an_id(6),
            event_type="order.completed",
            body=body,
            accepted_at=NOW,
            registry_version=1,
            origin=Origin.API,
        ),
        endpoint=Endpoint(
            id=an_id(7),
            app=an_id(6),
            version=1,
            url="https://a.example/",
            keys=keys,
            profile=profile,
            compat_headers=compat_headers,
            headers=headers,
            transformation=transformation,
        ),
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


def test_the_older_header_names_are_sent_beside_where_the_organisation_asks_for_them() -> None:
    key = SigningKey(id=an_id(9), secret=NEW)
    plain, both = sign(flight(key), NOW), sign(flight(key, compat_headers=True), NOW)
    assert not any(name.startswith("svix-") for name in plain.headers)
    assert {name: both.headers[name] for name in plain.headers} == plain.headers
    older = {name: value for name, value in both.headers.items() if not name.startswith("webhook-")}
    assert set(older) == {"Content-Type", "svix-id", "svix-timestamp", "svix-signature"}
    SvixWebhook(NEW).verify(BODY, older)


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


@pytest.mark.parametrize("profile", Profile)
def test_an_endpoints_own_headers_go_with_it_and_replace_the_content_type_and_nothing_else(profile: Profile) -> None:
    key = SigningKey(id=an_id(9), secret=NEW)
    plain = sign(flight(key, profile=profile), NOW)
    own = (("Authorization", "Bearer swordfish"), ("content-type", "application/cloudevents+json"))
    request = sign(flight(key, profile=profile, headers=own), NOW)
    assert request.body == plain.body
    assert request.headers == {name: value for name, value in plain.headers.items() if name != "Content-Type"} | dict(
        own
    )
    assert "swordfish" not in repr(flight(key, headers=own))


# Pairs of ed25519 keys

SEED = bytes(range(32))
PRIVATE = standard.format_private_key(SEED, ed25519.public_key(SEED))


def verified(
    headers: dict[str, str], body: bytes, *, secrets: tuple[bytes, ...] = (), seeds: tuple[bytes, ...] = ()
) -> bool:
    verdict = standard.verify(
        {name.lower(): [value] for name, value in headers.items()},
        body,
        secrets=secrets,
        public_keys=[partial(ed25519.verify, ed25519.public_key(seed)) for seed in seeds],
        now=NOW,
    )
    assert isinstance(verdict, (Verified, Refused))
    return isinstance(verdict, Verified)


def test_a_pair_of_keys_signs_as_v1a_which_its_public_key_verifies() -> None:
    request = sign(flight(SigningKey(id=an_id(9), secret=PRIVATE)), NOW)
    assert request.headers["webhook-signature"].startswith("v1a,")
    assert verified(request.headers, BODY, seeds=(SEED,))
    assert not verified(request.headers, BODY, seeds=(bytes(32),))
    assert not verified(request.headers, BODY + b" ", seeds=(SEED,))


@pytest.mark.parametrize("secrets", [(NEW, PRIVATE), (PRIVATE, NEW)])
def test_while_one_kind_is_rotated_for_the_other_both_signatures_are_sent(secrets: tuple[str, str]) -> None:
    new, old = secrets
    keys = (SigningKey(id=an_id(9), secret=new), SigningKey(id=an_id(8), secret=old, expires_at=NOW + timedelta(1)))
    request = sign(flight(*keys), NOW)
    assert sorted(text.split(",")[0] for text in request.headers["webhook-signature"].split()) == ["v1", "v1a"]
    assert verified(request.headers, BODY, secrets=(standard.parse_secret(NEW),))
    assert verified(request.headers, BODY, seeds=(SEED,))
    Webhook(NEW).verify(BODY, request.headers)


def test_the_simple_form_is_signed_with_the_newest_secret_that_both_sides_hold() -> None:
    keys = (SigningKey(id=an_id(9), secret=PRIVATE), SigningKey(id=an_id(8), secret=OLD))
    mixed = sign(flight(*keys, profile=Profile.X_WEBHOOK), NOW)
    assert mixed.headers == sign(flight(keys[1], profile=Profile.X_WEBHOOK), NOW).headers
    with pytest.raises(NoSigningKeyError):
        sign(flight(keys[0], profile=Profile.X_WEBHOOK), NOW)


# Transformations


def test_what_a_transformation_makes_is_sent_and_signed_the_same_on_each_attempt() -> None:
    changed = flight(SigningKey(id=an_id(9), secret=NEW), transformation="{kind: 'x', a: a}")
    one, two = sign(changed, NOW), sign(changed, NOW + timedelta(seconds=5))
    assert one.body == two.body == b'{"kind":"x","a":1}'
    assert one.headers["webhook-id"] == encode(Prefix.MESSAGE, an_id(1))
    Webhook(NEW).verify(one.body, one.headers)


def test_the_simple_form_wraps_what_a_transformation_makes() -> None:
    key = SigningKey(id=an_id(9), secret=NEW)
    request = sign(flight(key, profile=Profile.X_WEBHOOK, transformation="{n: a}"), NOW)
    assert json.loads(request.body)["data"] == {"n": 1}


def test_a_transformation_that_fails_sends_nothing() -> None:
    with pytest.raises(TransformationError):
        sign(flight(SigningKey(id=an_id(9), secret=NEW), transformation="sum(@)"), NOW)
    with pytest.raises(TransformationError):
        sign(flight(SigningKey(id=an_id(9), secret=NEW), transformation="a", body=b"plain text"), NOW)
