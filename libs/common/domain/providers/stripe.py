"""Stripe.

Source: https://docs.stripe.com/webhooks#verify-manually, https://docs.stripe.com/api/events/object
"""

from typing import Final

from libs.common.domain.providers.reading import check_text, field, identity, unix_time
from libs.common.domain.providers.scheme import Challenge, Identity, Request, Scheme, Trust, Unreadable
from libs.common.domain.signatures.rules import (
    TIMESTAMP,
    TOLERANCE,
    Headers,
    any_equal,
    hmac_sha256,
    only_value,
    refuse_age,
)
from libs.common.domain.signatures.verdict import Refused, Verdict, Verified, malformed, mismatch

_HEADER: Final = "stripe-signature"


def _verify(request: Request, trust: Trust) -> Verdict:
    """`t=<Unix seconds>,v1=<hex>[,v1=<hex>]` over `t.body`.

    The key is the whole `whsec_…` text: unlike Standard Webhooks, nothing is decoded. Other schemes in the header are
    ignored (`v0` is for test events, and accepting it would let the weakest scheme decide).
    """
    header = only_value(request.headers, _HEADER)
    if isinstance(header, Refused):
        return header
    items = [item.partition("=") for item in header.split(",")]
    timestamps = [value for scheme, _, value in items if scheme == "t"]
    candidates = [value.encode() for scheme, _, value in items if scheme == "v1"]
    # Exactly one: implementations disagree whether the first or the last of several counts.
    if len(timestamps) != 1 or not TIMESTAMP.fullmatch(timestamps[0]):
        return malformed("the stripe-signature does not hold exactly one t of whole Unix seconds")
    if not candidates:
        return malformed("the stripe-signature holds no v1 signature")
    [timestamp] = timestamps
    expected = [hmac_sha256(key, timestamp.encode(), b".", request.body).hex().encode() for key in trust.keys]
    if not any_equal(candidates, expected):
        return mismatch("no v1 signature is by a secret of this source")
    return refuse_age(int(timestamp), now=trust.now, tolerance=TOLERANCE) or Verified()


def _identify(headers: Headers, document: object) -> Identity | Challenge | Unreadable:
    del headers
    occurred_at = unix_time(field(document, "created"))
    return identity(field(document, "type"), field(document, "id"), occurred_at=occurred_at)


def _check_secret(text: str) -> str | None:
    # The likeliest slip, and a dangerous one: the account's API key pasted in place of the endpoint's secret.
    if text.startswith(("sk_", "rk_", "pk_")):
        return "this is an API key: the signing secret of a Stripe endpoint begins with whsec_"
    return check_text(text)


SCHEME: Final = Scheme(verify=_verify, identify=_identify, check_secret=_check_secret, evidence=frozenset({_HEADER}))
