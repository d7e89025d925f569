"""Verifying what Stripe sends.

Source: https://docs.stripe.com/webhooks#verify-manually
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from libs.common.domain.signatures.rules import (
    TIMESTAMP,
    TOLERANCE,
    Headers,
    any_equal,
    hmac_sha256,
    only_value,
    refuse_age,
)
from libs.common.domain.signatures.verdict import RefusalReason, Refused, Verdict, Verified

_HEADER: Final = "stripe-signature"


def verify(
    headers: Headers, body: bytes, *, secrets: Sequence[bytes], now: datetime, tolerance: timedelta = TOLERANCE
) -> Verdict:
    """Whether one of `secrets` signed `body` within `tolerance` of `now`.

    A secret is the UTF-8 bytes of the whole `whsec_…` text: unlike Standard Webhooks, nothing is decoded. The header
    reads `t=<Unix seconds>,v1=<hex>[,v1=<hex>]`; other schemes in it are ignored (`v0` is for test events, and
    accepting it would let the weakest scheme decide).
    """
    header = only_value(headers, _HEADER)
    if isinstance(header, Refused):
        return header
    items = [item.partition("=") for item in header.split(",")]
    timestamps = [value for scheme, _, value in items if scheme == "t"]
    candidates = [value.encode() for scheme, _, value in items if scheme == "v1"]
    # Exactly one: implementations disagree whether the first or the last of several counts.
    if len(timestamps) != 1 or not TIMESTAMP.fullmatch(timestamps[0]):
        return _malformed("the stripe-signature does not hold exactly one t of whole Unix seconds")
    if not candidates:
        return _malformed("the stripe-signature holds no v1 signature")
    [timestamp] = timestamps
    expected = [hmac_sha256(secret, timestamp.encode(), b".", body).hex().encode() for secret in secrets if secret]
    if not any_equal(candidates, expected):
        return Refused(reason=RefusalReason.MISMATCH, detail="no v1 signature is by a secret of this source")
    return refuse_age(int(timestamp), now=now, tolerance=tolerance) or Verified()


def _malformed(detail: str) -> Refused:
    return Refused(reason=RefusalReason.MALFORMED, detail=detail)
