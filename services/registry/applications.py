"""Applications: the tenants of an organisation."""

from typing import Final, cast

from msgspec import UNSET, UnsetType

from libs.common.contracts.operations import Time
from libs.common.contracts.registry import ApplicationDocument, Kind, MaxAppInflight, RegistryObject
from libs.common.domain import ids
from libs.common.domain.ids import Prefix
from libs.common.postgres.registry import Changes
from libs.common.runtime.clock import new_id
from services.registry import objects
from services.registry.answers import NO_CONTENT, Answer, ok
from services.registry.calls import Call
from services.registry.fields import In, Metadata, Out, Rate, Title, Uid, checked_metadata, either, given
from services.registry.paging import read_page
from services.registry.parameters import flag
from services.registry.parsing import conflict, not_found

GET_IF_EXISTS: Final = flag("get_if_exists", "Answer with the application that has the uid already.", default=False)


class ApplicationIn(In, frozen=True):
    """A whole application."""

    name: Title
    uid: Uid | None = None
    metadata: Metadata | None = None
    throttle_rate: Rate | UnsetType | None = UNSET
    rate_limit: Rate | UnsetType | None = UNSET
    max_inflight: MaxAppInflight | None = None
    accept_rate: Rate | None = None
    publish_accepted: bool = False


class ApplicationPatch(In, frozen=True):
    """What is to change."""

    name: Title | UnsetType = UNSET
    uid: Uid | UnsetType | None = UNSET
    metadata: Metadata | UnsetType | None = UNSET
    throttle_rate: Rate | UnsetType | None = UNSET
    rate_limit: Rate | UnsetType | None = UNSET
    max_inflight: MaxAppInflight | UnsetType | None = UNSET
    accept_rate: Rate | UnsetType | None = UNSET
    publish_accepted: bool | UnsetType = UNSET


class ApplicationOut(Out):
    """An application as the API shows it."""

    id: str
    uid: str | None
    name: str
    metadata: dict[str, str]
    rate_limit: int | None
    throttle_rate: int | None
    max_inflight: int | None
    accept_rate: int | None
    publish_accepted: bool
    created_at: Time
    updated_at: Time


async def list_all(call: Call) -> Answer:
    """List the applications."""
    page = read_page(call, descending=False)
    found = await objects.list_objects(call, Kind.APPLICATION, page, app=None)
    return ok(page.of([_out(item) for item in found], lambda item: item.id))


async def create(call: Call, changes: Changes) -> Answer:
    """Create an application."""
    body = call.content(ApplicationIn)
    reuse = call.asked(GET_IF_EXISTS)
    if body.uid is not None:
        existing = await objects.find(call, Kind.APPLICATION, body.uid)
        if existing is not None and existing.uid == body.uid:
            if reuse:
                return ok(_out(existing))
            raise conflict("an application with this uid exists already")
    created = await changes.create(Kind.APPLICATION, new_id(), document_of(body), org=call.caller.org, uid=body.uid)
    return ok(_out(created), 201)


async def get(call: Call) -> Answer:
    """Get an application."""
    return ok(_out(await objects.application(call)))


async def put(call: Call, changes: Changes) -> Answer:
    """Replace an application, or create it under the uid in the path."""
    body = call.content(ApplicationIn)
    path = call.named("app")
    found = await objects.find(call, Kind.APPLICATION, path)
    if found is not None:
        uid = objects.put_uid(found, path, body.uid)
        return ok(_out(await changes.update(found, document_of(body), uid=uid)))
    uid = objects.new_uid(Kind.APPLICATION, path)
    if uid is None:
        raise not_found("application")
    created = await changes.create(
        Kind.APPLICATION, new_id(), document_of(body), org=call.caller.org, uid=body.uid or uid
    )
    return ok(_out(created), 201)


async def patch(call: Call, changes: Changes) -> Answer:
    """Change an application."""
    body = call.content(ApplicationPatch)
    found = await objects.application(call)
    old = cast("ApplicationDocument", found.document)
    document = ApplicationDocument(
        name=given(body.name, old.name),
        metadata=checked_metadata(given(body.metadata, old.metadata)),
        throttle_rate=given(either(body.throttle_rate, body.rate_limit), old.throttle_rate),
        max_inflight=given(body.max_inflight, old.max_inflight),
        accept_rate=given(body.accept_rate, old.accept_rate),
        publish_accepted=given(body.publish_accepted, old.publish_accepted),
    )
    return ok(_out(await changes.update(found, document, uid=given(body.uid, found.uid))))


async def delete(call: Call, changes: Changes) -> Answer:
    """Delete an application.

    Its endpoints and sources go with it: nobody finds them without it.
    """
    await changes.delete(await objects.application(call))
    return NO_CONTENT


def document_of(body: ApplicationIn) -> ApplicationDocument:
    """The document of an application that is created or replaced.

    Raises:
        ApiError: 422.
    """
    return ApplicationDocument(
        name=body.name,
        metadata=checked_metadata(body.metadata),
        throttle_rate=given(either(body.throttle_rate, body.rate_limit), None),
        max_inflight=body.max_inflight,
        accept_rate=body.accept_rate,
        publish_accepted=body.publish_accepted,
    )


def _out(item: RegistryObject) -> ApplicationOut:
    document = cast("ApplicationDocument", item.document)
    return ApplicationOut(
        id=ids.encode(Prefix.APPLICATION, item.id),
        uid=item.uid,
        name=document.name,
        metadata=document.metadata,
        rate_limit=document.throttle_rate,
        throttle_rate=document.throttle_rate,
        max_inflight=document.max_inflight,
        accept_rate=document.accept_rate,
        publish_accepted=document.publish_accepted,
        created_at=item.created_at,
        updated_at=item.updated_at,
    )
