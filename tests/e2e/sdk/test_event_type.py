"""Event types: the reference's operations, one by one. A name is its own id."""

from typing import Any

import pytest
from svix.api import EventTypeIn, EventTypeListOptions, EventTypePatch, Ordering, SvixAsync
from svix.api.event_type import (
    EventTypeCreateOptions,
    EventTypeDeleteOptions,
    EventTypeImportOpenapiOptions,
)
from svix.models import EventTypeImportOpenApiIn, EventTypeUpsertIn

from tests.e2e.sdk.reference import operation
from tests.e2e.sdk.refusals import invalid, missing, refused

SCHEMAS = {"1": {"type": "object", "properties": {"total": {"type": "number", "maximum": 1.50}}}}


async def names(svix: SvixAsync, options: EventTypeListOptions) -> list[str]:
    return [item.name for item in (await svix.event_type.list(options)).data]


@operation("v1.event-type.create")
async def test_create_answers_with_the_event_type(svix: SvixAsync) -> None:
    made = await svix.event_type.create(
        EventTypeIn(
            name="order.paid",
            description="An order is paid.",
            schemas=SCHEMAS,
            deprecated=True,
            group_name="order",
            feature_flags=["beta"],
        )
    )
    assert (made.name, made.description, made.schemas) == ("order.paid", "An order is paid.", SCHEMAS)
    assert (made.deprecated, made.archived, made.group_name) == (True, False, "order")
    assert (made.feature_flags, made.feature_flag) == (["beta"], "beta")
    bare = await svix.event_type.create(EventTypeIn(name="bare", description=""))
    assert (bare.schemas, bare.deprecated, bare.archived, bare.feature_flag) == (None, False, False, None)


@operation("v1.event-type.create")
async def test_create_refuses_a_name_that_is_taken(svix: SvixAsync) -> None:
    await svix.event_type.create(EventTypeIn(name="taken", description=""))
    assert await refused(svix.event_type.create(EventTypeIn(name="taken", description="")), 409) == "conflict"


@operation("v1.event-type.create")
@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({"name": "a b"}, ["name"]),
        ({"name": ""}, ["name"]),
        ({"feature_flags": ["a b"]}, ["featureFlags"]),
        ({"schemas": {"1": {"type": "strnig"}}}, ["schemas", "1", "type"]),
    ],
    ids=str,
)
async def test_create_says_which_field_to_mend(svix: SvixAsync, wrong: dict[str, Any], place: list[str]) -> None:
    [found] = await invalid(
        svix.event_type.create(EventTypeIn.model_validate({"name": "wrong", "description": ""} | wrong))
    )
    assert found[: len(place) + 1] == ["body", *place]


@operation("v1.event-type.create", "idempotency-key")
async def test_create_repeated_under_one_key_makes_one(svix: SvixAsync) -> None:
    under = EventTypeCreateOptions(idempotency_key="event-type-1")
    first = await svix.event_type.create(EventTypeIn(name="keyed", description=""), under)
    assert await svix.event_type.create(EventTypeIn(name="keyed", description=""), under) == first


@operation("v1.event-type.list", "limit", "iterator", "order")
async def test_list_goes_through_event_types_by_name(svix: SvixAsync) -> None:
    for name in ("list.c", "list.a", "list.b"):
        await svix.event_type.create(EventTypeIn(name=name, description=""))
    first = await svix.event_type.list(EventTypeListOptions(limit=2, iterator="list."))
    assert [item.name for item in first.data] == ["list.a", "list.b"]
    assert (first.iterator, first.prev_iterator, first.done) == ("list.b", "-list.a", False)
    assert await names(svix, EventTypeListOptions(limit=1, iterator=first.iterator)) == ["list.c"]
    assert await names(svix, EventTypeListOptions(limit=2, iterator="-list.c")) == ["list.a", "list.b"]
    down = EventTypeListOptions(limit=3, iterator="list.d", order=Ordering.DESCENDING)
    assert await names(svix, down) == ["list.c", "list.b", "list.a"]


