"""Attempts: the reference's operations, one by one."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from svix.api import (
    EndpointIn,
    MessageAttemptListByEndpointOptions,
    MessageAttemptListByMsgOptions,
    MessageIn,
    SvixAsync,
)
from svix.api.message_attempt import MessageAttemptResendOptions
from svix.models import MessageAttemptTriggerType, MessageStatus, MessageStatusText, StatusCodeClass

from tests.e2e.sdk.reference import operation
from tests.e2e.sdk.refusals import invalid, missing
from tests.e2e.sdk.story import FAIL, PENDING, REPLIES, SENDING, SUCCESS, Story
from tests.support.patience import eventually
from tests.support.receiver import Receiver, Reply

# What an attempt says


@operation("v1.message-attempt.get")
async def test_an_attempt_says_what_was_answered_and_when(story: Story) -> None:
    [listed] = await story.at("good", limit=1, with_content=True)
    attempt = await story.svix.message_attempt.get(story.app, listed.msg_id, listed.id)
    assert attempt == listed
    assert attempt.id.startswith("atmpt_")
    assert (attempt.status, attempt.status_text) == (SUCCESS, MessageStatusText.SUCCESS)
    assert (attempt.response_status_code, attempt.response) == (200, "thank you")
    assert attempt.url == story.endpoints["good"].url
    assert attempt.trigger_type is MessageAttemptTriggerType.SCHEDULED
    assert 0 <= attempt.response_duration_ms < 30_000
    assert story.messages[-1].timestamp <= attempt.timestamp <= datetime.now(UTC)


@operation("v1.message-attempt.get")
async def test_an_attempt_is_found_under_its_message_only(story: Story) -> None:
    [attempt] = await story.at("good", limit=1)
    assert (await story.svix.message_attempt.get(story.app, "e-3", attempt.id)).id == attempt.id
    for app, message, identity in [
        (story.app, story.messages[0].id, attempt.id),
        (story.app, attempt.msg_id, "atmpt_nothing"),
        (story.app, "nowhere", attempt.id),
        ("nowhere", attempt.msg_id, attempt.id),
    ]:
        assert await missing(story.svix.message_attempt.get(app, message, identity))


@operation("v1.message-attempt.list-by-msg")
async def test_each_way_to_end_has_its_status_and_code(story: Story) -> None:
    by_name = {name: attempt for attempt in await story.of(0) for name in story.names([attempt])}
    assert {name: (attempt.status, attempt.response_status_code) for name, attempt in by_name.items()} == {
        "good": (SUCCESS, 200),
        "refusing": (FAIL, 400),
        "overloaded": (FAIL, 503),
        "silent": (FAIL, 0),
    }


@operation("v1.message-attempt.get")
@operation("v1.message-attempt.list-by-endpoint", "status", "status_code_class")
@operation("v1.message-attempt.list-by-msg", "status", "status_code_class")
async def test_an_attempt_under_way_is_listed_as_sending(svix: SvixAsync, app: str, receiver: Receiver) -> None:
    endpoint = (await svix.endpoint.create(app, EndpointIn(url=receiver.script("/", then=Reply(hang=True))))).id
    message = (await svix.message.create(app, MessageIn(event_type="ping", payload={}))).id
    await receiver.wait_for(1)
    of_message = MessageAttemptListByMsgOptions(status=SENDING, status_code_class=StatusCodeClass.CODE_NONE)
    page = await eventually(
        lambda: svix.message_attempt.list_by_msg(app, message, of_message), lambda page: len(page.data) == 1
    )
    [attempt] = page.data
    assert (attempt.status_text, attempt.response_status_code, attempt.response) == (MessageStatusText.SENDING, 0, "")
    assert await svix.message_attempt.get(app, message, attempt.id) == attempt
    at_endpoint = MessageAttemptListByEndpointOptions(status=SENDING, status_code_class=StatusCodeClass.CODE_NONE)
    assert (await svix.message_attempt.list_by_endpoint(app, endpoint, at_endpoint)).data == [attempt]
    [destination] = (await svix.message_attempt.list_attempted_destinations(app, message)).data
    assert (destination.status, destination.next_attempt) == (SENDING, None)
    [attempted] = (await svix.message_attempt.list_attempted_messages(app, endpoint)).data
    assert (attempted.status, attempted.next_attempt) == (SENDING, None)


# Lists of attempts


@operation("v1.message-attempt.list-by-endpoint", "limit", "iterator")
async def test_attempts_at_an_endpoint_are_paged_from_the_newest(story: Story) -> None:
    everything = [attempt.id for attempt in await story.at("good")]
    assert everything == sorted(everything, reverse=True)
    operations, endpoint = story.svix.message_attempt, story.endpoints["good"].id
    first = await operations.list_by_endpoint(story.app, endpoint, MessageAttemptListByEndpointOptions(limit=2))
    assert ([attempt.id for attempt in first.data], first.done) == (everything[:2], False)
    assert (first.iterator, first.prev_iterator) == (everything[1], f"-{everything[0]}")
    options = MessageAttemptListByEndpointOptions(limit=2, iterator=first.iterator)
    second = await operations.list_by_endpoint(story.app, endpoint, options)
    assert ([attempt.id for attempt in second.data], second.done) == (everything[2:], True)
    back = await story.at("good", limit=2, iterator=second.prev_iterator)
    assert [attempt.id for attempt in back] == everything[:2]
    assert (await operations.list_by_endpoint(story.app, "good")).data == await story.at("good")
    assert await missing(operations.list_by_endpoint(story.app, "nowhere"))


@operation("v1.message-attempt.list-by-endpoint", "status", "status_code_class")
@pytest.mark.parametrize(
    ("name", "status", "code_class"),
    [
        ("good", SUCCESS, StatusCodeClass.CODE2XX),
        ("refusing", FAIL, StatusCodeClass.CODE4XX),
        ("overloaded", FAIL, StatusCodeClass.CODE5XX),
        ("silent", FAIL, StatusCodeClass.CODE_NONE),
    ],
)
async def test_attempts_at_an_endpoint_by_status_and_class_of_status_code(
    story: Story, name: str, status: MessageStatus, code_class: StatusCodeClass
) -> None:
    counts = {each: len(await story.at(name, status=each)) for each in (SUCCESS, PENDING, FAIL, SENDING)}
    assert counts == {each: 3 if each is status else 0 for each in counts}
    classes = {each: len(await story.at(name, status_code_class=each)) for each in StatusCodeClass}
    assert classes == {each: 3 if each is code_class else 0 for each in classes}
    assert len(await story.at(name, status=status, status_code_class=code_class)) == 3


@operation("v1.message-attempt.list-by-endpoint", "channel", "event_types")
async def test_attempts_at_an_endpoint_by_channel_and_event_type(story: Story) -> None:
    cases: list[tuple[dict[str, Any], set[int]]] = [
        ({"channel": "eu"}, {0, 1}),
        ({"channel": "us"}, {1}),
        ({"event_types": ["order.new", "order.sent"]}, {0, 2}),
        ({"event_types": ["order.new"], "channel": "us"}, set()),
    ]
    for options, expected in cases:
        found = await story.at("good", **options)
        assert set(story.numbers([attempt.msg_id for attempt in found])) == expected


@operation("v1.message-attempt.list-by-endpoint", "before", "after", "with_content")
async def test_attempts_at_an_endpoint_by_time_and_without_the_answer(story: Story) -> None:
    newest, middle, oldest = await story.at("good", with_content=True)
    assert {attempt.response for attempt in (newest, middle, oldest)} == {"thank you"}
    assert [item.id for item in await story.at("good", before=newest.timestamp)] == [middle.id, oldest.id]
    assert [item.id for item in await story.at("good", after=oldest.timestamp)] == [newest.id, middle.id]
    between = await story.at("good", after=oldest.timestamp, before=newest.timestamp)
    assert [item.id for item in between] == [middle.id]
    assert {item.response for item in await story.at("good", with_content=False)} == {""}


@operation("v1.message-attempt.list-by-msg", "limit", "iterator", "endpoint_id")
async def test_attempts_of_a_message_are_paged_or_at_one_endpoint(story: Story) -> None:
    everything = [attempt.id for attempt in await story.of(0)]
    assert (len(everything), everything) == (len(REPLIES), sorted(everything, reverse=True))
    operations, message = story.svix.message_attempt, story.messages[0].id
    first = await operations.list_by_msg(story.app, message, MessageAttemptListByMsgOptions(limit=3))
    assert ([attempt.id for attempt in first.data], first.done) == (everything[:3], False)
    rest = await story.of(0, iterator=first.iterator)
    assert [attempt.id for attempt in rest] == everything[3:]
    assert await story.of(0, limit=3, iterator=f"-{rest[0].id}") == first.data
    assert (await operations.list_by_msg(story.app, "e-1")).data == await story.of(0)
    for endpoint in (story.endpoints["silent"].id, "silent"):
        assert story.names(await story.of(0, endpoint_id=endpoint)) == {"silent"}
    assert await missing(story.of(0, endpoint_id="nowhere"))
    assert await missing(operations.list_by_msg(story.app, "nowhere"))


@operation("v1.message-attempt.list-by-msg", "status", "status_code_class", "channel", "event_types")
async def test_attempts_of_a_message_by_what_they_came_to(story: Story) -> None:
    failed = {"refusing", "overloaded", "silent"}
    cases: list[tuple[dict[str, Any], set[str]]] = [
        ({"status": SUCCESS}, {"good"}),
        ({"status": FAIL}, failed),
        ({"status": SENDING}, set()),
        ({"status": PENDING}, set()),
        ({"status_code_class": StatusCodeClass.CODE5XX}, {"overloaded"}),
        ({"status_code_class": StatusCodeClass.CODE_NONE}, {"silent"}),
        ({"status_code_class": StatusCodeClass.CODE_NONE, "status": FAIL}, {"silent"}),
        ({"channel": "eu", "status": FAIL}, failed),
        ({"channel": "us"}, set()),
        ({"event_types": ["order.new", "order.paid"]}, set(REPLIES)),
        ({"event_types": ["order.paid"]}, set()),
    ]
    for options, expected in cases:
        assert story.names(await story.of(0, **options)) == expected, options


@operation("v1.message-attempt.list-by-msg", "before", "after", "with_content")
async def test_attempts_of_a_message_by_time_and_without_the_answer(story: Story) -> None:
    [attempt] = await story.of(0, endpoint_id="good", with_content=True)
    assert attempt.response == "thank you"
    moment = timedelta(microseconds=1)
    cases: list[tuple[dict[str, Any], set[str]]] = [
        ({"before": attempt.timestamp}, set()),
        ({"before": attempt.timestamp + moment}, {"good"}),
        ({"after": attempt.timestamp}, set()),
        ({"after": attempt.timestamp - moment}, {"good"}),
    ]
    for options, expected in cases:
        assert story.names(await story.of(0, endpoint_id="good", **options)) == expected, options
    assert {item.response for item in await story.of(0, with_content=False)} == {""}


@operation("v1.message-attempt.list-by-msg", "status")
@operation("v1.message-attempt.list-by-endpoint", "iterator")
async def test_what_is_no_filter_is_refused(story: Story) -> None:
    assert await invalid(story.of(0, status=9)) == [["query", "status"]]
    assert await invalid(story.at("good", status_code_class=250)) == [["query", "status_code_class"]]
    assert await invalid(story.at("good", limit=0)) == [["query", "limit"]]
    assert await invalid(story.at("good", iterator="msg_x")) == [["query", "iterator"]]


# Once more, and erased


@operation("v1.message-attempt.resend", "idempotency-key")
async def test_resend_makes_one_more_attempt_by_hand(svix: SvixAsync, app: str, receiver: Receiver) -> None:
    endpoint = (await svix.endpoint.create(app, EndpointIn(url=receiver.script("/", 400)))).id
    message = (await svix.message.create(app, MessageIn(event_type="ping", payload={"a": 1}))).id
    await receiver.wait_for(1)
    under = MessageAttemptResendOptions(idempotency_key="resend-1")
    for _ in range(2):
        await svix.message_attempt.resend(app, message, endpoint, under)
    await receiver.wait_for(2)
    page = await eventually(
        lambda: svix.message_attempt.list_by_msg(app, message),
        lambda page: [attempt.status for attempt in page.data] == [SUCCESS, FAIL],
    )
    assert [attempt.trigger_type for attempt in page.data] == [
        MessageAttemptTriggerType.MANUAL,
        MessageAttemptTriggerType.SCHEDULED,
    ]
    assert {request.id for request in receiver.got()} == {message}
    assert await missing(svix.message_attempt.resend(app, "nowhere", endpoint))
    assert await missing(svix.message_attempt.resend(app, message, "nowhere"))


@operation("v1.message-attempt.expunge-content")
async def test_expunge_content_erases_the_answer_and_leaves_the_attempt(
    svix: SvixAsync, app: str, receiver: Receiver
) -> None:
    url = receiver.script("/", then=Reply(body=b"a secret"))
    await svix.endpoint.create(app, EndpointIn(url=url))
    message = (await svix.message.create(app, MessageIn(event_type="ping", payload={}))).id
    with_content = MessageAttemptListByMsgOptions(with_content=True, status=SUCCESS)
    page = await eventually(
        lambda: svix.message_attempt.list_by_msg(app, message, with_content), lambda page: len(page.data) == 1
    )
    [attempt] = page.data
    assert attempt.response == "a secret"
    for _ in range(2):
        await svix.message_attempt.expunge_content(app, message, attempt.id)
    again = await svix.message_attempt.get(app, message, attempt.id)
    assert (again.response, again.response_status_code, again.status) == ("EXPUNGED", 200, SUCCESS)
    assert await missing(svix.message_attempt.expunge_content(app, message, "atmpt_nothing"))
