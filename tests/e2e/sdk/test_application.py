"""Applications: the reference's operations, one by one."""

import asyncio
from datetime import UTC, datetime

from svix.api import (
    ApplicationIn,
    ApplicationListOptions,
    ApplicationPatch,
    EndpointIn,
    Ordering,
    Svix,
    SvixAsync,
    SvixOptions,
)
from svix.api.application import ApplicationCreateOptions

from tests.e2e.sdk.reference import operation
from tests.e2e.sdk.refusals import invalid, missing, refused
from tests.support.platform import Platform


@operation("v1.application.create")
async def test_create_answers_with_the_application(svix: SvixAsync) -> None:
    began = datetime.now(UTC)
    made = await svix.application.create(
        ApplicationIn(name="Acme", uid="acme", metadata={"plan": "gold"}, throttle_rate=100)
    )
    assert made.id.startswith("app_")
    assert (made.name, made.uid, made.metadata, made.throttle_rate) == ("Acme", "acme", {"plan": "gold"}, 100)
    assert began <= made.created_at == made.updated_at <= datetime.now(UTC)
    bare = await svix.application.create(ApplicationIn(name="bare"))
    assert (bare.uid, bare.metadata, bare.throttle_rate) == (None, {}, None)


@operation("v1.application.create")
async def test_create_refuses_a_uid_that_is_taken(svix: SvixAsync) -> None:
    await svix.application.create(ApplicationIn(name="first", uid="taken"))
    assert await refused(svix.application.create(ApplicationIn(name="second", uid="taken")), 409) == "conflict"


@operation("v1.application.create")
async def test_create_says_which_field_to_mend(svix: SvixAsync) -> None:
    assert await invalid(svix.application.create(ApplicationIn(name=""))) == [["body", "name"]]
    assert await invalid(svix.application.create(ApplicationIn(name="a", uid="a b"))) == [["body", "uid"]]
    wrong_rate = ApplicationIn(name="a", throttle_rate=0)
    assert await invalid(svix.application.create(wrong_rate)) == [["body", "throttleRate"]]


@operation("v1.application.create", "get_if_exists")
async def test_get_or_create_creates_once(svix: SvixAsync) -> None:
    first = await svix.application.get_or_create(ApplicationIn(name="first", uid="once"))
    assert await svix.application.get_or_create(ApplicationIn(name="second", uid="once")) == first


@operation("v1.application.create", "idempotency-key")
async def test_create_repeated_under_one_key_makes_one(svix: SvixAsync) -> None:
    under = ApplicationCreateOptions(idempotency_key="application-1")
    first = await svix.application.create(ApplicationIn(name="keyed"), under)
    assert await svix.application.create(ApplicationIn(name="keyed"), under) == first
    assert await refused(svix.application.create(ApplicationIn(name="other"), under), 409) == "conflict"


@operation("v1.application.list", "limit", "iterator", "order")
async def test_list_goes_through_applications_in_the_order_of_their_creation(svix: SvixAsync) -> None:
    made = [(await svix.application.create(ApplicationIn(name=f"listed {n}"))).id for n in range(5)]
    newest = await svix.application.list(ApplicationListOptions(limit=5, order=Ordering.DESCENDING))
    assert ([item.id for item in newest.data], newest.done) == (made[::-1], False)

    first = await svix.application.list(ApplicationListOptions(limit=2, iterator=made[0]))
    assert [item.id for item in first.data] == made[1:3]
    assert (first.iterator, first.prev_iterator, first.done) == (made[2], f"-{made[1]}", False)
    last = await svix.application.list(ApplicationListOptions(limit=2, iterator=first.iterator))
    assert ([item.id for item in last.data], last.done) == (made[3:], True)
    back = await svix.application.list(ApplicationListOptions(limit=2, iterator=last.prev_iterator))
    assert [item.id for item in back.data] == made[1:3]
    ascending = await svix.application.list(ApplicationListOptions(iterator=made[0], order=Ordering.ASCENDING))
    assert [item.id for item in ascending.data] == made[1:]


