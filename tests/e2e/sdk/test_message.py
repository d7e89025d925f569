"""Messages: the reference's operations, one by one."""

import asyncio
from datetime import UTC, datetime, timedelta, timezone

import pytest
from svix.api import (
    ApplicationIn,
    EndpointIn,
    MessageCreateOptions,
    MessageGetOptions,
    MessageIn,
    MessageListOptions,
    MessageOut,
    SvixAsync,
)
from svix.api.message import message_in_raw

from tests.e2e.sdk.reference import operation
from tests.e2e.sdk.refusals import invalid, missing, refused
from tests.support.receiver import Receiver


@pytest.fixture
async def sent(svix: SvixAsync, app: str) -> list[MessageOut]:
    """Three messages of an application, the oldest first."""
    return [
        await svix.message.create(app, MessageIn(event_type=event_type, channels=channels, payload={"n": number}))
        for number, (event_type, channels) in enumerate(
            [("order.new", ["eu"]), ("order.paid", ["eu", "us"]), ("order.sent", None)]
        )
    ]


async def listed(svix: SvixAsync, app: str, options: MessageListOptions) -> list[str]:
    return [item.id for item in (await svix.message.list(app, options)).data]


@operation("v1.message.create", "with_content")
async def test_create_accepts_a_message_and_sends_it(
    svix: SvixAsync, app: str, endpoint: str, receiver: Receiver
) -> None:
    began = datetime.now(UTC)
    wanted = MessageIn(event_type="order.paid", event_id="e-1", channels=["b", "a"], payload={"order": 7})
    made = await svix.message.create(app, wanted, MessageCreateOptions(with_content=True))
    assert made.id.startswith("msg_")
    assert (made.event_type, made.event_id, made.payload) == ("order.paid", "e-1", {"order": 7})
    assert set(made.channels or []) == {"a", "b"}
    assert began <= made.timestamp <= datetime.now(UTC)
    [received] = await receiver.wait_for(1)
    assert (received.id, received.body) == (made.id, b'{"order":7}')
    bare = await svix.message.create(app, MessageIn(event_type="order.paid", payload={"order": 8}))
    assert (bare.event_id, bare.channels, bare.payload) == (None, None, {})


@operation("v1.message.create")
async def test_endpoints_get_what_they_chose_by_event_type_and_channel(
    svix: SvixAsync, app: str, receiver: Receiver
) -> None:
    for path, event_types, channels in [
        ("/paid", ["order.paid"], None),
        ("/eu", None, ["eu"]),
        ("/paid-eu", ["order.paid"], ["eu", "us"]),
        ("/all", None, None),
    ]:
        await svix.endpoint.create(app, EndpointIn(url=receiver.url(path), event_types=event_types, channels=channels))
    for event_type, on in [("order.paid", ["eu"]), ("order.paid", None), ("order.new", ["eu"]), ("order.new", ["us"])]:
        await svix.message.create(app, MessageIn(event_type=event_type, channels=on, payload={}))
    await receiver.wait_for(9)
    counts = {path: len(receiver.got(path)) for path in ("/paid", "/eu", "/paid-eu", "/all")}
    assert counts == {"/paid": 2, "/eu": 2, "/paid-eu": 1, "/all": 4}


@operation("v1.message.create")
async def test_create_takes_the_exact_body_with_its_content_type(
    svix: SvixAsync, app: str, endpoint: str, receiver: Receiver
) -> None:
    await svix.message.create(app, message_in_raw("ping", "a, b", content_type="text/csv"))
    [received] = await receiver.wait_for(1)
    assert (received.body, received.headers["Content-Type"]) == (b"a, b", "text/csv")


@operation("v1.message.create")
async def test_create_creates_the_application_that_it_brings_along(svix: SvixAsync) -> None:
    for name in ("first", "second"):
        brought = MessageIn(event_type="ping", payload={}, application=ApplicationIn(name=name, uid="with-message"))
        await svix.message.create("with-message", brought)
    assert (await svix.application.get("with-message")).name == "first"
    assert len((await svix.message.list("with-message")).data) == 2
    assert await missing(svix.message.create("nowhere", MessageIn(event_type="ping", payload={})))


@operation("v1.message.create")
async def test_an_event_id_counts_once_in_its_application(svix: SvixAsync, app: str) -> None:
    await svix.message.create(app, MessageIn(event_type="ping", event_id="once", payload={}))
    again = MessageIn(event_type="ping", event_id="once", payload={})
    assert await refused(svix.message.create(app, again), 409) == "conflict"


@operation("v1.message.create", "idempotency-key")
async def test_create_repeated_under_one_key_sends_once(
    svix: SvixAsync, app: str, endpoint: str, receiver: Receiver
) -> None:
    under = MessageCreateOptions(idempotency_key="message-1")
    ping = MessageIn(event_type="ping", payload={})
    made = await asyncio.gather(*(svix.message.create(app, ping, under) for _ in range(20)))
    assert len({message.id for message in made}) == 1
    other = MessageIn(event_type="ping", payload={"other": 1})
    assert await refused(svix.message.create(app, other, under), 409) == "conflict"
    last = await svix.message.create(app, other)
    assert {request.id for request in await receiver.wait_for(2)} == {made[0].id, last.id}


