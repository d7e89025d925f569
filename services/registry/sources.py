"""Sources: the providers whose webhooks an application receives, each at an address of its own."""

from datetime import datetime
from typing import Final, cast
from uuid import UUID

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from libs.common.contracts.registry import KeyReference, Kind, RegistryObject, SourceDocument
from libs.common.domain import ids
from libs.common.domain.ids import Prefix
from libs.common.domain.providers import SCHEMES, Provider
from libs.common.postgres.registry import Changes, Verb
from libs.common.runtime.clock import new_id
from libs.common.runtime.http import invalid
from services.registry import objects, secrets
from services.registry.answers import NO_CONTENT, Answer, ok
from services.registry.calls import Call
from services.registry.fields import In, Metadata, Out, Title, Uid, checked_metadata, given
from services.registry.paging import read_page
from services.registry.parsing import conflict, parse_body

_GENERATES: Final = frozenset({Provider.STANDARD_WEBHOOKS})


class SourceIn(In, frozen=True):
    """A whole source. The secret is the provider's; where there is none yet, Standard Webhooks' is generated."""

    name: Title
    provider: Provider
    uid: Uid | None = None
    secret: str | None = None
    metadata: Metadata | None = None
    publish_accepted: bool = False


class SourcePatch(In, frozen=True):
    """What is to change. A new secret takes the place of the old one at once."""

    name: Title | UnsetType = UNSET
    uid: Uid | UnsetType | None = UNSET
    secret: str | UnsetType = UNSET
    metadata: Metadata | UnsetType | None = UNSET
    publish_accepted: bool | UnsetType = UNSET


class SourceOut(Out):
    """A source as the API shows it; `secret` only where it was generated, in the answer to its creation."""

    id: str
    uid: str | None
    name: str
    provider: str
    url: str
    metadata: dict[str, str]
    publish_accepted: bool
    created_at: datetime
    updated_at: datetime
    secret: str | UnsetType = UNSET


async def list_all(call: Call) -> Answer:
    """GET /app/{app}/source."""
    page = read_page(call.request.query, descending=True)
    app = await objects.application(call)
    found = await objects.list_objects(call, Kind.SOURCE, page, app=app.id)
    return ok(page.of([_out(item) for item in found], lambda item: item.id))


async def create(call: Call, changes: Changes) -> Answer:
    """POST /app/{app}/source."""
    body = parse_body(call.body, SourceIn)
    app = await objects.application(call)
    if body.uid is not None:
        existing = await objects.find(call, Kind.SOURCE, body.uid, app=app.id)
        if existing is not None and existing.uid == body.uid:
            raise conflict("a source with this uid exists already in the application")
    generated = secrets.generate() if body.secret is None and body.provider in _GENERATES else None
    text = generated or _checked_secret(body.provider, body.secret)
    identity = new_id()
    document = SourceDocument(
        name=body.name,
        provider=body.provider,
        metadata=checked_metadata(body.metadata),
        publish_accepted=body.publish_accepted,
        keys=(await _store(call, identity, text),),
    )
    created = await changes.create(Kind.SOURCE, identity, document, org=call.caller.org, app=app.id, uid=body.uid)
    return ok(_out(created, secret=generated or UNSET), 201)


async def get(call: Call) -> Answer:
    """GET /app/{app}/source/{source}."""
    return ok(_out(await _source(call)))


async def put(call: Call, changes: Changes) -> Answer:
    """PUT /app/{app}/source/{source}: replaces all but the provider; without a secret it keeps the one it has."""
    body = parse_body(call.body, SourceIn)
    found = await _source(call)
    old = cast("SourceDocument", found.document)
    if body.provider != old.provider:
        raise invalid(["body", "provider"], "a source keeps its provider: create another one")
    document = replace(
        old,
        name=body.name,
        metadata=checked_metadata(body.metadata),
        publish_accepted=body.publish_accepted,
    )
    uid = objects.put_uid(found, call.named("source"), body.uid)
    return await _change(call, changes, found, document, secret=body.secret, uid=uid)


async def patch(call: Call, changes: Changes) -> Answer:
    """PATCH /app/{app}/source/{source}."""
    body = parse_body(call.body, SourcePatch)
    found = await _source(call)
    old = cast("SourceDocument", found.document)
    document = replace(
        old,
        name=given(body.name, old.name),
        metadata=checked_metadata(given(body.metadata, old.metadata)),
        publish_accepted=given(body.publish_accepted, old.publish_accepted),
    )
    secret = None if isinstance(body.secret, UnsetType) else body.secret
    return await _change(call, changes, found, document, secret=secret, uid=given(body.uid, found.uid))


async def delete(call: Call, changes: Changes) -> Answer:
    """DELETE /app/{app}/source/{source}."""
    found = await _source(call)
    await changes.delete(found)
    await secrets.erase(call.connection, found.id)
    return NO_CONTENT


async def _source(call: Call) -> RegistryObject:
    app = await objects.application(call)
    return await objects.require(call, Kind.SOURCE, call.named("source"), app=app.id)


async def _change(
    call: Call,
    changes: Changes,
    found: RegistryObject,
    document: SourceDocument,
    *,
    secret: str | None,
    uid: str | None,
) -> Answer:
    if secret is None:
        return ok(_out(await changes.update(found, document, uid=uid)))
    text = _checked_secret(Provider(document.provider), secret)
    keys = (await _store(call, found.id, text),)
    await secrets.erase(call.connection, found.id, keep=keys)
    changed = await changes.update(found, replace(document, keys=keys), uid=uid, verb=Verb.SECRET_ROTATED)
    return ok(_out(changed))


async def _store(call: Call, owner: UUID, text: str) -> KeyReference:
    return await secrets.store(call.connection, call.registry.master_keys, text, owner=owner, org=call.caller.org)


def _checked_secret(provider: Provider, text: str | None) -> str:
    """The provider's secret.

    Raises:
        ApiError: 422, there is none, or it is not such a secret.
    """
    if text is None:
        raise invalid(["body", "secret"], f"{provider} gives the secret: pass it on", "value_error.missing")
    wrong = SCHEMES[provider].check_secret(text)
    if wrong is not None:
        raise invalid(["body", "secret"], wrong)
    return text


def _out(item: RegistryObject, secret: str | UnsetType = UNSET) -> SourceOut:
    document = cast("SourceDocument", item.document)
    identity = ids.encode(Prefix.SOURCE, item.id)
    return SourceOut(
        id=identity,
        uid=item.uid,
        name=document.name,
        provider=document.provider,
        url=f"/in/{identity}",
        metadata=document.metadata,
        publish_accepted=document.publish_accepted,
        created_at=item.created_at,
        updated_at=item.updated_at,
        secret=secret,
    )
