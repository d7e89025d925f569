"""What differs between providers: reading a verified request, and checking a source's secret."""

from datetime import UTC, datetime
from http import HTTPStatus
from urllib.parse import urlencode

import pytest

from libs.common.domain.providers.scheme import Identity, Scheme, Unreadable, UnreadableReason
from libs.common.domain.providers.settings import Settings, SettingsError, Verification
from libs.common.domain.providers.table import Provider, scheme_of
from libs.common.domain.signatures.verdict import RefusalReason, Refused
from tests.support.signing import FORM as FORM_TYPE
from tests.support.trust import NOW, sent, trusting

STRIPE = scheme_of(Provider.STRIPE)
GITHUB = scheme_of(Provider.GITHUB)
STANDARD = scheme_of(Provider.STANDARD_WEBHOOKS)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

NEEDED = {
    Provider.HMAC: Settings(verification=Verification(header="X-Signature")),
    Provider.TOKEN: Settings(verification=Verification(header="X-Token")),
}
SCHEMES = {provider: scheme_of(provider, NEEDED.get(provider, Settings())) for provider in Provider}
ANSWERS = {Provider.SLACK: HTTPStatus.OK, Provider.TWILIO: HTTPStatus.NO_CONTENT}


def reason(read: object) -> UnreadableReason:
    assert isinstance(read, Unreadable)
    return read.reason


@pytest.mark.parametrize("provider", Provider)
def test_each_provider_has_its_row_and_its_answer(provider: Provider) -> None:
    assert SCHEMES[provider].success_status is ANSWERS.get(provider, HTTPStatus.ACCEPTED)


@pytest.mark.parametrize("provider", set(Provider) - {Provider.HMAC, Provider.TOKEN, Provider.BASIC})
def test_a_provider_that_describes_itself_takes_no_verification(provider: Provider) -> None:
    with pytest.raises(SettingsError) as refused:
        scheme_of(provider, Settings(verification=Verification()))
    assert refused.value.place == ("verification",)


@pytest.mark.parametrize("provider", set(Provider) - {Provider.TWILIO})
def test_only_who_signs_the_url_takes_one(provider: Provider) -> None:
    with pytest.raises(SettingsError) as refused:
        scheme_of(provider, Settings(public_url="https://hooks.example.com"))
    assert refused.value.place == ("public_url",)


@pytest.mark.parametrize("provider", Provider)
def test_what_is_kept_of_a_refused_request_never_holds_a_secret(provider: Provider) -> None:
    assert not SCHEMES[provider].evidence & {"authorization", "x-gitlab-token", "x-token", "cookie"}


# Verifying


@pytest.mark.parametrize("provider", Provider)
@pytest.mark.parametrize("secret", ["", "\udcff", "not base64"])
def test_a_secret_that_could_not_be_registered_verifies_nothing_and_raises_nothing(
    provider: Provider, secret: str
) -> None:
    at = str(int(NOW.timestamp()))
    headers = {
        "stripe-signature": f"t={at},v1={'0' * 64}",
        "x-hub-signature-256": f"sha256={'0' * 64}",
        "x-gitlab-token": "",
        "x-slack-request-timestamp": at,
        "x-slack-signature": f"v0={'0' * 64}",
        "x-shopify-hmac-sha256": f"{'A' * 43}=",
        "x-twilio-signature": f"{'A' * 27}=",
        "host": "hooks.example.com",
        "content-type": FORM_TYPE["Content-Type"],
        "webhook-id": "msg_1",
        "webhook-timestamp": at,
        "webhook-signature": "v1,AAAA",
        "x-signature": "",
        "x-token": "",
        "authorization": "Basic ",
    }
    verdict = SCHEMES[provider].verify(sent(headers, b"a=b"), trusting(secret))
    assert isinstance(verdict, Refused)
    assert verdict.reason is RefusalReason.MISMATCH


# Identity


def test_stripe_tells_type_and_id_in_the_body() -> None:
    document = {"id": "evt_1", "type": "payment_intent.succeeded", "created": 1680064028}
    assert STRIPE.identify({}, document) == Identity(
        event_type="payment_intent.succeeded",
        event_id="evt_1",
        occurred_at=datetime(2023, 3, 29, 4, 27, 8, tzinfo=UTC),
    )


@pytest.mark.parametrize("created", [None, "1680064028", 1.5, True, -1, 10**12])
def test_a_time_that_cannot_be_read_is_none(created: object) -> None:
    assert STRIPE.identify({}, {"type": "ping", "created": created}) == Identity(event_type="ping", event_id=None)


def test_github_tells_type_and_id_in_headers() -> None:
    headers = {"x-github-event": ["push"], "x-github-delivery": ["72d3162e-cc78-11e3-81ab-4c9367dc0958"]}
    assert GITHUB.identify(headers, {}) == Identity(event_type="push", event_id="72d3162e-cc78-11e3-81ab-4c9367dc0958")


def test_standard_webhooks_tells_its_type_in_the_body_and_its_id_in_a_header() -> None:
    document = {"type": "contact.created", "timestamp": "2022-11-03T20:26:10.344522Z"}
    assert STANDARD.identify({"webhook-id": ["msg_1"]}, document) == Identity(
        event_type="contact.created",
        event_id="msg_1",
        occurred_at=datetime(2022, 11, 3, 20, 26, 10, 344522, tzinfo=UTC),
    )


