"""Event types: the dotted names that messages carry. A name is its own id; deleting one archives it."""

from collections.abc import Collection, Sequence
from typing import Annotated, Any, Final, cast

import msgspec
from msgspec import UNSET, Meta, UnsetType

from libs.common.contracts.operations import Time
from libs.common.contracts.registry import EventTypeDocument, Kind, RegistryObject
from libs.common.postgres.registry import Changes
from libs.common.postgres.snapshot import object_of
from libs.common.runtime.clock import new_id
from libs.common.runtime.http import invalid
from libs.common.runtime.schemas.cost import BadSchemaError
from libs.common.runtime.schemas.payload import LONGEST_SCHEMA, PayloadSchema
from services.registry import objects
from services.registry.answers import NO_CONTENT, Answer, ok
from services.registry.authentication import AppToken
from services.registry.calls import Call
from services.registry.fields import Description, EventTypeName, In, Out, Uid, either, given
from services.registry.paging import Page, read_page
from services.registry.parameters import flag
from services.registry.parsing import conflict, not_found

ARCHIVED: Final = flag("include_archived", "Whether archived ones are listed, too.", default=False)
WITH_SCHEMAS: Final = flag("with_content", "Whether the schemas are shown.", default=False)
EXPUNGE: Final = flag("expunge", "Whether it is deleted for good, not archived.", default=False)

# Above every name: names are ASCII.
_ABOVE_ALL_NAMES = "\U0010ffff"

Schema = Annotated[msgspec.Raw, Meta(extra_json_schema={"type": "object"})]
Schemas = Annotated[dict[Uid, Schema], Meta(max_length=100)]
FeatureFlags = Annotated[tuple[Uid, ...], Meta(max_length=100)]


class EventTypeUpdate(In, frozen=True):
    """A whole event type but for its name."""

    description: Description
    archived: bool = False
    deprecated: bool = False
    feature_flag: Uid | None = None
    feature_flags: FeatureFlags | None = None
    group_name: Uid | None = None
    schemas: Schemas | None = None


class EventTypeIn(EventTypeUpdate, kw_only=True, frozen=True):
    """A whole event type."""

    name: EventTypeName


class EventTypePatch(In, frozen=True):
    """What is to change."""

    description: Description | UnsetType = UNSET
    archived: bool | UnsetType = UNSET
    deprecated: bool | UnsetType = UNSET
    feature_flag: Uid | UnsetType | None = UNSET
    feature_flags: FeatureFlags | UnsetType | None = UNSET
    group_name: Uid | UnsetType | None = UNSET
    schemas: Schemas | UnsetType | None = UNSET


class EventTypeOut(Out):
    """An event type as the API shows it; `featureFlag` is the first of `featureFlags`."""

    name: str
    description: str
    archived: bool
    deprecated: bool
    feature_flag: str | None
    feature_flags: tuple[str, ...] | None
    group_name: str | None
    schemas: dict[str, Any] | None
    created_at: Time
    updated_at: Time


async def list_all(call: Call) -> Answer:
    """List the event types, by name."""
    page = read_page(call, descending=False)
    archived = call.asked(ARCHIVED)
    content = call.asked(WITH_SCHEMAS)
    rows = await call.connection.fetch(
        page.directed(
            """
            SELECT t.id, t.kind, t.org, t.app, t.uid, t.version, t.registry_version, t.created_at, t.updated_at,
                t.deleted_at, t.data, t.examined, w.wanted
            FROM (
                SELECT e.*, row_number() OVER () AS examined FROM (
                    SELECT * FROM hookledger.registry_object
                    WHERE kind = 'event_type' AND org = $1 AND uid :beyond $2 AND deleted_at IS NULL
                    ORDER BY uid :direction LIMIT :most
                ) e ORDER BY e.uid :direction
            ) t
                CROSS JOIN LATERAL (SELECT
                    ($3 OR NOT coalesce((t.data ->> 'archived')::boolean, false))
                    AND ($5::text[] IS NULL
                        OR coalesce(t.data -> 'featureFlags', t.data -> 'featureFlag', 'null') IN ('null', '[]')
                        OR coalesce(t.data -> 'featureFlags', t.data -> 'featureFlag') ?| $5) AS wanted) w
            WHERE w.wanted OR t.examined = :most
            ORDER BY t.uid :direction LIMIT $4
            """,
        ),
        call.caller.org,
        _bound(page),
        archived,
        page.fetched,
        list(call.caller.feature_flags) if isinstance(call.caller, AppToken) else None,
    )
    return ok(page.sifted(rows, lambda row: _out(object_of(row), content=content), lambda row: str(row["uid"])))


async def create(call: Call, changes: Changes) -> Answer:
    """Create an event type, or bring an archived one back."""
    body = call.content(EventTypeIn)
    existing = await objects.find(call, Kind.EVENT_TYPE, body.name)
    if existing is None:
        created = await changes.create(Kind.EVENT_TYPE, new_id(), _document(body), org=call.caller.org, uid=body.name)
        return ok(_out(created), 201)
    if not cast("EventTypeDocument", existing.document).archived:
        raise conflict("an event type with this name exists already")
    return ok(_out(await changes.update(existing, _document(body), uid=existing.uid)), 201)


