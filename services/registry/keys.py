"""API keys: made, listed, rotated and revoked. A key's text is in the answer to its creation and nowhere else."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, cast
from uuid import UUID

from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import replace

from libs.common.contracts.credentials import KEY_BYTES, format_key, hash_key, live
from libs.common.contracts.operations import Time
from libs.common.contracts.registry import ApiKeyDocument, Kind, RegistryObject, Scope
from libs.common.domain import ids
from libs.common.domain.ids import Prefix
from libs.common.postgres.registry import Changes
from libs.common.postgres.snapshot import object_of
from libs.common.runtime.clock import new_id, now, random_bytes
from libs.common.runtime.http import invalid
from services.registry import objects
from services.registry.answers import NO_CONTENT, Answer, ok
from services.registry.calls import Call
from services.registry.fields import LONGEST_NAME, In, Out, given
from services.registry.paging import read_page
from services.registry.parsing import conflict
from services.registry.secrets import DEFAULT_GRACE_SECONDS, GraceSeconds

Name = Annotated[str, Meta(max_length=LONGEST_NAME)]
Scopes = Annotated[tuple[Scope, ...], Meta(min_length=1, max_length=len(Scope))]


class ApiKeyIn(In, frozen=True):
    """A new key."""

    scopes: Scopes
    name: Name = ""
    expires_at: Time | None = None


class ApiKeyPatch(In, frozen=True):
    """What is to change."""

    name: Name | UnsetType = UNSET
    scopes: Scopes | UnsetType = UNSET
    expires_at: Time | UnsetType | None = UNSET


class ApiKeyRotateIn(In, frozen=True):
    """How long the old key lives on, and how long the new one lives: as the old one was to, unless it is told."""

    grace_period_seconds: GraceSeconds = DEFAULT_GRACE_SECONDS
    expires_at: Time | UnsetType | None = UNSET


class ApiKeyOut(Out):
    """A key as the API shows it; `key`, its text, in the answer to its creation only."""

    id: str
    name: str
    scopes: tuple[Scope, ...]
    expires_at: Time | None
    last_used_at: Time | None
    replaces: str | None
    created_at: Time
    updated_at: Time
    key: str | UnsetType = UNSET


async def list_all(call: Call) -> Answer:
    """List the API keys.

    Those that were not revoked, expired ones included.
    """
    page = read_page(call, descending=False)
    found = await objects.list_objects(call, Kind.API_KEY, page, app=None)
    uses = await _last_uses(call, found)
    return ok(page.of([_out(item, uses.get(item.id)) for item in found], lambda item: item.id))


async def create(call: Call, changes: Changes) -> Answer:
    """Create an API key.

    Its text is in this answer and in no other.
    """
    body = call.content(ApiKeyIn)
    text = format_key(random_bytes(KEY_BYTES))
    document = ApiKeyDocument(
        hash=hash_key(text),
        name=body.name,
        scopes=tuple(dict.fromkeys(body.scopes)),
        expires_at=_checked_expiry(body.expires_at),
    )
    created = await changes.create(Kind.API_KEY, new_id(), document, org=call.caller.org)
    return ok(_out(created, None, text), 201)


async def get(call: Call) -> Answer:
    """Get an API key."""
    found = await _key(call)
    return ok(_out(found, (await _last_uses(call, [found])).get(found.id)))


async def patch(call: Call, changes: Changes) -> Answer:
    """Change an API key: its name, scopes and expiry."""
    body = call.content(ApiKeyPatch)
    found = await _key(call)
    old = cast("ApiKeyDocument", found.document)
    document = replace(
        old,
        name=given(body.name, old.name),
        scopes=tuple(dict.fromkeys(given(body.scopes, old.scopes))),
        expires_at=old.expires_at if isinstance(body.expires_at, UnsetType) else _checked_expiry(body.expires_at),
    )
    changed = await changes.update(found, document, uid=found.uid)
    return ok(_out(changed, (await _last_uses(call, [changed])).get(changed.id)))


async def delete(call: Call, changes: Changes) -> Answer:
    """Revoke an API key.

    From this answer on nothing is done under it.
    """
    await changes.delete(await _key(call))
    return NO_CONTENT


async def rotate(call: Call, changes: Changes) -> Answer:
    """Put a new API key in the place of one.

    It has the same name and scopes; the old one lives on for the grace period, a day unless it is told. At most two
    live: while an earlier rotation's grace lasts, it is refused with 409.
    """
    body = call.content(ApiKeyRotateIn)
    found = await _key(call)
    old = cast("ApiKeyDocument", found.document)
    at = now()
    if not live(old, at):
        raise conflict("the key has expired: create a new one")
    await _refuse_third(call, found.id, old, at)
    end = at + timedelta(seconds=body.grace_period_seconds)
    text = format_key(random_bytes(KEY_BYTES))
    document = replace(
        old,
        hash=hash_key(text),
        expires_at=old.expires_at if isinstance(body.expires_at, UnsetType) else _checked_expiry(body.expires_at),
        replaces=found.id,
    )
    if body.grace_period_seconds == 0:
        await changes.delete(found)
    else:
        until = end if old.expires_at is None else min(end, old.expires_at)
        await changes.update(found, replace(old, expires_at=until), uid=found.uid)
    created = await changes.create(Kind.API_KEY, new_id(), document, org=call.caller.org)
    return ok(_out(created, None, text), 201)


async def _refuse_third(call: Call, key: UUID, document: ApiKeyDocument, at: datetime) -> None:
    rows = await call.connection.fetch(
        """
        SELECT id, kind, org, app, uid, version, registry_version, created_at, updated_at, deleted_at, data
        FROM hookledger.registry_object
        WHERE kind = 'api_key' AND org = $1 AND deleted_at IS NULL AND (id = $2 OR data ->> 'replaces' = $3)
        """,
        call.caller.org,
        document.replaces,
        str(key),
    )
    for other in map(object_of, rows):
        if live(cast("ApiKeyDocument", other.document), at):
            other_id = ids.encode(Prefix.API_KEY, other.id)
            raise conflict(f"two keys of this rotation live already: revoke {other_id}, or wait until one has expired")


async def _key(call: Call) -> RegistryObject:
    return await objects.require(call, Kind.API_KEY, call.named("key"))


async def _last_uses(call: Call, keys: Sequence[RegistryObject]) -> dict[UUID, datetime]:
    rows = await call.connection.fetch(
        "SELECT key, last_used_at FROM hookledger.key_use WHERE key = ANY($1)", [key.id for key in keys]
    )
    return {row["key"]: row["last_used_at"] for row in rows}


def _checked_expiry(expires_at: datetime | None) -> datetime | None:
    if expires_at is not None and expires_at <= now():
        raise invalid(["body", "expiresAt"], "it lies in the past: to end a key now, revoke it")
    return expires_at


def _out(item: RegistryObject, last_used_at: datetime | None, text: str | UnsetType = UNSET) -> ApiKeyOut:
    document = cast("ApiKeyDocument", item.document)
    return ApiKeyOut(
        id=ids.encode(Prefix.API_KEY, item.id),
        name=document.name,
        scopes=document.scopes,
        expires_at=document.expires_at,
        last_used_at=last_used_at,
        replaces=ids.encode(Prefix.API_KEY, document.replaces) if document.replaces is not None else None,
        created_at=item.created_at,
        updated_at=item.updated_at,
        key=text,
    )