@operation("v1.message.create")
@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({"event_type": "a b"}, "eventType"),
        ({"event_id": "a b"}, "eventId"),
        ({"event_id": ""}, "eventId"),
        ({"channels": []}, "channels"),
        ({"channels": ["a b"]}, "channels"),
        ({"channels": [f"c{n}" for n in range(6)]}, "channels"),
        ({"payload_retention_period": 4}, "payloadRetentionPeriod"),
        ({"payload_retention_period": 91}, "payloadRetentionPeriod"),
    ],
    ids=str,
)
async def test_create_says_which_field_to_mend(svix: SvixAsync, app: str, wrong: dict[str, object], place: str) -> None:
    message = MessageIn.model_validate({"event_type": "ping", "payload": {}} | wrong)
    [found] = await invalid(svix.message.create(app, message))
    assert found[:2] == ["body", place]


@operation("v1.message.list", "limit", "iterator", "with_content")
async def test_list_goes_from_the_newest_to_the_oldest(svix: SvixAsync, app: str, sent: list[MessageOut]) -> None:
    newest = [message.id for message in reversed(sent)]
    first = await svix.message.list(app, MessageListOptions(limit=2, with_content=True))
    assert ([item.id for item in first.data], first.done) == (newest[:2], False)
    assert [item.payload for item in first.data] == [{"n": 2}, {"n": 1}]
    assert (first.iterator, first.prev_iterator) == (newest[1], f"-{newest[0]}")
    second = await svix.message.list(app, MessageListOptions(limit=2, iterator=first.iterator, with_content=False))
    assert ([(item.id, item.payload) for item in second.data], second.done) == ([(newest[2], {})], True)
    assert await listed(svix, app, MessageListOptions(iterator=second.prev_iterator)) == newest[:2]
    assert await missing(svix.message.list("nowhere"))


@operation("v1.message.list", "channel", "event_types")
async def test_list_shows_a_channel_or_event_types(svix: SvixAsync, app: str, sent: list[MessageOut]) -> None:
    new, paid, shipped = (message.id for message in sent)
    assert await listed(svix, app, MessageListOptions(channel="eu")) == [paid, new]
    assert await listed(svix, app, MessageListOptions(channel="asia")) == []
    assert await listed(svix, app, MessageListOptions(event_types=["order.sent", "order.new"])) == [shipped, new]
    assert await listed(svix, app, MessageListOptions(event_types=["order.new"], channel="us")) == []


@operation("v1.message.list", "before", "after")
async def test_list_shows_a_time_unless_an_iterator_is_given(svix: SvixAsync, app: str, sent: list[MessageOut]) -> None:
    new, paid, shipped = (message.id for message in sent)
    assert await listed(svix, app, MessageListOptions(before=sent[2].timestamp)) == [paid, new]
    assert await listed(svix, app, MessageListOptions(after=sent[0].timestamp)) == [shipped, paid]
    assert await listed(svix, app, MessageListOptions(after=sent[2].timestamp)) == []
    elsewhere = sent[2].timestamp.astimezone(timezone(timedelta(hours=2)))
    assert await listed(svix, app, MessageListOptions(before=elsewhere)) == [paid, new]
    passed_over = MessageListOptions(before=sent[0].timestamp, iterator=shipped)
    assert await listed(svix, app, passed_over) == [paid, new]


@operation("v1.message.get", "with_content")
async def test_get_finds_by_id_and_by_event_id(svix: SvixAsync, app: str) -> None:
    wanted = MessageIn(event_type="ping", event_id="e-2", payload={"a": 1})
    made = await svix.message.create(app, wanted)
    content = MessageGetOptions(with_content=True)
    found = await svix.message.get(app, made.id, content)
    assert (found.id, found.event_id, found.payload, found.timestamp) == (made.id, "e-2", {"a": 1}, made.timestamp)
    assert await svix.message.get(app, "e-2", content) == found
    assert (await svix.message.get(app, made.id, MessageGetOptions(with_content=False))).payload == {}
    assert await missing(svix.message.get(app, "nowhere"))
    other = await svix.application.create(ApplicationIn(name="other"))
    assert await missing(svix.message.get(other.id, made.id))


@operation("v1.message.expunge-content")
async def test_expunge_content_erases_the_payload(svix: SvixAsync, app: str, endpoint: str, receiver: Receiver) -> None:
    made = await svix.message.create(app, MessageIn(event_type="ping", payload={"secret": 1}))
    await receiver.wait_for(1)
    for _ in range(2):
        await svix.message.expunge_content(app, made.id)
    assert (await svix.message.get(app, made.id, MessageGetOptions(with_content=True))).payload == {"expired": True}
    assert await refused(svix.message_attempt.resend(app, made.id, endpoint), 409) == "conflict"
    assert await missing(svix.message.expunge_content(app, "nowhere"))
