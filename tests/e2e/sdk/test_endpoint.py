"""Endpoints as a resource: the reference's operations, one by one."""

from datetime import UTC, datetime

import pytest
from svix.api import (
    ApplicationIn,
    EndpointIn,
    EndpointListOptions,
    EndpointPatch,
    Ordering,
    SvixAsync,
)
from svix.api.endpoint import EndpointCreateOptions
from svix.models import EndpointOut, EndpointUpsertIn

from tests.e2e.sdk.reference import operation
from tests.e2e.sdk.refusals import invalid, missing, refused

URL = "http://localhost/hook"


def chosen(endpoint: EndpointOut) -> tuple[object, ...]:
    """What a user chooses of an endpoint."""
    return (
        endpoint.uid,
        endpoint.url,
        endpoint.description,
        endpoint.disabled,
        endpoint.event_types,
        endpoint.channels,
        endpoint.metadata,
        endpoint.throttle_rate,
    )


async def full(svix: SvixAsync, app: str, uid: str = "full") -> EndpointOut:
    """An endpoint that has everything."""
    wanted = EndpointIn(
        url="http://localhost",
        uid=uid,
        description="mine",
        disabled=True,
        event_types=["b", "a", "b"],
        channels=["c"],
        metadata={"tier": "1"},
        throttle_rate=7,
    )
    return await svix.endpoint.create(app, wanted)


@operation("v1.endpoint.create")
async def test_create_answers_with_the_endpoint(svix: SvixAsync, app: str) -> None:
    began = datetime.now(UTC)
    made = await full(svix, app)
    assert made.id.startswith("ep_")
    assert chosen(made) == ("full", "http://localhost/", "mine", True, ["b", "a"], ["c"], {"tier": "1"}, 7)
    assert began <= made.created_at == made.updated_at <= datetime.now(UTC)
    bare = await svix.endpoint.create(app, EndpointIn(url="https://example.com/a?b=c"))
    assert chosen(bare) == (None, "https://example.com/a?b=c", "", False, None, None, {}, None)


@operation("v1.endpoint.create")
async def test_create_takes_a_secret_and_headers(svix: SvixAsync, app: str) -> None:
    secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
    for number, given in enumerate((secret, secret.removeprefix("whsec_"))):
        made = await svix.endpoint.create(
            app, EndpointIn(url=URL, uid=f"e{number}", secret=given, headers={"X-A": "1"})
        )
        assert (await svix.endpoint.get_secret(app, made.id)).key == secret
        assert (await svix.endpoint.get_headers(app, made.id)).headers == {"X-A": "1"}


@operation("v1.endpoint.create")
async def test_a_uid_counts_within_its_application(svix: SvixAsync, app: str) -> None:
    await svix.endpoint.create(app, EndpointIn(url=URL, uid="taken"))
    assert await refused(svix.endpoint.create(app, EndpointIn(url=URL, uid="taken")), 409) == "conflict"
    await svix.endpoint.upsert(app, "another", EndpointUpsertIn(url=URL))
    assert await refused(svix.endpoint.patch(app, "another", EndpointPatch(uid="taken")), 409) == "conflict"


@operation("v1.endpoint.create")
@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({"url": "not a url"}, "url"),
        ({"url": "ftp://example.com"}, "url"),
        ({"uid": "a b"}, "uid"),
        ({"event_types": []}, "eventTypes"),
        ({"channels": []}, "channels"),
        ({"channels": [f"c{n}" for n in range(11)]}, "channels"),
        ({"throttle_rate": 0}, "throttleRate"),
        ({"secret": "whsec_short"}, "secret"),
        ({"headers": {"Host": "example.com"}}, "headers"),
    ],
    ids=str,
)
async def test_create_says_which_field_to_mend(svix: SvixAsync, app: str, wrong: dict[str, object], place: str) -> None:
    [found] = await invalid(svix.endpoint.create(app, EndpointIn.model_validate({"url": URL} | wrong)))
    assert found[:2] == ["body", place]


@operation("v1.endpoint.create")
async def test_create_needs_an_application(svix: SvixAsync) -> None:
    assert await missing(svix.endpoint.create("nowhere", EndpointIn(url=URL)))


@operation("v1.endpoint.create", "idempotency-key")
async def test_create_repeated_under_one_key_makes_one(svix: SvixAsync, app: str) -> None:
    under = EndpointCreateOptions(idempotency_key="endpoint-1")
    first = await svix.endpoint.create(app, EndpointIn(url=URL), under)
    assert await svix.endpoint.create(app, EndpointIn(url=URL), under) == first
    assert await refused(svix.endpoint.create(app, EndpointIn(url="http://localhost/other"), under), 409) == "conflict"
    assert len((await svix.endpoint.list(app)).data) == 1


