"""Sources: the providers whose webhooks an application receives, each at an address of its own."""

from datetime import timedelta
from typing import Annotated, Final, cast
from uuid import UUID

from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import replace

from libs.common.contracts.operations import Time
from libs.common.contracts.registry import KeyReference, Kind, RegistryObject, SourceDocument, VerificationDocument
from libs.common.domain import ids
from libs.common.domain.ids import Prefix
from libs.common.domain.providers.table import Provider
from libs.common.postgres.registry import Changes, Verb
from libs.common.runtime.clock import new_id
from libs.common.runtime.http import invalid
from services.registry import objects, secrets, senders
from services.registry.answers import NO_CONTENT, Answer, ok
from services.registry.calls import Call
from services.registry.fields import In, Metadata, Out, Title, Uid, checked_metadata, given
from services.registry.paging import read_page
from services.registry.parsing import conflict

_MOST_OLD_KEYS: Final = 1

PublicUrl = Annotated[str, Meta(max_length=2048)]


class SourceIn(In, frozen=True):
    """A whole source. The secret is the provider's; where there is none yet, Standard Webhooks' is generated."""

    name: Title
    provider: Provider
    uid: Uid | None = None
    secret: str | None = None
    metadata: Metadata | None = None
    publish_accepted: bool = False
    public_url: PublicUrl | None = None
    verification: VerificationDocument | None = None


class SourcePatch(In, frozen=True):
    """What is to change. A new secret takes the place of the old one at once."""

    name: Title | UnsetType = UNSET
    uid: Uid | UnsetType | None = UNSET
    secret: str | UnsetType = UNSET
    metadata: Metadata | UnsetType | None = UNSET
    publish_accepted: bool | UnsetType = UNSET
    public_url: PublicUrl | UnsetType | None = UNSET
    verification: VerificationDocument | UnsetType | None = UNSET


class SourceSecretRotateIn(In, frozen=True):
    """The provider's new secret, and for how long requests by the old one are still believed."""

    secret: str | None = None
    grace_period_seconds: secrets.GraceSeconds | None = None


class SourceOut(Out):
    """A source as the API shows it; `secret` only where it was generated, in the answer that says so."""

    id: str
    uid: str | None
    name: str
    provider: str
    url: str
    metadata: dict[str, str]
    publish_accepted: bool
    public_url: str | None
    verification: VerificationDocument | None
    created_at: Time
    updated_at: Time
    secret: str | UnsetType = UNSET


async def list_all(call: Call) -> Answer:
    """List the sources of an application."""
    page = read_page(call, descending=True)
    app = await objects.application(call)
    found = await objects.list_objects(call, Kind.SOURCE, page, app=app.id)
    return ok(page.of([_out(item) for item in found], lambda item: item.id))


async def create(call: Call, changes: Changes) -> Answer:
    """Create a source."""
    body = call.content(SourceIn)
    app = await objects.application(call)
    if body.uid is not None:
        existing = await objects.find(call, Kind.SOURCE, body.uid, app=app.id)
        if existing is not None and existing.uid == body.uid:
            raise conflict("a source with this uid exists already in the application")
    identity = new_id()
    document = SourceDocument(
        name=body.name,
        provider=body.provider,
        metadata=checked_metadata(body.metadata),
        publish_accepted=body.publish_accepted,
        public_url=body.public_url,
        verification=body.verification,
    )
    text, generated = senders.secret(document, body.secret)
    document = replace(document, keys=(await _store(call, identity, text),))
    created = await changes.create(Kind.SOURCE, identity, document, org=call.caller.org, app=app.id, uid=body.uid)
    return ok(_out(created, secret=generated or UNSET), 201)


async def get(call: Call) -> Answer:
    """Get a source."""
    return ok(_out(await _source(call)))


async def put(call: Call, changes: Changes) -> Answer:
    """Replace a source, all but its provider; without a secret it keeps the one it has."""
    body = call.content(SourceIn)
    found = await _source(call)
    old = cast("SourceDocument", found.document)
    if body.provider != old.provider:
        raise invalid(["body", "provider"], "a source keeps its provider: create another one")
    document = replace(
        old,
        name=body.name,
        metadata=checked_metadata(body.metadata),
        publish_accepted=body.publish_accepted,
        public_url=body.public_url,
        verification=body.verification,
    )
    uid = objects.put_uid(found, call.named("source"), body.uid)
    return await _change(call, changes, found, document, secret=body.secret, uid=uid)


async def patch(call: Call, changes: Changes) -> Answer:
    """Change a source."""
    body = call.content(SourcePatch)
    found = await _source(call)
    old = cast("SourceDocument", found.document)
    document = replace(
        old,
        name=given(body.name, old.name),
        metadata=checked_metadata(given(body.metadata, old.metadata)),
        publish_accepted=given(body.publish_accepted, old.publish_accepted),
        public_url=given(body.public_url, old.public_url),
        verification=given(body.verification, old.verification),
    )
    secret = None if isinstance(body.secret, UnsetType) else body.secret
    return await _change(call, changes, found, document, secret=secret, uid=given(body.uid, found.uid))


async def delete(call: Call, changes: Changes) -> Answer:
    """Delete a source."""
    found = await _source(call)
    await changes.delete(found)
    await secrets.erase(call.connection, found.id)
    return NO_CONTENT


async def rotate_secret(call: Call, changes: Changes) -> Answer:
    """Rotate the secret of a source: the old one stays in force beside the new one for a while."""
    body = call.content(SourceSecretRotateIn)
    found = await _source(call)
    document = cast("SourceDocument", found.document)
    text, generated = senders.secret(document, body.secret)
    seconds = secrets.DEFAULT_GRACE_SECONDS if body.grace_period_seconds is None else body.grace_period_seconds
    keys = await secrets.rotate(
        call.connection,
        call.registry.master_keys,
        text,
        owner=found.id,
        org=found.org,
        keys=document.keys,
        grace=timedelta(seconds=seconds),
        most_old=_MOST_OLD_KEYS,
    )
    changed = await changes.update(found, replace(document, keys=keys), uid=found.uid, verb=Verb.SECRET_ROTATED)
    return ok(_out(changed, secret=generated or UNSET))


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
        senders.scheme(document)
        return ok(_out(await changes.update(found, document, uid=uid)))
    text, _ = senders.secret(document, secret)
    keys = (await _store(call, found.id, text),)
    await secrets.erase(call.connection, found.id, keep=keys)
    changed = await changes.update(found, replace(document, keys=keys), uid=uid, verb=Verb.SECRET_ROTATED)
    return ok(_out(changed))


async def _store(call: Call, owner: UUID, text: str) -> KeyReference:
    return await secrets.store(call.connection, call.registry.master_keys, text, owner=owner, org=call.caller.org)


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
        public_url=document.public_url,
        verification=document.verification,
        created_at=item.created_at,
        updated_at=item.updated_at,
        secret=secret,
    )
