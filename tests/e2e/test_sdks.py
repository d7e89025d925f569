"""Other people's libraries, unchanged, against the front door alone."""

import asyncio
from collections.abc import Sequence

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from svix.api import (
    ApplicationListOptions,
    EndpointListOptions,
    EventTypeListOptions,
    MessageGetOptions,
    Svix,
    SvixAsync,
    SvixOptions,
)
from svix.exceptions import HttpError, HTTPValidationError
from svix.models import (
    ApplicationIn,
    ApplicationPatch,
    EndpointIn,
    EndpointPatch,
    EndpointSecretRotateIn,
    EventTypeIn,
    MessageAttemptOut,
    MessageIn,
)

from tests.support.patience import eventually
from tests.support.platform import Platform
from tests.support.receiver import Receiver

FINAL = {0, 2}  # success and fail, as the API numbers them


@pytest.fixture
def svix(platform: Platform) -> SvixAsync:
    """The official SDK, given nothing but a key and the front door's URL."""
    return SvixAsync(platform.key, SvixOptions(server_url=platform.url))


async def attempts_of(svix: SvixAsync, app: str, message: str, count: int) -> Sequence[MessageAttemptOut]:
    """The attempts at a message, once there are `count` that have ended; the newest first."""
    found = await eventually(
        lambda: svix.message_attempt.list_by_msg(app, message),
        lambda page: sum(attempt.status in FINAL for attempt in page.data) >= count,
    )
    return found.data


async def test_svix_creates_sends_and_lists_attempts(svix: SvixAsync, receiver: Receiver) -> None:
    app = await svix.application.create(ApplicationIn(name="Shop", uid="shop-1"))
    wanted = EndpointIn(url=receiver.url("/hooks"), event_types=["order.completed"])
    endpoint = await svix.endpoint.create(app.id, wanted)
    payload = {"type": "order.completed", "data": {"order": 7}}
    message = await svix.message.create("shop-1", MessageIn(event_type="order.completed", payload=payload))

    [received] = await receiver.wait_for(1)
    assert received.id == message.id

    [attempt] = await attempts_of(svix, app.id, message.id, 1)
    assert (attempt.status, attempt.response_status_code) == (0, 200)
    assert (attempt.endpoint_id, attempt.msg_id) == (endpoint.id, message.id)
    assert (await svix.message_attempt.get(app.id, message.id, attempt.id)).id == attempt.id
    assert [item.id for item in (await svix.message_attempt.list_by_endpoint(app.id, endpoint.id)).data] == [attempt.id]
    destinations = await svix.message_attempt.list_attempted_destinations(app.id, message.id)
    assert [destination.id for destination in destinations.data] == [endpoint.id]
    stored = await svix.message.get(app.id, message.id, MessageGetOptions(with_content=True))
    assert stored.payload == payload


async def test_svix_sees_each_failed_attempt(svix: SvixAsync, receiver: Receiver) -> None:
    app = await svix.application.create(ApplicationIn(name="Shop"))
    await svix.endpoint.create(app.id, EndpointIn(url=receiver.script("/refuses", 400)))
    message = await svix.message.create(app.id, MessageIn(event_type="ping", payload={}))
    [attempt] = await attempts_of(svix, app.id, message.id, 1)
    assert (attempt.status, attempt.response_status_code) == (2, 400)


async def test_svix_manages_applications(svix: SvixAsync) -> None:
    created = await svix.application.create(ApplicationIn(name="One", uid="managed", metadata={"plan": "free"}))
    assert (await svix.application.get("managed")).id == created.id
    assert (await svix.application.get_or_create(ApplicationIn(name="Other", uid="managed"))).name == "One"
    patched = await svix.application.patch("managed", ApplicationPatch(name="Two"))
    assert (patched.name, patched.metadata) == ("Two", {"plan": "free"})
    assert (await svix.application.upsert("managed", ApplicationIn(name="Three", uid="managed"))).name == "Three"
    listed = await svix.application.list(ApplicationListOptions(limit=250))
    assert created.id in [item.id for item in listed.data]
    await svix.application.delete("managed")
    with pytest.raises(HttpError) as gone:
        await svix.application.get("managed")
    assert gone.value.status_code == 404


