"""GitHub.

Source: https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries,
https://docs.github.com/en/webhooks/webhook-events-and-payloads#delivery-headers
"""

import re
from typing import Final

from libs.common.domain.providers.reading import check_text, header, identity
from libs.common.domain.providers.scheme import (
    Challenge,
    Fields,
    Identity,
    Request,
    Scheme,
    Trust,
    Unreadable,
    only_field,
)
from libs.common.domain.signatures.rules import Headers, any_equal, hmac_sha256, only_value
from libs.common.domain.signatures.verdict import Refused, Verdict, Verified, malformed, mismatch

_HEADER: Final = "x-hub-signature-256"
_EVENT: Final = "x-github-event"
_DELIVERY: Final = "x-github-delivery"
_SIGNATURE: Final = re.compile(r"sha256=[0-9a-f]{64}")


def _verify(request: Request, trust: Trust) -> Verdict:
    """`sha256=<hex>` over the body.

    GitHub signs no timestamp, so an old request verifies for ever: replays are caught by the delivery's id alone.
    The older SHA-1 header is not looked at.
    """
    signature = only_value(request.headers, _HEADER)
    if isinstance(signature, Refused):
        return signature
    if not _SIGNATURE.fullmatch(signature):
        return malformed(f"the {_HEADER} is not sha256= and 64 lower-case hex digits")
    expected = [b"sha256=" + hmac_sha256(key, request.body).hex().encode() for key in trust.keys]
    if not any_equal([signature.encode()], expected):
        return mismatch("the signature is not by a secret of this source")
    return Verified()


def _identify(headers: Headers, document: object) -> Identity | Challenge | Unreadable:
    del document
    return identity(header(headers, _EVENT), header(headers, _DELIVERY))


def _form(fields: Fields) -> bytes | Unreadable:
    return only_field(fields, "payload")


SCHEME: Final = Scheme(
    verify=_verify,
    identify=_identify,
    check_secret=check_text,
    form=_form,
    evidence=frozenset({_HEADER, _EVENT, _DELIVERY}),
)
