"""The official SDK, given one base URL, manages everything that is registered."""

import pytest
from svix.api import (
    ApplicationIn,
    ApplicationListOptions,
    ApplicationPatch,
    EndpointIn,
    EndpointListOptions,
    EndpointPatch,
    EventTypeIn,
    EventTypeListOptions,
    EventTypePatch,
    Ordering,
    SvixAsync,
)
from svix.exceptions import HttpError
from svix.models.endpoint_secret_rotate_in import EndpointSecretRotateIn
from svix.models.endpoint_upsert_in import EndpointUpsertIn
from svix.models.event_type_upsert_in import EventTypeUpsertIn

from libs.common.domain.signatures import standard


async def test_an_application_lives_through_all_its_operations(svix: SvixAsync) -> None:
    made = await svix.application.create(ApplicationIn(name="Acme", uid="acme", metadata={"plan": "gold"}))
    assert made.id.startswith("app_")
    assert (made.uid, made.metadata) == ("acme", {"plan": "gold"})
    assert await svix.application.get("acme") == await svix.application.get(made.id) == made
    assert await svix.application.get_or_create(ApplicationIn(name="other", uid="acme")) == made
    with pytest.raises(HttpError) as refused:
        await svix.application.create(ApplicationIn(name="Acme", uid="acme"))
    assert (refused.value.status_code, refused.value.code) == (409, "conflict")

    patched = await svix.application.patch("acme", ApplicationPatch(name="Acme Ltd"))
    assert (patched.name, patched.metadata, patched.created_at) == ("Acme Ltd", {"plan": "gold"}, made.created_at)
    replaced = await svix.application.upsert("acme", ApplicationIn(name="Acme plc"))
    assert (replaced.id, replaced.uid, replaced.metadata) == (made.id, "acme", {})
    created = await svix.application.upsert("another", ApplicationIn(name="Another"))
    assert created.uid == "another"
    assert created.id != made.id

    await svix.application.delete("acme")
    with pytest.raises(HttpError) as missing:
        await svix.application.get(made.id)
    assert missing.value.status_code == 404
    again = await svix.application.create(ApplicationIn(name="Acme", uid="acme"))
    assert again.id != made.id


async def test_an_endpoint_lives_through_all_its_operations(svix: SvixAsync) -> None:
    app = (await svix.application.create(ApplicationIn(name="endpoints", uid="endpoints"))).id
    made = await svix.endpoint.create(
        app,
        EndpointIn(url="http://localhost", uid="first", event_types=["b", "a", "b"], channels=["c"], throttle_rate=7),
    )
    assert made.id.startswith("ep_")
    assert (made.url, made.event_types, made.throttle_rate) == ("http://localhost/", ["b", "a"], 7)
    assert await svix.endpoint.get("endpoints", "first") == made

    patched = await svix.endpoint.patch(app, "first", EndpointPatch(disabled=True, event_types=None))
    assert (patched.disabled, patched.event_types, patched.channels) == (True, None, ["c"])
    replaced = await svix.endpoint.upsert(app, "first", EndpointUpsertIn(url="https://example.com/hook?x=1"))
    assert (replaced.id, replaced.url, replaced.disabled) == (made.id, "https://example.com/hook?x=1", False)
    assert (replaced.channels, replaced.uid) == (None, "first")

    await svix.endpoint.delete(app, made.id)
    with pytest.raises(HttpError) as missing:
        await svix.endpoint.get(app, "first")
    assert missing.value.status_code == 404
    assert (await svix.endpoint.list(app)).data == []


