"""The first objects of a registry, which nobody has a key yet to create over HTTP."""

from datetime import timedelta
from typing import Final
from uuid import UUID

import asyncpg

from libs.common.contracts.credentials import KEY_BYTES, format_key, hash_key
from libs.common.contracts.registry import ApiKeyDocument, Kind, OrganisationDocument, RegistryObject, Scope
from libs.common.domain import ids
from libs.common.domain.ids import Prefix
from libs.common.postgres.pool import Pool
from libs.common.postgres.registry import OPERATOR, changing
from libs.common.runtime.clock import new_id, now, random_bytes

LONGEST_NAME: Final = 256


class CreationError(Exception):
    """The object cannot be created; the text says why, in one line."""


async def create_organisation(pool: Pool, document: OrganisationDocument, amqp_user: str | None) -> RegistryObject:
    """Create an organisation.

    Raises:
        CreationError: the name is unusable, or the broker's user publishes for another organisation.
    """
    _check_text("the name", document.name)
    if amqp_user is not None:
        _check_text("the broker's user", amqp_user)
    identity = new_id()
    try:
        async with pool.acquire() as connection, changing(connection, OPERATOR) as changes:
            return await changes.create(Kind.ORGANISATION, identity, document, org=identity, uid=amqp_user)
    except asyncpg.UniqueViolationError:
        raise CreationError(f"the broker's user {amqp_user} publishes for another organisation already") from None


async def create_key(pool: Pool, org: UUID, *, name: str, scopes: tuple[Scope, ...], expiry: timedelta | None) -> str:
    """Create an API key of an organisation; its text.

    Raises:
        CreationError: there is no such organisation.
    """
    if name:
        _check_text("the name", name)
    text = format_key(random_bytes(KEY_BYTES))
    expires_at = now() + expiry if expiry is not None else None
    document = ApiKeyDocument(hash=hash_key(text), name=name, scopes=scopes, expires_at=expires_at)
    async with pool.acquire() as connection, changing(connection, OPERATOR) as changes:
        found = await connection.fetchval(
            """
            SELECT true FROM hookledger.registry_object
            WHERE kind = 'organisation' AND id = $1 AND deleted_at IS NULL
            """,
            org,
        )
        if not found:
            raise CreationError(f"there is no organisation {ids.encode(Prefix.ORGANISATION, org)}")
        await changes.create(Kind.API_KEY, new_id(), document, org=org)
    return text


def _check_text(what: str, text: str) -> None:
    if not 1 <= len(text) <= LONGEST_NAME or not text.isprintable():
        raise CreationError(f"{what} is 1 to {LONGEST_NAME} characters, none of them a control character")
