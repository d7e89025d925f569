"""Standard Webhooks with symmetric keys (`v1`): secrets, signing and verifying.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from libs.common.domain.signatures.rules import (
    TIMESTAMP,
    TOLERANCE,
    Headers,
    any_equal,
    hmac_sha256,
    only_values,
    refuse_age,
)
from libs.common.domain.signatures.verdict import RefusalReason, Refused, Verdict, Verified

_SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - what every secret begins with, and none itself
_MIN_SECRET_BYTES: Final = 24
_MAX_SECRET_BYTES: Final = 64

_ID_HEADER: Final = "webhook-id"
_TIMESTAMP_HEADER: Final = "webhook-timestamp"
_SIGNATURE_HEADER: Final = "webhook-signature"

# The three signed parts are joined by full stops, so an id that held one could trade places with the timestamp:
# printable ASCII but for space and full stop.
_MESSAGE_ID: Final = re.compile(r"[!-\-/-~]{1,256}")


class InvalidSecretError(ValueError):
    """A text is not the secret that its scheme asks for. The message says why and never repeats the text."""


def parse_secret(text: str) -> bytes:
    """The key (24 to 64 bytes) in `whsec_<base64>`, or in the base64 alone.

    Missing padding is forgiven, as by the reference libraries. Any other way to write the same bytes is not, so that
    a secret shown again by `format_secret` is the one that was given.

    Raises:
        InvalidSecretError: not base64, or too short or too long a key.

    Source: Standard Webhooks, "Signature scheme".
    """
    encoded = text.removeprefix(_SECRET_PREFIX)
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        # `from None`: the original error may quote the secret.
        raise InvalidSecretError(f"a secret is base64, optionally after {_SECRET_PREFIX}") from None
    canonical = base64.b64encode(key).decode()
    if encoded not in {canonical, canonical.rstrip("=")}:
        raise InvalidSecretError("the secret is not base64 as it is written: its last characters encode no byte")
    if not _MIN_SECRET_BYTES <= len(key) <= _MAX_SECRET_BYTES:
        raise InvalidSecretError(
            f"a secret is base64 of {_MIN_SECRET_BYTES} to {_MAX_SECRET_BYTES} bytes, this one of {len(key)}"
        )
    return key


def format_secret(key: bytes) -> str:
    """`whsec_<base64>`: how `key` (24 to 64 bytes) is shown to people; the inverse of `parse_secret`."""
    return _SECRET_PREFIX + base64.b64encode(key).decode()


def sign(secret: bytes, *, message_id: str, timestamp: int, body: bytes) -> str:
    """The signature `v1,<base64>` of one attempt at `timestamp` (Unix seconds).

    Raises:
        ValueError: `message_id` is not 1 to 256 printable ASCII characters without a full stop.
    """
    if not _MESSAGE_ID.fullmatch(message_id):
        raise ValueError("a signed message id is 1 to 256 printable ASCII characters without a full stop")
    return _signature(secret, message_id, str(timestamp), body).decode()


def headers(secrets: Sequence[bytes], *, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of one attempt at `timestamp` (Unix seconds).

    While a secret is being rotated both are given, and the receiver may hold either.

    Raises:
        ValueError: no secret is given, or the `message_id` cannot be signed (`sign`).
    """
    if not secrets:
        raise ValueError("a message is signed with at least one secret")
    return {
        _ID_HEADER: message_id,
        _TIMESTAMP_HEADER: str(timestamp),
        _SIGNATURE_HEADER: " ".join(
            sign(secret, message_id=message_id, timestamp=timestamp, body=body) for secret in secrets
        ),
    }


def verify(
    headers: Headers, body: bytes, *, secrets: Sequence[bytes], now: datetime, tolerance: timedelta = TOLERANCE
) -> Verdict:
    """Whether one of `secrets` (keys, as `parse_secret` gives them) signed `body` within `tolerance` of `now`.

    Signatures of other versions in the list (`v1a` is ed25519) are ignored, as the specification asks.
    """
    values = only_values(headers, _ID_HEADER, _TIMESTAMP_HEADER, _SIGNATURE_HEADER)
    if isinstance(values, Refused):
        return values
    message_id, timestamp, signatures = values
    if not _MESSAGE_ID.fullmatch(message_id):
        return _malformed("the webhook-id is not 1 to 256 printable characters without a full stop")
    if not TIMESTAMP.fullmatch(timestamp):
        return _malformed("the webhook-timestamp is not whole Unix seconds")
    # The base64 text is compared, not what it decodes to: several texts decode to the same bytes.
    candidates = [entry.encode() for entry in signatures.split(" ") if entry.startswith("v1,")]
    if not candidates:
        return _malformed("the webhook-signature lists no v1 signature")
    if not any_equal(candidates, [_signature(secret, message_id, timestamp, body) for secret in secrets if secret]):
        return Refused(reason=RefusalReason.MISMATCH, detail="no v1 signature is by a secret of this source")
    return refuse_age(int(timestamp), now=now, tolerance=tolerance) or Verified()


def _signature(secret: bytes, message_id: str, timestamp: str, body: bytes) -> bytes:
    mac = hmac_sha256(secret, f"{message_id}.{timestamp}.".encode(), body)
    return b"v1," + base64.b64encode(mac)


def _malformed(detail: str) -> Refused:
    return Refused(reason=RefusalReason.MALFORMED, detail=detail)
