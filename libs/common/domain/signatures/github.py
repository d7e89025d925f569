"""Verifying what GitHub sends.

Source: https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
"""

import re
from collections.abc import Sequence
from typing import Final

from libs.common.domain.signatures.rules import Headers, any_equal, hmac_sha256, only_value
from libs.common.domain.signatures.verdict import RefusalReason, Refused, Verdict, Verified

_HEADER: Final = "x-hub-signature-256"
_SIGNATURE: Final = re.compile(r"sha256=[0-9a-f]{64}")


def verify(headers: Headers, body: bytes, *, secrets: Sequence[bytes]) -> Verdict:
    """Whether one of `secrets` (the UTF-8 bytes of the text) signed `body`.

    GitHub signs no timestamp, so an old request verifies for ever: replays are caught by the delivery's id alone.
    The older SHA-1 header is not looked at.
    """
    header = only_value(headers, _HEADER)
    if isinstance(header, Refused):
        return header
    if not _SIGNATURE.fullmatch(header):
        return Refused(
            reason=RefusalReason.MALFORMED, detail="the x-hub-signature-256 is not sha256= and 64 lower-case hex digits"
        )
    expected = [b"sha256=" + hmac_sha256(secret, body).hex().encode() for secret in secrets if secret]
    if not any_equal([header.encode()], expected):
        return Refused(reason=RefusalReason.MISMATCH, detail="the signature is not by a secret of this source")
    return Verified()
