"""Endpoints: where an application's messages are sent."""

from typing import cast
from uuid import UUID

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from libs.common.contracts.operations import Time
from libs.common.contracts.registry import (
    EndpointDocument,
    KeyReference,
    Kind,
    MaxAge,
    MaxInflight,
    OnExhausted,
    RegistryObject,
    Schedule,
    Share,
    TimeoutMs,
    UnknownEventTypes,
)
from libs.common.domain import ids
from libs.common.domain.endpoint import Profile
from libs.common.domain.ids import Prefix
from libs.common.domain.urls import UrlRefusal, parse_target
from libs.common.postgres.registry import Changes, Verb
from libs.common.runtime.clock import new_id
from libs.common.runtime.http import invalid
from services.registry import event_types, objects, secrets
from services.registry.answers import NO_CONTENT, Answer, ok
from services.registry.calls import Call
from services.registry.fields import (
    Channels,
    Description,
    EventTypes,
    Expression,
    In,
    Metadata,
    Out,
    Rate,
    RetrySchedule,
    Uid,
    checked_expression,
    checked_metadata,
    distinct,
    either,
    given,
)
from services.registry.paging import read_page
from services.registry.parsing import conflict, not_found
from services.registry.sealed_headers import with_headers


class EndpointIn(In, frozen=True):
    """A whole endpoint. `secret` and `headers` count on creation only; afterwards they have paths of their own."""

    url: str
    uid: Uid | None = None
    description: Description | None = ""
    disabled: bool | None = False
    event_types: EventTypes | UnsetType | None = UNSET
    filter_types: EventTypes | UnsetType | None = UNSET
    channels: Channels | None = None
    filter: Expression | None = None
    metadata: Metadata | None = None
    throttle_rate: Rate | UnsetType | None = UNSET
    rate_limit: Rate | UnsetType | None = UNSET
    max_inflight: MaxInflight | None = None
    secret: str | None = None
    secret_type: secrets.SecretType | None = None
    profile: Profile = Profile.STANDARD
    retry_schedule: RetrySchedule | None = None
    retry_client_errors: bool | None = None
    retry_jitter: Share | None = None
    timeout_ms: TimeoutMs | None = None
    max_age: MaxAge | None = None
    ordered: bool = False
    on_exhausted: OnExhausted = OnExhausted.RELEASE
    headers: dict[str, str] | None = None


class EndpointPatch(In, frozen=True):
    """What is to change."""

    url: str | UnsetType = UNSET
    uid: Uid | UnsetType | None = UNSET
    description: Description | UnsetType = UNSET
    disabled: bool | UnsetType = UNSET
    event_types: EventTypes | UnsetType | None = UNSET
    filter_types: EventTypes | UnsetType | None = UNSET
    channels: Channels | UnsetType | None = UNSET
    filter: Expression | UnsetType | None = UNSET
    metadata: Metadata | UnsetType | None = UNSET
    throttle_rate: Rate | UnsetType | None = UNSET
    rate_limit: Rate | UnsetType | None = UNSET
    max_inflight: MaxInflight | UnsetType | None = UNSET
    profile: Profile | UnsetType = UNSET
    retry_schedule: RetrySchedule | UnsetType | None = UNSET
    retry_client_errors: bool | UnsetType | None = UNSET
    retry_jitter: Share | UnsetType | None = UNSET
    timeout_ms: TimeoutMs | UnsetType | None = UNSET
    max_age: MaxAge | UnsetType | None = UNSET
    ordered: bool | UnsetType = UNSET
    on_exhausted: OnExhausted | UnsetType = UNSET


class EndpointOut(Out):
    """An endpoint as the API shows it; `secret` in the answer to its creation only."""

    id: str
    uid: str | None
    url: str
    version: int
    description: str
    disabled: bool
    event_types: tuple[str, ...] | None
    filter_types: tuple[str, ...] | None
    channels: tuple[str, ...] | None
    filter: str | None
    metadata: dict[str, str]
    rate_limit: int | None
    throttle_rate: int | None
    max_inflight: int | None
    profile: Profile
    retry_schedule: Schedule | None
    retry_client_errors: bool | None
    retry_jitter: float | None
    timeout_ms: int | None
    max_age: float | None
    ordered: bool
    on_exhausted: OnExhausted
    created_at: Time
    updated_at: Time
    secret: str | UnsetType = UNSET


