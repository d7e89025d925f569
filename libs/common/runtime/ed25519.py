"""Ed25519 for the domain, which has the standard library alone."""

from collections.abc import Callable

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


def verify(public_key: bytes, signature: bytes, signed: bytes) -> bool:
    """Whether the key (32 bytes) made the signature of `signed`; a key that is none made nothing."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, signed)
    except (InvalidSignature, ValueError):
        return False
    return True


def public_key(seed: bytes) -> bytes:
    """The public key (32 bytes) that belongs to a private key's seed (32 bytes)."""
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def signer(seed: bytes) -> Callable[[bytes], bytes]:
    """What makes the signature (64 bytes) of data by that private key."""
    return Ed25519PrivateKey.from_private_bytes(seed).sign
