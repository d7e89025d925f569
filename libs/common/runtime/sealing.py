"""Secrets at rest: AES-256-GCM under a master key, bound to their owner.

A sealed secret is 4 bytes that name the master key, 12 of nonce, and the ciphertext with its tag. The owner's ids are
associated data, so that a sealed secret copied to another row does not open.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from libs.common.runtime.clock import random_bytes

_KEY_BYTES: Final = 32
_ID_BYTES: Final = 4
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
OVERHEAD_BYTES: Final = _ID_BYTES + _NONCE_BYTES + _TAG_BYTES
"""By so much a sealed secret is longer than the secret."""
_FINGERPRINT_BYTES: Final = 6


class SealError(Exception):
    """A secret does not open: another master key, another owner, or damaged bytes."""


class MasterKeys:
    """The master keys: the first seals, each may open.

    Args:
        keys: 32 bytes each.
        fingerprint_key: by which secrets get their fingerprints; by default it follows from the first key, so that who
            wants fingerprints to outlast that key keeps it elsewhere.
    """

    def __init__(self, keys: Sequence[bytes], *, fingerprint_key: bytes | None = None) -> None:
        self._keys = keys
        self._ciphers = {hashlib.sha256(key).digest()[:_ID_BYTES]: AESGCM(key) for key in keys}
        self._first = next(iter(self._ciphers))
        self.fingerprint_key = fingerprint_key or hashlib.sha256(b"hookledger.fingerprint" + keys[0]).digest()

    @classmethod
    def parse(cls, text: str) -> "MasterKeys":
        """Keys from settings: base64 of 32 bytes each, separated by commas.

        Raises:
            ValueError: what is wrong, without the text.
        """
        keys = []
        for part in text.split(","):
            try:
                key = base64.b64decode(part.strip(), validate=True)
            except binascii.Error:
                key = b""
            if len(key) != _KEY_BYTES:
                raise ValueError("each master key is the base64 of 32 random bytes")
            keys.append(key)
        return cls(keys)

    def with_fingerprint_key(self, key: bytes) -> "MasterKeys":
        """The same master keys, with another key for fingerprints."""
        return MasterKeys(self._keys, fingerprint_key=key)

    @property
    def ids(self) -> Sequence[bytes]:
        """What sealed secrets name the master keys by, the first one first."""
        return tuple(self._ciphers)

    def seal(self, secret: bytes, *, owner: UUID, org: UUID) -> bytes:
        """The secret, for storage beside `owner`."""
        nonce = random_bytes(_NONCE_BYTES)
        sealed = self._ciphers[self._first].encrypt(nonce, secret, owner.bytes + org.bytes)
        return self._first + nonce + sealed

    def fingerprint(self, secret: bytes) -> str:
        """What tells this secret from others, in records; only who holds `fingerprint_key` can test a guess."""
        return hmac.digest(self.fingerprint_key, secret, "sha256")[:_FINGERPRINT_BYTES].hex()

    def open(self, sealed: bytes, *, owner: UUID, org: UUID) -> bytes:
        """The secret again.

        Raises:
            SealError: see there.
        """
        cipher = self._ciphers.get(sealed[:_ID_BYTES])
        if cipher is None:
            raise SealError(f"sealed with master key {sealed[:_ID_BYTES].hex()}, which is not in HOOKLEDGER_MASTER_KEY")
        start = _ID_BYTES + _NONCE_BYTES
        try:
            return cipher.decrypt(sealed[_ID_BYTES:start], sealed[start:], owner.bytes + org.bytes)
        except (InvalidTag, ValueError) as error:  # ValueError: cut short within the nonce
            raise SealError("a sealed secret does not open: wrong owner, or damaged") from error
