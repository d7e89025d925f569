"""Finding registry objects of the caller's organisation, by id or by the user's own name for them."""

import re
from collections.abc import Sequence
from typing import Final, cast
from uuid import UUID

import asyncpg

from libs.common.contracts.registry import Kind, OrganisationDocument, RegistryObject
from libs.common.domain import ids
from libs.common.domain.ids import BadIdError, Prefix
from libs.common.postgres.pool import Connection
from libs.common.postgres.snapshot import object_of
from services.registry.authentication import AppToken
from services.registry.calls import Call
from services.registry.paging import Page
from services.registry.parsing import not_found

UID: Final = re.compile(r"[a-zA-Z0-9\-_.]{1,256}")
PREFIXES: Final = {
    Kind.APPLICATION: Prefix.APPLICATION,
    Kind.ENDPOINT: Prefix.ENDPOINT,
    Kind.SOURCE: Prefix.SOURCE,
    Kind.API_KEY: Prefix.API_KEY,
    Kind.JOB: Prefix.JOB,
}


async def find(call: Call, kind: Kind, text: str, *, app: UUID | None = None) -> RegistryObject | None:
    """The object that `text` names: an id or a uid. Within an application only its own.

    To an application token there is no application but its own.
    """
    row: asyncpg.Record | None = None
    identity = _identity(kind, text)
    if identity is not None:
        row = await call.connection.fetchrow(
            """
            SELECT id, kind, org, app, uid, version, registry_version, created_at, updated_at, deleted_at, data
            FROM hookledger.registry_object
            WHERE id = $1 AND kind = $2 AND org = $3 AND app IS NOT DISTINCT FROM $4 AND deleted_at IS NULL
            """,
            identity,
            kind,
            call.caller.org,
            app,
        )
    if row is None and UID.fullmatch(text):
        row = await _find_by_uid(call.connection, kind, call.caller.org, app, text)
    if row is None:
        return None
    if kind is Kind.APPLICATION and isinstance(call.caller, AppToken) and row["id"] != call.caller.app:
        return None
    return object_of(row)


async def require(call: Call, kind: Kind, text: str, *, app: UUID | None = None) -> RegistryObject:
    """As `find`.

    Raises:
        ApiError: 404.
    """
    found = await find(call, kind, text, app=app)
    if found is None:
        raise not_found(kind.replace("_", " "))
    return found


async def known(call: Call, endpoint: UUID, *, app: UUID) -> UUID:
    """That endpoint of the application, also one that was deleted.

    Raises:
        ApiError: 404.
    """
    found: UUID | None = await call.connection.fetchval(
        "SELECT id FROM hookledger.registry_object WHERE id = $1 AND kind = 'endpoint' AND org = $2 AND app = $3",
        endpoint,
        call.caller.org,
        app,
    )
    if found is None:
        raise not_found("endpoint")
    return found


async def application(call: Call) -> RegistryObject:
    """The application in the path.

    Raises:
        ApiError: 404.
    """
    return await require(call, Kind.APPLICATION, call.named("app"))


async def organisation(call: Call) -> OrganisationDocument:
    """The caller's organisation."""
    return cast("OrganisationDocument", (await organisation_object(call)).document)


async def organisation_object(call: Call) -> RegistryObject:
    """The registry object that the caller's organisation is."""
    row = await call.connection.fetchrow(
        """
        SELECT id, kind, org, app, uid, version, registry_version, created_at, updated_at, deleted_at, data
        FROM hookledger.registry_object WHERE id = $1 AND kind = 'organisation'
        """,
        call.caller.org,
    )
    assert row is not None
    return object_of(row)


async def list_objects(call: Call, kind: Kind, page: Page, *, app: UUID | None) -> Sequence[RegistryObject]:
    """A page of the organisation's objects, or of an application's."""
    if app is None:
        sql = """
            SELECT id, kind, org, app, uid, version, registry_version, created_at, updated_at, deleted_at, data
            FROM hookledger.registry_object
            WHERE kind = $1 AND org = $2 AND id :beyond $3 AND deleted_at IS NULL
            ORDER BY id :direction LIMIT $4
            """
    else:
        sql = """
            SELECT id, kind, org, app, uid, version, registry_version, created_at, updated_at, deleted_at, data
            FROM hookledger.registry_object
            WHERE kind = $1 AND app = $2 AND id :beyond $3 AND deleted_at IS NULL
            ORDER BY id :direction LIMIT $4
            """
    rows = await call.connection.fetch(
        page.directed(sql), kind, call.caller.org if app is None else app, page.bound(PREFIXES[kind]), page.fetched
    )
    return [object_of(row) for row in rows]


def put_uid(found: RegistryObject, path: str, given: str | None) -> str | None:
    """The uid after a PUT: the body's; without one none, unless the path called the object by it."""
    return given if given is not None or found.uid != path else path


def new_uid(kind: Kind, text: str) -> str | None:
    """The uid that a PUT to an unknown path gives what it creates; None where the path holds an id or no uid."""
    return text if UID.fullmatch(text) and _identity(kind, text) is None else None


def _identity(kind: Kind, text: str) -> UUID | None:
    prefix = PREFIXES.get(kind)
    if prefix is None:
        return None
    try:
        return ids.decode(prefix, text)
    except BadIdError:
        return None


async def _find_by_uid(
    connection: Connection, kind: Kind, org: UUID, app: UUID | None, uid: str
) -> asyncpg.Record | None:
    # Word for word the expressions of the index registry_object_uid, or it would not be used.
    if app is None:
        return await connection.fetchrow(
            """
            SELECT id, kind, org, app, uid, version, registry_version, created_at, updated_at, deleted_at, data
            FROM hookledger.registry_object
            WHERE kind = $1 AND (CASE WHEN kind = 'organisation' THEN NULL ELSE org END) = $2 AND app IS NULL
                AND uid = $3 AND deleted_at IS NULL AND uid IS NOT NULL
            """,
            kind,
            org,
            uid,
        )
    return await connection.fetchrow(
        """
        SELECT id, kind, org, app, uid, version, registry_version, created_at, updated_at, deleted_at, data
        FROM hookledger.registry_object
        WHERE kind = $1 AND (CASE WHEN kind = 'organisation' THEN NULL ELSE org END) = $2 AND app = $3
            AND uid = $4 AND deleted_at IS NULL AND uid IS NOT NULL
        """,
        kind,
        org,
        app,
        uid,
    )
