"""Organisations and their keys, as the operator's command makes them; without its process, which costs half a second."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from libs.common.contracts.registry import OrganisationDocument, Scope
from libs.common.domain import ids
from libs.common.domain.ids import Prefix
from libs.common.postgres.pool import open_pool
from services.admin.creation import create_key, create_organisation

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True, kw_only=True)
class Founded:
    """An organisation's id, and the text of its first key, of scope admin."""

    organisation: str
    key: str


def found(database_url: str, name: str, *, amqp_user: str | None = None, **settings: Any) -> Founded:
    """A new organisation.

    Args:
        database_url: of a migrated database.
        name: what people call it.
        amqp_user: the broker's user that publishes for it.
        settings: of `OrganisationDocument`, where they are not the default.
    """
    return _apart(_found(database_url, OrganisationDocument(name=name, **settings), amqp_user))


def admin_key(database_url: str, organisation: str) -> str:
    """Another key of scope admin."""
    return _apart(_create_key(database_url, organisation))


def broker_user(amqp_url: str) -> str:
    """Whom the tests are to the broker."""
    return unquote(urlsplit(amqp_url).username or "guest")


async def _found(database_url: str, document: OrganisationDocument, amqp_user: str | None) -> Founded:
    async with await open_pool(database_url, "registry", size=1) as pool:
        created = await create_organisation(pool, document, amqp_user)
    organisation = ids.encode(Prefix.ORGANISATION, created.id)
    return Founded(organisation=organisation, key=await _create_key(database_url, organisation))


async def _create_key(database_url: str, organisation: str) -> str:
    org = ids.decode(Prefix.ORGANISATION, organisation)
    async with await open_pool(database_url, "registry", size=1) as pool:
        return await create_key(pool, org, name="", scopes=(Scope.ADMIN,), expiry=None)


def _apart(work: Coroutine[Any, Any, Made]) -> Made:
    """What a coroutine returns, also where an event loop of the caller's is running."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(asyncio.run, work).result()