async def endpoint(call: Call) -> RegistryObject:
    """The endpoint in the path, of the application in the path.

    Raises:
        ApiError: 404.
    """
    app = await objects.application(call)
    return await objects.require(call, Kind.ENDPOINT, call.named("endpoint"), app=app.id)


async def enabled_endpoint(call: Call) -> RegistryObject:
    """As `endpoint`.

    Raises:
        ApiError: 404; 409, it is disabled, so that nothing can be sent to it.
    """
    found = await endpoint(call)
    if cast("EndpointDocument", found.document).disabled:
        raise conflict("the endpoint is disabled: enable it first")
    return found


async def list_all(call: Call) -> Answer:
    """List the endpoints of an application."""
    page = read_page(call, descending=True)
    app = await objects.application(call)
    found = await objects.list_objects(call, Kind.ENDPOINT, page, app=app.id)
    return ok(page.of([out(item) for item in found], lambda item: item.id))


async def create(call: Call, changes: Changes) -> Answer:
    """Create an endpoint.

    The answer holds its secret, which is not shown again unless the organisation's settings say so.
    """
    body = call.content(EndpointIn)
    app = await objects.application(call)
    return await _create(call, changes, app.id, body, body.uid)


async def get(call: Call) -> Answer:
    """Get an endpoint."""
    return ok(out(await endpoint(call)))


async def put(call: Call, changes: Changes) -> Answer:
    """Replace an endpoint, or create it under the uid in the path."""
    body = call.content(EndpointIn)
    app = await objects.application(call)
    path = call.named("endpoint")
    found = await objects.find(call, Kind.ENDPOINT, path, app=app.id)
    if found is None:
        uid = objects.new_uid(Kind.ENDPOINT, path)
        if uid is None:
            raise not_found("endpoint")
        return await _create(call, changes, app.id, body, body.uid or uid)
    old = cast("EndpointDocument", found.document)
    uid = objects.put_uid(found, path, body.uid)
    secrets.check_profile(body.profile, old.keys[0])
    document = replace(
        await _document(call, body, old.keys),
        transformation=old.transformation,
        headers=old.headers,
        sealed_headers=old.sealed_headers,
    )
    await _check_event_types(call, document, old)
    return ok(out(await change(changes, found, document, uid=uid)))


async def patch(call: Call, changes: Changes) -> Answer:
    """Change an endpoint."""
    body = call.content(EndpointPatch)
    found = await endpoint(call)
    old = cast("EndpointDocument", found.document)
    document = EndpointDocument(
        # An old URL is not judged anew: what changes otherwise must be changeable after the policy was tightened.
        url=old.url if isinstance(body.url, UnsetType) else await _checked_url(call, body.url),
        description=given(body.description, old.description),
        disabled=given(body.disabled, old.disabled),
        event_types=distinct(given(either(body.event_types, body.filter_types), old.event_types)),
        channels=distinct(given(body.channels, old.channels)),
        filter=checked_expression(given(body.filter, old.filter), "filter"),
        transformation=old.transformation,
        metadata=checked_metadata(given(body.metadata, old.metadata)),
        throttle_rate=given(either(body.throttle_rate, body.rate_limit), old.throttle_rate),
        max_inflight=given(body.max_inflight, old.max_inflight),
        profile=given(body.profile, old.profile),
        retry_schedule=given(body.retry_schedule, old.retry_schedule),
        retry_client_errors=given(body.retry_client_errors, old.retry_client_errors),
        retry_jitter=given(body.retry_jitter, old.retry_jitter),
        timeout_ms=given(body.timeout_ms, old.timeout_ms),
        max_age=given(body.max_age, old.max_age),
        ordered=given(body.ordered, old.ordered),
        on_exhausted=given(body.on_exhausted, old.on_exhausted),
        keys=old.keys,
        headers=old.headers,
        sealed_headers=old.sealed_headers,
    )
    await _check_event_types(call, document, old)
    secrets.check_profile(document.profile, old.keys[0])
    return ok(out(await change(changes, found, document, uid=given(body.uid, found.uid))))


async def delete(call: Call, changes: Changes) -> Answer:
    """Delete an endpoint."""
    found = await endpoint(call)
    await changes.delete(found)
    await secrets.erase(call.connection, found.id)
    return NO_CONTENT


