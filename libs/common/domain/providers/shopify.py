"""Shopify.

Source: https://shopify.dev/docs/apps/build/webhooks/verify-deliveries,
https://shopify.dev/docs/apps/build/webhooks#anatomy-of-a-webhook
"""

import base64
import re
from typing import Final

from libs.common.domain.providers.reading import as_name, check_text, header, identity, rfc3339
from libs.common.domain.providers.scheme import Challenge, Identity, Request, Scheme, Trust, Unreadable
from libs.common.domain.signatures.rules import Headers, any_equal, hmac_sha256, only_value
from libs.common.domain.signatures.verdict import Refused, Verdict, Verified, malformed, mismatch

_HEADER: Final = "x-shopify-hmac-sha256"
_TOPIC: Final = "x-shopify-topic"
_WEBHOOK_ID: Final = "x-shopify-webhook-id"
_TRIGGERED_AT: Final = "x-shopify-triggered-at"
_SIGNATURE: Final = re.compile(r"[A-Za-z0-9+/]{43}=")


def _verify(request: Request, trust: Trust) -> Verdict:
    """Base64 over the body, without a time: replays are caught by the webhook's id alone."""
    signature = only_value(request.headers, _HEADER)
    if isinstance(signature, Refused):
        return signature
    if not _SIGNATURE.fullmatch(signature):
        return malformed(f"the {_HEADER} is not base64 of 32 bytes")
    expected = [base64.b64encode(hmac_sha256(key, request.body)) for key in trust.keys]
    if not any_equal([signature.encode()], expected):
        return mismatch("the signature is not by a secret of this source")
    return Verified()


def _identify(headers: Headers, document: object) -> Identity | Challenge | Unreadable:
    del document
    # The webhook's id, not X-Shopify-Event-Id: one action of a merchant is one event under several topics.
    topic = as_name(header(headers, _TOPIC))  # orders/create
    return identity(topic, header(headers, _WEBHOOK_ID), occurred_at=rfc3339(header(headers, _TRIGGERED_AT)))


SCHEME: Final = Scheme(
    verify=_verify,
    identify=_identify,
    check_secret=check_text,
    evidence=frozenset({_HEADER, _TOPIC, _WEBHOOK_ID, _TRIGGERED_AT}),
)
