"""API keys and application tokens as text: a prefix that secret scanners can find, and 256 random bits."""

import base64
import hashlib
from collections.abc import Collection
from datetime import datetime
from typing import Final

from libs.common.contracts.registry import ApiKeyDocument, Scope

KEY_PREFIX: Final = "hlk_"
TOKEN_PREFIX: Final = "hlt_"  # noqa: S105  what a token begins with
KEY_BYTES: Final = 32
_LONGEST_KEY: Final = 256


def format_key(random: bytes, prefix: str = KEY_PREFIX) -> str:
    """The text of a new key: the prefix and 32 random bytes. It holds no `.`, by which SDKs choose a region."""
    if len(random) != KEY_BYTES:
        raise ValueError("an API key takes 32 random bytes")
    return prefix + base64.b32encode(random).decode().rstrip("=").lower()


def is_token(text: str) -> bool:
    """Whether a key's text is that of an application token."""
    return text.startswith(TOKEN_PREFIX)


def hash_key(text: str) -> str:
    """What is stored of a key: its SHA-256 in hex. A key has 256 bits, so it needs neither salt nor stretching."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def bearer(header: str | None) -> str | None:
    """The key in an `Authorization` header, if it has the form of one."""
    if header is None:
        return None
    scheme, _, text = header.partition(" ")
    text = text.strip()
    return text if scheme.lower() == "bearer" and 0 < len(text) <= _LONGEST_KEY else None


def live(key: ApiKeyDocument, now: datetime) -> bool:
    """Whether the key has not expired."""
    return key.expires_at is None or key.expires_at > now


def allows(held: Collection[Scope], needed: Scope) -> bool:
    """Whether a key with these scopes may do what needs one. `admin` may do everything."""
    return needed in held or Scope.ADMIN in held
