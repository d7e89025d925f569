"""Standard Webhooks: secrets, signing and verifying with symmetric keys (`v1`) and pairs of ed25519 keys (`v1a`).

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from libs.common.domain.signatures.rules import (
    TIMESTAMP,
    TOLERANCE,
    Headers,
    any_equal,
    hmac_sha256,
    only_values,
    refuse_age,
)
from libs.common.domain.signatures.verdict import Refused, Verdict, Verified, malformed, mismatch

_SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - what every secret begins with, and none itself
_PUBLIC_KEY_PREFIX: Final = "whpk_"
_PRIVATE_KEY_PREFIX: Final = "whsk_"
_MIN_SECRET_BYTES: Final = 24
_MAX_SECRET_BYTES: Final = 64
_PUBLIC_KEY_BYTES: Final = 32
_SEED_BYTES: Final = 32
_ED25519_SIGNATURE_BYTES: Final = 64
_MAX_ASYMMETRIC: Final = 16
"""Asymmetric signatures in one header: each costs about a hundred times a symmetric one."""

ID_HEADER: Final = "webhook-id"
_TIMESTAMP_HEADER: Final = "webhook-timestamp"
SIGNATURE_HEADER: Final = "webhook-signature"
_OWN_NAMES: Final = (ID_HEADER, _TIMESTAMP_HEADER, SIGNATURE_HEADER)
# Svix's own names, older than the specification that came of them.
_SVIX_NAMES: Final = ("svix-id", "svix-timestamp", "svix-signature")
HEADERS: Final = frozenset({*_OWN_NAMES, *_SVIX_NAMES})
"""All headers that matter to a signature."""

PublicKey: TypeAlias = Callable[[bytes, bytes], bool]
"""Whether the signature (first) of the data is by this key; never raises."""

PrivateKey: TypeAlias = Callable[[bytes], bytes]
"""Makes the ed25519 signature (64 bytes) of data."""

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
    if text.startswith((_PUBLIC_KEY_PREFIX, _PRIVATE_KEY_PREFIX)):
        raise InvalidSecretError(f"this is half of a key pair: a secret begins with {_SECRET_PREFIX}")
    key = _decode(text.removeprefix(_SECRET_PREFIX), _SECRET_PREFIX)
    if not _MIN_SECRET_BYTES <= len(key) <= _MAX_SECRET_BYTES:
        raise InvalidSecretError(
            f"a secret is base64 of {_MIN_SECRET_BYTES} to {_MAX_SECRET_BYTES} bytes, this one of {len(key)}"
        )
    return key


def is_secret(text: str) -> bool:
    """Whether `text` says of itself that it is a symmetric secret."""
    return text.startswith(_SECRET_PREFIX)


def is_public_key(text: str) -> bool:
    """Whether `text` says of itself that it is half of a key pair, rightly or not."""
    return text.startswith((_PUBLIC_KEY_PREFIX, _PRIVATE_KEY_PREFIX))


def parse_public_key(text: str) -> bytes:
    """The ed25519 key (32 bytes) in `whpk_<base64>`.

    Raises:
        InvalidSecretError: it is none.

    Source: Standard Webhooks, "Signature scheme".
    """
    if text.startswith(_PRIVATE_KEY_PREFIX):
        raise InvalidSecretError(
            f"this is the sender's private key: verifying takes the one after {_PUBLIC_KEY_PREFIX}"
        )
    key = _decode(text.removeprefix(_PUBLIC_KEY_PREFIX), _PUBLIC_KEY_PREFIX)
    if len(key) != _PUBLIC_KEY_BYTES:
        raise InvalidSecretError(f"a public key is base64 of {_PUBLIC_KEY_BYTES} bytes, this one of {len(key)}")
    return key


def is_private_key(text: str) -> bool:
    """Whether `text` says of itself that it is the sender's half of a key pair."""
    return text.startswith(_PRIVATE_KEY_PREFIX)


def parse_private_key(text: str) -> tuple[bytes, bytes | None]:
    """The seed (32 bytes) in `whsk_<base64>`, and the public key where it stands behind the seed, as it should.

    Raises:
        InvalidSecretError: it is none.

    Source: Standard Webhooks, "Signature scheme"; the seed alone is what some libraries write.
    """
    key = _decode(text.removeprefix(_PRIVATE_KEY_PREFIX), _PRIVATE_KEY_PREFIX)
    if len(key) not in {_SEED_BYTES, _SEED_BYTES + _PUBLIC_KEY_BYTES}:
        raise InvalidSecretError(f"a private key is base64 of 64 bytes (or of its seed's 32), this one of {len(key)}")
    return key[:_SEED_BYTES], key[_SEED_BYTES:] or None


def format_private_key(seed: bytes, public_key: bytes) -> str:
    """`whsk_<base64>` of the whole pair."""
    return _PRIVATE_KEY_PREFIX + base64.b64encode(seed + public_key).decode()