async def test_svix_manages_endpoints(svix: SvixAsync, receiver: Receiver) -> None:
    app = (await svix.application.create(ApplicationIn(name="Shop"))).id
    first = await svix.endpoint.create(app, EndpointIn(url=receiver.url("/one"), uid="first", description="mine"))
    second = await svix.endpoint.create(app, EndpointIn(url=receiver.url("/two")))
    assert (await svix.endpoint.get(app, "first")).description == "mine"
    page = await svix.endpoint.list(app, EndpointListOptions(limit=1))
    assert ([item.id for item in page.data], page.done) == ([second.id], False)
    rest = await svix.endpoint.list(app, EndpointListOptions(limit=1, iterator=page.iterator))
    assert ([item.id for item in rest.data], rest.done) == ([first.id], True)
    assert (await svix.endpoint.patch(app, "first", EndpointPatch(disabled=True))).disabled
    await svix.endpoint.delete(app, second.id)
    assert [item.id for item in (await svix.endpoint.list(app)).data] == [first.id]


async def test_svix_rotates_a_secret_and_both_sign_for_a_while(svix: SvixAsync, receiver: Receiver) -> None:
    app = (await svix.application.create(ApplicationIn(name="Shop"))).id
    endpoint = (await svix.endpoint.create(app, EndpointIn(url=receiver.url()))).id
    old = (await svix.endpoint.get_secret(app, endpoint)).key
    await svix.endpoint.rotate_secret(app, endpoint, EndpointSecretRotateIn())
    new = (await svix.endpoint.get_secret(app, endpoint)).key
    assert new != old
    await svix.message.create(app, MessageIn(event_type="ping", payload={"a": 1}))
    [received] = await receiver.wait_for(1)
    for secret in (old, new):
        assert Webhook(secret).verify(received.body, dict(received.headers)) == {"a": 1}
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + "A" * 32).verify(received.body, dict(received.headers))


async def test_svix_manages_event_types(svix: SvixAsync) -> None:
    await svix.event_type.create(EventTypeIn(name="order.completed", description="An order is paid."))
    assert (await svix.event_type.get("order.completed")).description == "An order is paid."
    listed = await svix.event_type.list(EventTypeListOptions(limit=250))
    assert "order.completed" in [item.name for item in listed.data]


async def test_svix_understands_our_refusals(svix: SvixAsync, platform: Platform) -> None:
    app = (await svix.application.create(ApplicationIn(name="Shop", uid="refusals"))).id
    with pytest.raises(HttpError) as conflict:
        await svix.application.create(ApplicationIn(name="Again", uid="refusals"))
    assert (conflict.value.status_code, conflict.value.code) == (409, "conflict")
    with pytest.raises(HTTPValidationError) as bad:
        await svix.endpoint.create(app, EndpointIn(url="not a url"))
    assert bad.value.status_code == 422
    stranger = SvixAsync("hlk_nobody", SvixOptions(server_url=platform.url))
    with pytest.raises(HttpError) as unknown:
        await stranger.application.list()
    assert unknown.value.status_code == 401


async def test_the_sdk_without_async_works_too(platform: Platform, receiver: Receiver) -> None:
    def use() -> str:
        svix = Svix(platform.key, SvixOptions(server_url=platform.url))
        app = svix.application.create(ApplicationIn(name="Shop")).id
        svix.endpoint.create(app, EndpointIn(url=receiver.url()))
        return svix.message.create(app, MessageIn(event_type="ping", payload={})).id

    message = await asyncio.to_thread(use)
    [received] = await receiver.wait_for(1)
    assert received.id == message