async def get(call: Call) -> Answer:
    """Get an event type."""
    return ok(_out(await _event_type(call)))


async def put(call: Call, changes: Changes) -> Answer:
    """Replace or create an event type."""
    body = call.content(EventTypeUpdate)
    name = call.named("name")
    found = await objects.find(call, Kind.EVENT_TYPE, name)
    if found is not None:
        return ok(_out(await changes.update(found, _document(body), uid=found.uid)))
    if objects.UID.fullmatch(name) is None:
        raise not_found("event type")
    created = await changes.create(Kind.EVENT_TYPE, new_id(), _document(body), org=call.caller.org, uid=name)
    return ok(_out(created), 201)


async def patch(call: Call, changes: Changes) -> Answer:
    """Change an event type."""
    body = call.content(EventTypePatch)
    found = await _event_type(call)
    old = cast("EventTypeDocument", found.document)
    flag = UNSET if isinstance(body.feature_flag, UnsetType) else _several(body.feature_flag)
    document = EventTypeDocument(
        description=given(body.description, old.description),
        archived=given(body.archived, old.archived),
        deprecated=given(body.deprecated, old.deprecated),
        feature_flags=given(either(body.feature_flags, flag), _flags(old)),
        group_name=given(body.group_name, old.group_name),
        # Old ones are not judged anew: what changes otherwise must be changeable whatever was taken once.
        schemas=old.schemas if isinstance(body.schemas, UnsetType) else checked_schemas(body.schemas),
    )
    return ok(_out(await changes.update(found, document, uid=found.uid)))


async def delete(call: Call, changes: Changes) -> Answer:
    """Archive an event type, or delete it."""
    expunge = call.asked(EXPUNGE)
    found = await _event_type(call)
    if expunge:
        await changes.delete(found)
    else:
        old = cast("EventTypeDocument", found.document)
        await changes.update(found, msgspec.structs.replace(old, archived=True), uid=found.uid)
    return NO_CONTENT


async def unknown(call: Call, names: Collection[str]) -> list[str]:
    """Those of the names that the organisation has no event type for; archived ones it has."""
    rows = await call.connection.fetch(
        # Word for word the expressions of the index registry_object_uid, or it would not be used.
        """
        SELECT uid FROM hookledger.registry_object
        WHERE kind = 'event_type' AND (CASE WHEN kind = 'organisation' THEN NULL ELSE org END) = $1
            AND app IS NULL AND uid = ANY($2) AND deleted_at IS NULL AND uid IS NOT NULL
        """,
        call.caller.org,
        list(names),
    )
    return sorted(set(names) - {row["uid"] for row in rows})


async def _event_type(call: Call) -> RegistryObject:
    found = await objects.require(call, Kind.EVENT_TYPE, call.named("name"))
    flags = _flags(cast("EventTypeDocument", found.document))
    if isinstance(call.caller, AppToken) and flags and call.caller.feature_flags.isdisjoint(flags):
        raise not_found("event type")
    return found


def _bound(page: Page) -> str:
    if page.iterator is None:
        return _ABOVE_ALL_NAMES if page.descending else ""
    if objects.UID.fullmatch(page.iterator) is None:
        raise invalid(["query", "iterator"], "it is no event type's name: take it from the page before")
    return page.iterator


def _document(body: EventTypeUpdate) -> EventTypeDocument:
    return EventTypeDocument(
        description=body.description,
        archived=body.archived,
        deprecated=body.deprecated,
        feature_flags=body.feature_flags or _several(body.feature_flag),
        group_name=body.group_name,
        schemas=checked_schemas(body.schemas),
    )


def _several(flag: str | None) -> tuple[str, ...] | None:
    return None if flag is None else (flag,)


def _flags(document: EventTypeDocument) -> tuple[str, ...] | None:
    return document.feature_flags or _several(document.feature_flag)


def checked_schemas(schemas: Schemas | None, place: Sequence[str | int] = ("body", "schemas")) -> Schemas | None:
    """Schemas by version, each of them one that payloads can be checked by.

    Raises:
        ApiError: 422, with the path in the schema.
    """
    for version, schema in (schemas or {}).items():
        here = [*place, version]
        if not bytes(schema).startswith(b"{"):
            raise invalid(here, "a schema is a JSON object", "type_error.dict")
        if len(bytes(schema)) > LONGEST_SCHEMA:
            raise invalid(here, f"a schema has at most {LONGEST_SCHEMA} bytes")
        try:
            PayloadSchema(msgspec.json.decode(schema))
        except BadSchemaError as error:
            raise invalid([*here, *error.path], error.reason, "value_error.schema") from None
    return schemas


def _out(item: RegistryObject, *, content: bool = True) -> EventTypeOut:
    document = cast("EventTypeDocument", item.document)
    assert item.uid is not None
    return EventTypeOut(
        name=item.uid,
        description=document.description,
        archived=document.archived,
        deprecated=document.deprecated,
        feature_flag=next(iter(_flags(document) or ()), None),
        feature_flags=_flags(document),
        group_name=document.group_name,
        schemas=document.schemas if content else None,
        created_at=item.created_at,
        updated_at=item.updated_at,
    )