def format_public_key(public_key: bytes) -> str:
    """`whpk_<base64>`; the inverse of `parse_public_key`."""
    return _PUBLIC_KEY_PREFIX + base64.b64encode(public_key).decode()


def _decode(encoded: str, prefix: str) -> bytes:
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        # `from None`: the original error may quote the secret.
        raise InvalidSecretError(f"a secret is base64, optionally after {prefix}") from None
    canonical = base64.b64encode(key).decode()
    if encoded not in {canonical, canonical.rstrip("=")}:
        raise InvalidSecretError("the secret is not base64 as it is written: its last characters encode no byte")
    return key


def format_secret(key: bytes) -> str:
    """`whsec_<base64>`: how `key` (24 to 64 bytes) is shown to people; the inverse of `parse_secret`."""
    return _SECRET_PREFIX + base64.b64encode(key).decode()


def headers(secrets: Sequence[bytes | PrivateKey], *, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of one attempt at `timestamp` (Unix seconds).

    The last holds a signature by each secret: `v1,<base64>`, or `v1a,<base64>` by a private key. While a secret is
    being rotated both are given, and the receiver may hold either.

    Raises:
        ValueError: no secret is given, or `message_id` is not 1 to 256 printable ASCII characters without a full stop.
    """
    if not secrets:
        raise ValueError("a message is signed with at least one secret")
    if not _MESSAGE_ID.fullmatch(message_id):
        raise ValueError("a signed message id is 1 to 256 printable ASCII characters without a full stop")
    seconds = str(timestamp)
    signed = _signed(message_id, seconds, body)
    signatures = [
        _symmetric(secret, signed).decode() if isinstance(secret, bytes) else _asymmetric(secret, signed)
        for secret in secrets
    ]
    return {ID_HEADER: message_id, _TIMESTAMP_HEADER: seconds, SIGNATURE_HEADER: " ".join(signatures)}


def id_header(headers: Headers) -> str:
    """The header that carries the message's id, which repetitions share."""
    return _names(headers)[0]


def verify(
    headers: Headers,
    body: bytes,
    *,
    secrets: Sequence[bytes],
    public_keys: Sequence[PublicKey] = (),
    now: datetime,
    tolerance: timedelta = TOLERANCE,
) -> Verdict:
    """Whether one of `secrets` (keys, as `parse_secret` gives them) or `public_keys` signed `body` near `now`.

    A secret is only ever compared with `v1` signatures and a public key with `v1a`, so that neither can be taken for
    the other; other versions in the list are ignored, as the specification asks.
    """
    values = only_values(headers, *_names(headers))
    if isinstance(values, Refused):
        return values
    message_id, timestamp, signatures = values
    if not _MESSAGE_ID.fullmatch(message_id):
        return malformed("the webhook-id is not 1 to 256 printable characters without a full stop")
    if not TIMESTAMP.fullmatch(timestamp):
        return malformed("the webhook-timestamp is not whole Unix seconds")
    # The base64 text is compared, not what it decodes to: several texts decode to the same bytes.
    entries = signatures.split(" ")
    symmetric = [entry.encode() for entry in entries if entry.startswith("v1,")]
    asymmetric = [entry.removeprefix("v1a,") for entry in entries if entry.startswith("v1a,")]
    if not symmetric and not asymmetric:
        return malformed("the webhook-signature lists no v1 or v1a signature")
    if len(asymmetric) > _MAX_ASYMMETRIC:
        return malformed(f"the webhook-signature lists more than {_MAX_ASYMMETRIC} v1a signatures")
    signed = _signed(message_id, timestamp, body)
    by_secret = any_equal(symmetric, [_symmetric(secret, signed) for secret in secrets if secret])
    if not by_secret and not _by_public_key(asymmetric, public_keys, signed):
        return mismatch("no signature is by a secret of this source")
    return refuse_age(int(timestamp), now=now, tolerance=tolerance) or Verified()


def _names(headers: Headers) -> tuple[str, str, str]:
    # One family whole, so that nobody mixes the id of one with the signature of another.
    return _OWN_NAMES if SIGNATURE_HEADER in headers or _SVIX_NAMES[2] not in headers else _SVIX_NAMES


def _by_public_key(candidates: Sequence[str], keys: Sequence[PublicKey], signed: bytes) -> bool:
    for candidate in candidates:
        try:
            signature = base64.b64decode(candidate, validate=True)
        except ValueError:
            continue
        canonical = base64.b64encode(signature).decode() == candidate
        if canonical and len(signature) == _ED25519_SIGNATURE_BYTES and any(key(signature, signed) for key in keys):
            return True
    return False


def _signed(message_id: str, timestamp: str, body: bytes) -> bytes:
    return f"{message_id}.{timestamp}.".encode() + body


def _symmetric(secret: bytes, signed: bytes) -> bytes:
    return b"v1," + base64.b64encode(hmac_sha256(secret, signed))


def _asymmetric(key: PrivateKey, signed: bytes) -> str:
    return "v1a," + base64.b64encode(key(signed)).decode()