@operation("v1.event-type.list", "include_archived", "with_content")
async def test_list_shows_archived_ones_and_schemas_when_asked(svix: SvixAsync) -> None:
    for name in ("shown.a", "shown.b"):
        await svix.event_type.create(EventTypeIn(name=name, description="", schemas=SCHEMAS))
    await svix.event_type.delete("shown.a")
    [shown] = (await svix.event_type.list(EventTypeListOptions(limit=1, iterator="shown."))).data
    assert (shown.name, shown.schemas) == ("shown.b", None)
    everything = EventTypeListOptions(limit=2, iterator="shown.", include_archived=True, with_content=True)
    listed = (await svix.event_type.list(everything)).data
    assert [(item.name, item.archived, item.schemas) for item in listed] == [
        ("shown.a", True, SCHEMAS),
        ("shown.b", False, SCHEMAS),
    ]


@operation("v1.event-type.get")
async def test_get_finds_by_name(svix: SvixAsync) -> None:
    made = await svix.event_type.create(EventTypeIn(name="found", description="", schemas=SCHEMAS))
    assert await svix.event_type.get("found") == made
    assert await missing(svix.event_type.get("nowhere"))


@operation("v1.event-type.update")
async def test_update_replaces_or_creates(svix: SvixAsync) -> None:
    made = await svix.event_type.upsert("put", EventTypeUpsertIn(description="one", schemas=SCHEMAS, deprecated=True))
    assert (made.name, made.schemas, made.deprecated) == ("put", SCHEMAS, True)
    new = await svix.event_type.upsert("put", EventTypeUpsertIn(description="two"))
    assert (new.description, new.schemas, new.deprecated, new.created_at) == ("two", None, False, made.created_at)


@operation("patch_event_type")
async def test_patch_changes_what_it_names(svix: SvixAsync) -> None:
    wanted = EventTypeIn(name="patched", description="one", schemas=SCHEMAS, feature_flags=["beta", "eu"])
    await svix.event_type.create(wanted)
    patched = await svix.event_type.patch("patched", EventTypePatch(deprecated=True, archived=True))
    assert (patched.deprecated, patched.archived, patched.description) == (True, True, "one")
    assert (patched.schemas, patched.feature_flags) == (SCHEMAS, ["beta", "eu"])
    cleared = await svix.event_type.patch("patched", EventTypePatch(schemas=None, feature_flags=None))
    assert (cleared.schemas, cleared.feature_flags, cleared.archived) == (None, None, True)
    assert await missing(svix.event_type.patch("nowhere", EventTypePatch(deprecated=True)))


@operation("v1.event-type.delete")
@operation("v1.event-type.create")
async def test_delete_archives_and_create_brings_back_without_the_old_schemas(svix: SvixAsync) -> None:
    await svix.event_type.create(EventTypeIn(name="archived", description="old", schemas=SCHEMAS))
    await svix.event_type.delete("archived")
    assert (await svix.event_type.get("archived")).archived
    back = await svix.event_type.create(EventTypeIn(name="archived", description="new"))
    assert (back.archived, back.description, back.schemas) == (False, "new", None)


@operation("v1.event-type.delete", "expunge")
async def test_delete_with_expunge_leaves_nothing(svix: SvixAsync) -> None:
    await svix.event_type.create(EventTypeIn(name="expunged", description=""))
    await svix.event_type.delete("expunged", EventTypeDeleteOptions(expunge=True))
    assert await missing(svix.event_type.get("expunged"))
    assert await missing(svix.event_type.delete("expunged"))


@operation("v1.event-type.import-openapi", "idempotency-key")
async def test_import_takes_the_webhooks_of_a_document(svix: SvixAsync) -> None:
    document = {"openapi": "3.1.0", "webhooks": {"imported.one": {"post": {"summary": "One.", "tags": ["imported"]}}}}
    tried = await svix.event_type.import_openapi(EventTypeImportOpenApiIn(spec=document, dry_run=True))
    assert ([item.name for item in tried.data.to_modify or []], tried.data.modified) == (["imported.one"], [])
    assert await missing(svix.event_type.get("imported.one"))
    under = EventTypeImportOpenapiOptions(idempotency_key="import-1")
    done = await svix.event_type.import_openapi(EventTypeImportOpenApiIn(spec=document), under)
    assert done.data.modified == ["imported.one"]
    assert await svix.event_type.import_openapi(EventTypeImportOpenApiIn(spec=document), under) == done
    made = await svix.event_type.get("imported.one")
    assert (made.description, made.group_name) == ("One.", "imported")
    assert await refused(svix.event_type.import_openapi(EventTypeImportOpenApiIn()), 400) == "bad_request"