@operation("v1.endpoint.list", "limit", "iterator", "order")
async def test_list_goes_from_the_newest_to_the_oldest(svix: SvixAsync, app: str) -> None:
    made = [(await svix.endpoint.create(app, EndpointIn(url=URL))).id for n in range(5)]
    newest = made[::-1]
    first = await svix.endpoint.list(app, EndpointListOptions(limit=2))
    assert [item.id for item in first.data] == newest[:2]
    assert (first.iterator, first.prev_iterator, first.done) == (newest[1], f"-{newest[0]}", False)
    second = await svix.endpoint.list(app, EndpointListOptions(limit=2, iterator=first.iterator))
    third = await svix.endpoint.list(app, EndpointListOptions(limit=2, iterator=second.iterator))
    assert [item.id for item in (*second.data, *third.data)] == newest[2:]
    assert (second.done, third.done) == (False, True)

    await svix.endpoint.create(app, EndpointIn(url="http://localhost/meanwhile"))
    back = await svix.endpoint.list(app, EndpointListOptions(limit=2, iterator=third.prev_iterator))
    assert [item.id for item in back.data] == newest[2:4]
    oldest = await svix.endpoint.list(app, EndpointListOptions(limit=2, order=Ordering.ASCENDING))
    assert [item.id for item in oldest.data] == made[:2]
    assert await invalid(svix.endpoint.list(app, EndpointListOptions(iterator="app_x"))) == [["query", "iterator"]]


@operation("v1.endpoint.list")
async def test_list_of_an_application_without_endpoints_is_empty(svix: SvixAsync, app: str) -> None:
    page = await svix.endpoint.list(app)
    assert (page.data, page.iterator, page.prev_iterator, page.done) == ([], None, None, True)


@operation("v1.endpoint.get")
async def test_get_finds_by_id_and_by_uid_within_the_application(svix: SvixAsync, app: str) -> None:
    made = await full(svix, app)
    assert await svix.endpoint.get(app, "full") == await svix.endpoint.get(app, made.id) == made
    assert await missing(svix.endpoint.get(app, "nowhere"))
    other = await svix.application.create(ApplicationIn(name="other"))
    assert await missing(svix.endpoint.get(other.id, made.id))


@operation("v1.endpoint.update")
async def test_update_replaces_the_whole_endpoint_but_for_its_secret_and_headers(svix: SvixAsync, app: str) -> None:
    made = await full(svix, app)
    secret = await svix.endpoint.get_secret(app, made.id)
    new = await svix.endpoint.upsert(app, "full", EndpointUpsertIn(url="https://example.com/hook?x=1"))
    assert chosen(new) == ("full", "https://example.com/hook?x=1", "", False, None, None, {}, None)
    assert (new.id, new.created_at, new.updated_at > made.updated_at) == (made.id, made.created_at, True)
    assert await svix.endpoint.get_secret(app, made.id) == secret
    assert await invalid(svix.endpoint.upsert(app, "full", EndpointUpsertIn(url="nothing"))) == [["body", "url"]]


@operation("v1.endpoint.update")
async def test_update_creates_what_is_not_there(svix: SvixAsync, app: str) -> None:
    made = await svix.endpoint.upsert(app, "put-first", EndpointUpsertIn(url=URL))
    assert await svix.endpoint.get(app, "put-first") == made


@operation("patch_endpoint")
async def test_patch_changes_what_it_names(svix: SvixAsync, app: str) -> None:
    made = await full(svix, app)
    named = await svix.endpoint.patch(app, "full", EndpointPatch(disabled=False, url=URL))
    assert chosen(named) == ("full", URL, "mine", False, ["b", "a"], ["c"], {"tier": "1"}, 7)
    nothing = EndpointPatch(uid=None, event_types=None, channels=None, throttle_rate=None)
    cleared = await svix.endpoint.patch(app, made.id, nothing)
    assert chosen(cleared) == (None, URL, "mine", False, None, None, {"tier": "1"}, None)
    assert await invalid(svix.endpoint.patch(app, made.id, EndpointPatch(url="nothing"))) == [["body", "url"]]
    assert await missing(svix.endpoint.patch(app, "full", EndpointPatch()))


@operation("v1.endpoint.delete")
async def test_delete_leaves_nothing_to_be_found(svix: SvixAsync, app: str) -> None:
    made = await full(svix, app)
    await svix.endpoint.delete(app, "full")
    assert await missing(svix.endpoint.get(app, made.id))
    assert await missing(svix.endpoint.get_secret(app, made.id))
    assert await missing(svix.endpoint.delete(app, made.id))
    assert (await svix.endpoint.list(app)).data == []
    assert (await full(svix, app)).id != made.id