async def test_a_rotated_secret_is_another_one_and_a_given_one_is_the_given_one(svix: SvixAsync) -> None:
    app = (await svix.application.create(ApplicationIn(name="secrets"))).id
    own = standard.format_secret(bytes(range(32)))
    endpoint = (await svix.endpoint.create(app, EndpointIn(url="http://localhost", secret=own))).id
    assert (await svix.endpoint.get_secret(app, endpoint)).key == own

    rotated = await svix.endpoint.rotate_secret(app, endpoint, EndpointSecretRotateIn())
    assert rotated.key == (await svix.endpoint.get_secret(app, endpoint)).key != own
    passed = standard.format_secret(bytes(range(24)))
    await svix.endpoint.rotate_secret(app, endpoint, EndpointSecretRotateIn(key=passed))
    assert (await svix.endpoint.get_secret(app, endpoint)).key == passed


async def test_an_event_type_lives_through_all_its_operations(svix: SvixAsync) -> None:
    schemas = {"1": {"type": "object", "properties": {"total": {"type": "number", "maximum": 1.50}}}}
    made = await svix.event_type.create(EventTypeIn(name="order.paid", description="paid", schemas=schemas))
    assert (made.name, made.schemas, made.archived) == ("order.paid", schemas, False)
    with pytest.raises(HttpError) as refused:
        await svix.event_type.create(EventTypeIn(name="order.paid", description=""))
    assert refused.value.status_code == 409

    patched = await svix.event_type.patch("order.paid", EventTypePatch(deprecated=True))
    assert (patched.deprecated, patched.description, patched.schemas) == (True, "paid", schemas)
    await svix.event_type.upsert("order.new", EventTypeUpsertIn(description="new"))
    assert [item.name for item in (await svix.event_type.list()).data] == ["order.new", "order.paid"]

    await svix.event_type.delete("order.paid")
    assert [item.name for item in (await svix.event_type.list()).data] == ["order.new"]
    listed = await svix.event_type.list(EventTypeListOptions(include_archived=True, with_content=True))
    assert [(item.name, item.archived, item.schemas) for item in listed.data] == [
        ("order.new", False, None),
        ("order.paid", True, schemas),
    ]
    back = await svix.event_type.create(EventTypeIn(name="order.paid", description="again"))
    assert (back.archived, back.description, back.schemas) == (False, "again", None)


async def test_pages_lead_through_a_list_and_back(svix: SvixAsync) -> None:
    app = (await svix.application.create(ApplicationIn(name="pages"))).id
    made = [(await svix.endpoint.create(app, EndpointIn(url=f"http://localhost/{n}"))).id for n in range(5)]
    newest_first = made[::-1]

    first = await svix.endpoint.list(app, EndpointListOptions(limit=2))
    assert [item.id for item in first.data] == newest_first[:2]
    assert (first.iterator, first.prev_iterator, first.done) == (newest_first[1], f"-{newest_first[0]}", False)
    second = await svix.endpoint.list(app, EndpointListOptions(limit=2, iterator=first.iterator))
    assert [item.id for item in second.data] == newest_first[2:4]
    third = await svix.endpoint.list(app, EndpointListOptions(limit=2, iterator=second.iterator))
    assert ([item.id for item in third.data], third.done) == (newest_first[4:], True)

    await svix.endpoint.create(app, EndpointIn(url="http://localhost/meanwhile"))
    back = await svix.endpoint.list(app, EndpointListOptions(limit=2, iterator=third.prev_iterator))
    assert [item.id for item in back.data] == newest_first[2:4]
    oldest = await svix.endpoint.list(app, EndpointListOptions(limit=2, order=Ordering.ASCENDING))
    assert [item.id for item in oldest.data] == made[:2]


async def test_applications_are_listed_in_the_order_of_their_creation(svix: SvixAsync) -> None:
    made = [(await svix.application.create(ApplicationIn(name=f"n{n}"))).id for n in range(3)]
    listed = await svix.application.list(ApplicationListOptions(limit=250))
    assert [item.id for item in listed.data][-3:] == made
    assert listed.done
    newest = await svix.application.list(ApplicationListOptions(limit=1, order=Ordering.DESCENDING))
    assert [item.id for item in newest.data] == made[-1:]


async def test_health_needs_no_key(svix: SvixAsync) -> None:
    await svix.health.get()