def test_an_event_without_an_id_is_taken_and_cannot_be_recognised_again() -> None:
    assert STRIPE.identify({}, {"type": "ping"}) == Identity(event_type="ping", event_id=None)
    assert GITHUB.identify({"x-github-event": ["ping"]}, {}) == Identity(event_type="ping", event_id=None)


@pytest.mark.parametrize("event_type", [None, "", "a b", "é", "a/b", "x" * 257, 5, ["push"], "push\n", "\udcff"])
def test_an_event_type_that_could_not_be_subscribed_to_is_refused(event_type: object) -> None:
    assert reason(STRIPE.identify({}, {"type": event_type, "id": "evt_1"})) is UnreadableReason.IDENTITY


def test_an_event_type_of_256_characters_is_taken() -> None:
    assert STRIPE.identify({}, {"type": "x" * 256}) == Identity(event_type="x" * 256, event_id=None)


@pytest.mark.parametrize("event_id", ["", "a b", "é", "x" * 257, 5, True, {}, "a\x00", "\udcff"])
def test_an_event_id_that_could_not_be_stored_is_refused(event_id: object) -> None:
    assert reason(STRIPE.identify({}, {"type": "ping", "id": event_id})) is UnreadableReason.IDENTITY


@pytest.mark.parametrize("document", [None, [], "type", 5])
def test_a_document_that_is_no_object_has_no_identity(document: object) -> None:
    assert reason(STRIPE.identify({}, document)) is UnreadableReason.IDENTITY
    assert reason(STANDARD.identify({"webhook-id": ["msg_1"]}, document)) is UnreadableReason.IDENTITY


@pytest.mark.parametrize("name", ["x-github-event", "x-github-delivery"])
def test_a_repeated_identity_header_is_refused(name: str) -> None:
    headers = {"x-github-event": ["push"], "x-github-delivery": ["1"]} | {name: ["push", "push"]}
    assert reason(GITHUB.identify(headers, {})) is UnreadableReason.IDENTITY


# Content


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON", "application/json; charset=utf-8"])
@pytest.mark.parametrize("provider", Provider)
def test_json_is_taken_as_it_came(provider: Provider, content_type: str) -> None:
    assert SCHEMES[provider].extract_document({"content-type": [content_type]}, b'{"a": 1}') == b'{"a": 1}'


@pytest.mark.parametrize("values", [[], [""], ["text/plain"], ["application/jsonp"], ["application/json"] * 2])
@pytest.mark.parametrize("provider", Provider)
def test_any_other_content_type_is_refused(provider: Provider, values: list[str]) -> None:
    assert reason(SCHEMES[provider].extract_document({"content-type": values}, b"{}")) is UnreadableReason.CONTENT_TYPE


FORM = {"content-type": ["application/x-www-form-urlencoded"]}


def test_github_may_send_its_document_in_a_form() -> None:
    document = '{"ref": "refs/heads/main", "by": "♥ & co"}'
    assert GITHUB.extract_document(FORM, urlencode({"payload": document}).encode()) == document.encode()


@pytest.mark.parametrize("provider", ["stripe", "gitlab", "shopify", "standard-webhooks"])
def test_others_may_not(provider: str) -> None:
    assert (
        reason(SCHEMES[Provider(provider)].extract_document(FORM, b"payload=%7B%7D")) is UnreadableReason.CONTENT_TYPE
    )


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"other=%7B%7D", b"payload=1&payload=2", b"payload=%ff", b"\xff", b"a=&" * 257 + b"payload=%7B%7D"],
)
def test_a_form_without_exactly_one_document_is_refused(body: bytes) -> None:
    assert reason(GITHUB.extract_document(FORM, body)) is UnreadableReason.FORM


# Secrets


@pytest.mark.parametrize(
    ("scheme", "secret"), [(STRIPE, "whsec_4f1a7c0e"), (GITHUB, "It's a Secret to Everybody"), (STANDARD, SECRET)]
)
def test_a_secret_as_its_provider_shows_it_is_taken(scheme: Scheme, secret: str) -> None:
    assert scheme.check_secret(secret) is None


@pytest.mark.parametrize("secret", ["", " ", "s3cret:\n", " s3cret:x", "s3c\x00ret", "\udcff", "x" * 257])
@pytest.mark.parametrize("provider", Provider)
def test_a_secret_that_was_copied_badly_is_refused_without_repeating_it(provider: Provider, secret: str) -> None:
    problem = SCHEMES[provider].check_secret(secret)
    assert problem is not None
    assert "s3c" not in problem
    assert "xxx" not in problem


@pytest.mark.parametrize("api_key", ["sk_live_51H", "rk_live_51H", "pk_test_51H"])
def test_a_stripe_api_key_is_not_a_signing_secret(api_key: str) -> None:
    problem = STRIPE.check_secret(api_key)
    assert problem is not None
    assert api_key not in problem


@pytest.mark.parametrize("secret", ["whsec_short", "not base64"])
def test_a_standard_secret_is_base64_of_24_to_64_bytes(secret: str) -> None:
    assert STANDARD.check_secret(secret) is not None