@operation("v1.application.list", "limit", "iterator")
async def test_list_refuses_what_is_no_page(svix: SvixAsync) -> None:
    for options, place in [
        (ApplicationListOptions(limit=251), "limit"),
        (ApplicationListOptions(iterator="app_nothing"), "iterator"),
    ]:
        assert await invalid(svix.application.list(options)) == [["query", place]]


@operation("v1.application.get")
async def test_get_finds_by_id_and_by_uid(svix: SvixAsync) -> None:
    made = await svix.application.create(ApplicationIn(name="found", uid="found"))
    assert await svix.application.get("found") == await svix.application.get(made.id) == made
    assert await missing(svix.application.get("nowhere"))
    assert await missing(svix.application.get("app_1srOrx2ZWZBpBUvZwXKQmoEYga2"))


@operation("v1.application.update")
async def test_update_replaces_the_whole_application(svix: SvixAsync) -> None:
    made = await svix.application.create(
        ApplicationIn(name="old", uid="replaced", metadata={"a": "1"}, throttle_rate=5)
    )
    new = await svix.application.upsert("replaced", ApplicationIn(name="new"))
    assert (new.id, new.name, new.uid, new.metadata, new.throttle_rate) == (made.id, "new", "replaced", {}, None)
    assert (new.created_at, new.updated_at > made.updated_at) == (made.created_at, True)
    renamed = await svix.application.upsert(made.id, ApplicationIn(name="new", uid="renamed"))
    assert (renamed.id, (await svix.application.get("renamed")).id) == (made.id, made.id)
    assert await missing(svix.application.get("replaced"))


@operation("v1.application.update")
async def test_update_creates_what_is_not_there(svix: SvixAsync) -> None:
    made = await svix.application.upsert("put-first", ApplicationIn(name="new"))
    assert (await svix.application.get("put-first")) == made


@operation("v1.application.update")
async def test_update_refuses_the_uid_of_another(svix: SvixAsync) -> None:
    await svix.application.create(ApplicationIn(name="a", uid="held"))
    other = await svix.application.create(ApplicationIn(name="b"))
    assert await refused(svix.application.upsert(other.id, ApplicationIn(name="b", uid="held")), 409) == "conflict"


@operation("patch_application")
async def test_patch_changes_what_it_names(svix: SvixAsync) -> None:
    made = await svix.application.create(ApplicationIn(name="old", uid="patched", metadata={"a": "1"}, throttle_rate=5))
    named = await svix.application.patch("patched", ApplicationPatch(name="new"))
    assert (named.id, named.name, named.metadata, named.throttle_rate) == (made.id, "new", {"a": "1"}, 5)
    cleared = await svix.application.patch(made.id, ApplicationPatch(uid=None, throttle_rate=None, metadata={}))
    assert (cleared.name, cleared.uid, cleared.throttle_rate, cleared.metadata) == ("new", None, None, {})
    assert await missing(svix.application.patch("patched", ApplicationPatch(name="x")))


@operation("v1.application.delete")
async def test_delete_takes_its_endpoints_along_and_frees_the_uid(svix: SvixAsync) -> None:
    made = await svix.application.create(ApplicationIn(name="short", uid="short"))
    endpoint = await svix.endpoint.create("short", EndpointIn(url="http://localhost/"))
    await svix.application.delete("short")
    assert await missing(svix.application.get(made.id))
    assert await missing(svix.endpoint.get(made.id, endpoint.id))
    assert await missing(svix.application.delete(made.id))
    assert (await svix.application.create(ApplicationIn(name="again", uid="short"))).id != made.id


@operation("v1.application.list")
async def test_a_key_that_nobody_has_is_401(platform: Platform) -> None:
    stranger = SvixAsync("hlk_nobody", SvixOptions(server_url=platform.url))
    assert await refused(stranger.application.list(), 401) == "authentication_failed"


@operation("v1.application.create")
async def test_the_sdk_without_async_works_too(platform: Platform) -> None:
    def use() -> str:
        return Svix(platform.key, SvixOptions(server_url=platform.url)).application.create(ApplicationIn(name="a")).id

    assert (await asyncio.to_thread(use)).startswith("app_")
