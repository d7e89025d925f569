"""Secrets of endpoints and sources: sealed in a table of their own, named in documents by id and fingerprint."""

from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Final
from uuid import UUID

from msgspec import Meta
from msgspec.structs import replace

from libs.common.contracts.registry import KeyReference
from libs.common.domain.endpoint import Profile
from libs.common.domain.signatures import standard
from libs.common.postgres.pool import Connection
from libs.common.runtime import ed25519
from libs.common.runtime.clock import new_id, now, random_bytes
from libs.common.runtime.http import ApiError, invalid
from libs.common.runtime.sealing import OVERHEAD_BYTES, MasterKeys, SealError

_GENERATED_BYTES: Final = 32
DEFAULT_GRACE_SECONDS: Final = 24 * 3600
GraceSeconds = Annotated[int, Meta(ge=0, le=7 * 24 * 3600)]


class SecretType(StrEnum):
    """How an endpoint's messages are signed: with a secret that both sides hold, or with a pair of keys."""

    SYMMETRIC = "symmetric"
    ED25519 = "ed25519"


def generate() -> str:
    """A new secret in the form of Standard Webhooks."""
    return standard.format_secret(random_bytes(_GENERATED_BYTES))


def checked(text: str | None, location: list[str | int]) -> str | None:
    """A given secret in its one form, `whsec_…`.

    Raises:
        ApiError: 422.
    """
    if text is None:
        return None
    try:
        return standard.format_secret(standard.parse_secret(text))
    except standard.InvalidSecretError as error:
        raise invalid(location, str(error)) from None


def for_endpoint(text: str | None, kind: SecretType | None, location: list[str | int]) -> str:
    """An endpoint's new secret in its one form: the given one, or else a new one of that kind.

    Raises:
        ApiError: 422.
    """
    if text is None:
        return _pair(random_bytes(_GENERATED_BYTES)) if kind is SecretType.ED25519 else generate()
    pair = standard.is_private_key(text)
    if kind is not None and pair is not (kind is SecretType.ED25519):
        raise invalid(location, f"it is no {kind} secret, which secretType asks for")
    if not pair:
        return checked(text, location) or generate()
    try:
        seed, public_key = standard.parse_private_key(text)
    except standard.InvalidSecretError as error:
        raise invalid(location, str(error)) from None
    if public_key is not None and public_key != ed25519.public_key(seed):
        raise invalid(location, "its two halves are not of one pair of keys")
    return _pair(seed)


def _pair(seed: bytes) -> str:
    return standard.format_private_key(seed, ed25519.public_key(seed))


def public_key_of(secret: str) -> str | None:
    """What receivers verify with, `whpk_…`; None of a symmetric secret, which they hold themselves."""
    if not standard.is_private_key(secret):
        return None
    seed, _ = standard.parse_private_key(secret)
    return standard.format_public_key(ed25519.public_key(seed))


def check_profile(profile: Profile, key: KeyReference) -> None:
    """See that an endpoint's messages can be signed in that form.

    Raises:
        ApiError: 422.
    """
    if profile is Profile.X_WEBHOOK and key.public_key is not None:
        detail = "this form is signed with a symmetric secret, and the endpoint's is a pair of ed25519 keys"
        raise invalid(["body", "profile"], detail)


async def store(
    connection: Connection, master_keys: MasterKeys, secret: str, *, owner: UUID, org: UUID
) -> KeyReference:
    """Seal a secret; what the owner's document says of it."""
    reference = KeyReference(
        id=new_id(), fingerprint=master_keys.fingerprint(secret.encode()), public_key=public_key_of(secret)
    )
    await connection.execute(
        """
        INSERT INTO hookledger.secret (id, owner, org, sealed, created_at, expires_at)
        VALUES ($1, $2, $3, $4, clock_timestamp(), NULL)
        """,
        reference.id,
        owner,
        org,
        master_keys.seal(secret.encode(), owner=owner, org=org),
    )
    return reference


@dataclass(frozen=True, slots=True)
class Sealer:
    """Seals secrets for one owner."""

    connection: Connection
    master_keys: MasterKeys
    _: KW_ONLY
    owner: UUID
    org: UUID

    async def __call__(self, secret: str) -> KeyReference:
        """The reference under which a secret is now stored."""
        return await store(self.connection, self.master_keys, secret, owner=self.owner, org=self.org)

    async def size(self, references: Iterable[KeyReference]) -> int:
        """The bytes, in all, of the secrets that are stored under these references."""
        size: int = await self.connection.fetchval(
            "SELECT coalesce(sum(octet_length(sealed) - $2), 0)::int FROM hookledger.secret WHERE id = ANY($1)",
            [reference.id for reference in references],
            OVERHEAD_BYTES,
        )
        return size


async def rotate(
    connection: Connection,
    master_keys: MasterKeys,
    secret: str,
    *,
    owner: UUID,
    org: UUID,
    keys: tuple[KeyReference, ...],
    grace: timedelta,
    most_old: int,
    others: tuple[KeyReference, ...] = (),
) -> tuple[KeyReference, ...]:
    """Put a new secret before the owner's `keys`, which stay in force for `grace`, or less where that was said before.

    What else is sealed for the owner, `others`, is kept.

    Raises:
        ApiError: 400, `most_old` are still in force.
    """
    at = now()
    expiry = at + grace
    old = [
        key if key.expires_at is not None and key.expires_at < expiry else replace(key, expires_at=expiry)
        for key in keys
    ]
    kept = [(key, key.expires_at) for key in old if key.expires_at is not None and key.expires_at > at]
    if len(kept) > most_old:
        noun = "secret is" if most_old == 1 else "secrets are"
        raise ApiError(400, f"{most_old} old {noun} still in force; wait until it ends, or give no grace")
    reference = await store(connection, master_keys, secret, owner=owner, org=org)
    for key, until in kept:
        await connection.execute("UPDATE hookledger.secret SET expires_at = $2 WHERE id = $1", key.id, until)
    rotated = (reference, *(key for key, _ in kept))
    await erase(connection, owner, keep=(*rotated, *others))
    return rotated


async def reveal(connection: Connection, master_keys: MasterKeys, secret: UUID) -> str:
    """The text of a secret.

    Raises:
        ApiError: 503, it was sealed with a master key that is not configured here.
    """
    row = await connection.fetchrow("SELECT owner, org, sealed FROM hookledger.secret WHERE id = $1", secret)
    assert row is not None
    try:
        return master_keys.open(row["sealed"], owner=row["owner"], org=row["org"]).decode()
    except SealError as error:
        raise ApiError(503, "the secret cannot be opened with the master keys configured here") from error


async def erase(connection: Connection, owner: UUID, *, keep: tuple[KeyReference, ...] = ()) -> None:
    """Remove the secrets of an owner but for those it keeps."""
    await connection.execute(
        "DELETE FROM hookledger.secret WHERE owner = $1 AND NOT id = ANY($2)", owner, [key.id for key in keep]
    )
