"""Our signatures against the libraries that receivers and providers use."""

import time
from datetime import UTC, datetime

import pytest
import standardwebhooks
import stripe as stripe_library
import svix.webhooks
from hypothesis import given
from hypothesis import strategies as st

from libs.common.domain.providers.table import Provider, scheme_of
from libs.common.domain.signatures import standard
from libs.common.domain.signatures.verdict import Refused, Verified
from tests.support.trust import sent, trusting

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NEXT_SECRET = "whsec_bmV4dCBrZXkgb2YgdHdlbnR5LWZvdXIgYnl0ZXM="
BODY = '{"type": "order.completed", "data": {"name": "♥"}}'

# Both libraries read the clock themselves.
NOW = int(time.time())


def signed_by_us(*secrets: str, body: bytes = BODY.encode()) -> dict[str, str]:
    keys = [standard.parse_secret(secret) for secret in secrets]
    return standard.headers(keys, message_id="msg_1", timestamp=NOW, body=body)


@pytest.mark.parametrize("library", [standardwebhooks.Webhook, svix.webhooks.Webhook])
@pytest.mark.parametrize("held", [SECRET, NEXT_SECRET])
def test_the_receivers_libraries_verify_what_we_sign(library: type[standardwebhooks.Webhook], held: str) -> None:
    library(held).verify(BODY, signed_by_us(SECRET, NEXT_SECRET))


@pytest.mark.parametrize("library", [standardwebhooks.Webhook, svix.webhooks.Webhook])
def test_the_receivers_libraries_refuse_another_body(library: type[standardwebhooks.Webhook]) -> None:
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        library(SECRET).verify(BODY + " ", signed_by_us(SECRET))


@given(
    key=st.binary(min_size=24, max_size=64),
    message_id=st.from_regex(r"[a-zA-Z0-9_-]{1,64}", fullmatch=True),
    timestamp=st.integers(min_value=0, max_value=4_000_000_000),
    body=st.text(),
)
def test_we_sign_what_the_reference_signs(key: bytes, message_id: str, timestamp: int, body: str) -> None:
    theirs = standardwebhooks.Webhook(standard.format_secret(key)).sign(
        message_id, datetime.fromtimestamp(timestamp, tz=UTC), body
    )
    ours = standard.headers([key], message_id=message_id, timestamp=timestamp, body=body.encode())
    assert ours["webhook-signature"] == theirs


@pytest.mark.parametrize("library", [standardwebhooks.Webhook, svix.webhooks.Webhook])
def test_we_believe_what_the_reference_signs(library: type[standardwebhooks.Webhook]) -> None:
    now = datetime.fromtimestamp(NOW, tz=UTC)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(NOW),
        "webhook-signature": library(SECRET).sign("msg_1", now, BODY),
    }
    scheme = scheme_of(Provider.STANDARD_WEBHOOKS)
    assert scheme.verify(sent(headers, BODY.encode()), trusting(NEXT_SECRET, SECRET, now=now)) == Verified()
    assert isinstance(scheme.verify(sent(headers, BODY.encode()), trusting(NEXT_SECRET, now=now)), Refused)


@given(secret=st.from_regex(r"whsec_[a-zA-Z0-9]{1,64}", fullmatch=True), body=st.text())
def test_we_believe_what_stripe_signs(secret: str, body: str) -> None:
    header = stripe_library.WebhookSignature.generate_signature_header(body, secret, timestamp=NOW)
    now = datetime.fromtimestamp(NOW, tz=UTC)
    scheme = scheme_of(Provider.STRIPE)
    assert stripe_library.WebhookSignature.verify_header(body, header, secret, tolerance=300)
    assert scheme.verify(sent({"Stripe-Signature": header}, body.encode()), trusting(secret, now=now)) == Verified()
    changed = sent({"Stripe-Signature": header}, body.encode() + b" ")
    assert isinstance(scheme.verify(changed, trusting(secret, now=now)), Refused)
