"""Importing event types from the webhooks of an OpenAPI document."""

from typing import Any, Final, cast

import msgspec
from msgspec.structs import replace

from libs.common.contracts import strictjson, strictyaml
from libs.common.contracts.registry import EventTypeDocument, Kind, RegistryObject
from libs.common.postgres.registry import Changes
from libs.common.postgres.snapshot import object_of
from libs.common.runtime.clock import new_id
from libs.common.runtime.http import ApiError, invalid
from services.registry.answers import Answer, ok
from services.registry.calls import Call
from services.registry.event_types import Schemas, checked_schemas
from services.registry.fields import In, Out
from services.registry.openapi_webhooks import BadDocumentError, Webhook, webhooks

_VERSION: Final = "1"


class EventTypeImportOpenApiIn(In, frozen=True):
    """A document, as JSON in `spec` or as the text of JSON or YAML in `specRaw`, and what is to be done with it."""

    spec: dict[str, Any] | None = None
    spec_raw: str | None = None
    dry_run: bool = False
    replace_all: bool = False


class EventTypeFromOpenApi(Out):
    """An event type as the document describes it."""

    name: str
    description: str
    schemas: dict[str, Any] | None
    deprecated: bool
    group_name: str | None
    feature_flags: tuple[str, ...] | None


class EventTypeImportOpenApiOutData(msgspec.Struct, kw_only=True):
    """The names of what was changed, and what was to be changed. Its names are the reference's."""

    modified: list[str]
    to_modify: list[EventTypeFromOpenApi]


class EventTypeImportOpenApiOut(Out):
    """What an import came to."""

    data: EventTypeImportOpenApiOutData


async def import_openapi(call: Call, changes: Changes) -> Answer:
    """Create or update the event types that an OpenAPI document's webhooks describe.

    Archived ones come back; with `replaceAll`, those that the document does not have are archived.
    """
    body = call.content(EventTypeImportOpenApiIn)
    wanted = _described(body)
    existing = await _existing(call)
    new: list[tuple[str, EventTypeDocument]] = []
    for name, (webhook, schemas) in wanted.items():
        found = existing.get(name)
        old = cast("EventTypeDocument", found.document) if found else EventTypeDocument()
        document = replace(
            old,
            description=webhook.description,
            deprecated=webhook.deprecated,
            group_name=webhook.group or old.group_name,
            schemas=schemas,
            archived=False,
        )
        if found is None or not _same(old, document):
            new.append((name, document))
    if not body.dry_run:
        for name, document in new:
            await _write(call, changes, existing.get(name), name, document)
        for name, found in existing.items() if body.replace_all else ():
            document = cast("EventTypeDocument", found.document)
            if name not in wanted and not document.archived:
                await changes.update(found, replace(document, archived=True), uid=found.uid)
    data = EventTypeImportOpenApiOutData(
        modified=[] if body.dry_run else [name for name, _ in new],
        to_modify=[_out(name, document) for name, document in new],
    )
    return ok(EventTypeImportOpenApiOut(data=data))


def _described(body: EventTypeImportOpenApiIn) -> dict[str, tuple[Webhook, Schemas | None]]:
    """Webhooks and their schemas by name."""
    if (body.spec is None) is (body.spec_raw is None):
        raise ApiError(400, "give the document either in `spec` or in `specRaw`")
    field = "spec" if body.spec is not None else "specRaw"
    described: dict[str, tuple[Webhook, Schemas | None]] = {}
    try:
        for webhook in webhooks(body.spec if body.spec is not None else _parsed(body.spec_raw or "")):
            schema = None if webhook.schema is None else msgspec.Raw(msgspec.json.encode(webhook.schema))
            place = ["body", field, *webhook.path]
            schemas = checked_schemas(None if schema is None else {_VERSION: schema}, place)
            described[webhook.name] = webhook, schemas
    except BadDocumentError as error:
        raise invalid(["body", field, *error.path], error.reason) from None
    return described


def _parsed(text: str) -> Any:
    try:
        if text.lstrip().startswith("{"):
            return strictjson.parse(text.encode())
        return strictyaml.parse(text)
    except (strictjson.BadJsonError, strictyaml.BadYamlError) as error:
        raise BadDocumentError(str(error)) from None


async def _existing(call: Call) -> dict[str, RegistryObject]:
    rows = await call.connection.fetch(
        """
        SELECT id, kind, org, app, uid, version, registry_version, created_at, updated_at, deleted_at, data
        FROM hookledger.registry_object WHERE kind = 'event_type' AND org = $1 AND deleted_at IS NULL
        """,
        call.caller.org,
    )
    return {row["uid"]: object_of(row) for row in rows}


async def _write(
    call: Call, changes: Changes, found: RegistryObject | None, name: str, document: EventTypeDocument
) -> None:
    if found is not None:
        await changes.update(found, document, uid=found.uid)
        return
    await changes.create(Kind.EVENT_TYPE, new_id(), document, org=call.caller.org, uid=name)


def _same(one: EventTypeDocument, other: EventTypeDocument) -> bool:
    """Whether two say the same, in whatever spelling: Postgres orders the keys of what it stores."""
    first, second = (msgspec.json.decode(msgspec.json.encode(each)) for each in (one, other))
    return bool(first == second)


def _out(name: str, document: EventTypeDocument) -> EventTypeFromOpenApi:
    return EventTypeFromOpenApi(
        name=name,
        description=document.description,
        schemas=document.schemas,
        deprecated=document.deprecated,
        group_name=document.group_name,
        feature_flags=document.feature_flags,
    )