async def change(
    changes: Changes, found: RegistryObject, document: EndpointDocument, *, uid: str | None, verb: Verb | None = None
) -> RegistryObject:
    """Give an endpoint the document that somebody wants. It begins anew: what failed, failed with an earlier one."""
    if verb is None:
        verb = _verb(cast("EndpointDocument", found.document), document)
    return await changes.update(found, replace(document, failing=None), uid=uid, verb=verb)


def _verb(old: EndpointDocument, new: EndpointDocument) -> Verb:
    if old.disabled == new.disabled:
        return Verb.UPDATED
    return Verb.DISABLED if new.disabled else Verb.ENABLED


async def _create(call: Call, changes: Changes, app: UUID, body: EndpointIn, uid: str | None) -> Answer:
    if uid is not None:
        existing = await objects.find(call, Kind.ENDPOINT, uid, app=app)
        if existing is not None and existing.uid == uid:
            raise conflict("an endpoint with this uid exists already in the application")
    identity = new_id()
    text = secrets.for_endpoint(body.secret, body.secret_type, ["body", "secret"])
    document = await _document(call, body, ())
    await _check_event_types(call, document)
    seal = secrets.Sealer(call.connection, call.registry.master_keys, owner=identity, org=call.caller.org)
    key = await seal(text)
    secrets.check_profile(body.profile, key)
    document = replace(document, keys=(key,))
    document = await with_headers(document, body.headers or {}, set(), seal)
    created = await changes.create(Kind.ENDPOINT, identity, document, org=call.caller.org, app=app, uid=uid)
    return ok(out(created, secret=key.public_key or text), 201)


async def _document(call: Call, body: EndpointIn, keys: tuple[KeyReference, ...]) -> EndpointDocument:
    return EndpointDocument(
        url=await _checked_url(call, body.url),
        description=body.description or "",
        disabled=body.disabled or False,
        event_types=distinct(given(either(body.event_types, body.filter_types), None)),
        channels=distinct(body.channels),
        filter=checked_expression(body.filter, "filter"),
        metadata=checked_metadata(body.metadata),
        throttle_rate=given(either(body.throttle_rate, body.rate_limit), None),
        max_inflight=body.max_inflight,
        profile=body.profile,
        retry_schedule=body.retry_schedule,
        retry_client_errors=body.retry_client_errors,
        retry_jitter=body.retry_jitter,
        timeout_ms=body.timeout_ms,
        max_age=body.max_age,
        ordered=body.ordered,
        on_exhausted=body.on_exhausted,
        keys=keys,
    )


async def _checked_url(call: Call, text: str) -> str:
    """The URL in the form in which it is stored.

    Raises:
        ApiError: 422, no endpoint may have it.
    """
    organisation = await objects.organisation(call)
    target = parse_target(text, call.registry.addresses, https_only=organisation.endpoint_https_only)
    if isinstance(target, UrlRefusal):
        raise invalid(["body", "url"], target.detail, "value_error.url")
    return target.text


async def _check_event_types(call: Call, new: EndpointDocument, old: EndpointDocument | None = None) -> None:
    """Where the organisation says so, an endpoint may only name event types that there are, or that it named before.

    Raises:
        ApiError: 422.
    """
    named = set(new.event_types or ()) - set(old.event_types or () if old is not None else ())
    if not named or (await objects.organisation(call)).unknown_event_types is not UnknownEventTypes.REJECT:
        return
    unknown = await event_types.unknown(call, named)
    if unknown:
        raise invalid(["body", "eventTypes"], f"there is no event type {unknown[0]}: create it first")


def out(item: RegistryObject, secret: str | UnsetType = UNSET) -> EndpointOut:
    """An endpoint as the API shows it."""
    document = cast("EndpointDocument", item.document)
    return EndpointOut(
        id=ids.encode(Prefix.ENDPOINT, item.id),
        uid=item.uid,
        url=document.url,
        version=1,
        description=document.description,
        disabled=document.disabled,
        event_types=document.event_types,
        filter_types=document.event_types,
        channels=document.channels,
        filter=document.filter,
        metadata=document.metadata,
        rate_limit=document.throttle_rate,
        throttle_rate=document.throttle_rate,
        profile=document.profile,
        retry_schedule=document.retry_schedule,
        retry_client_errors=document.retry_client_errors,
        retry_jitter=document.retry_jitter,
        timeout_ms=document.timeout_ms,
        max_age=document.max_age,
        max_inflight=document.max_inflight,
        ordered=document.ordered,
        on_exhausted=document.on_exhausted,
        created_at=item.created_at,
        updated_at=item.updated_at,
        secret=secret,
    )
