"""Attempted messages and destinations: what went to an endpoint and where a message went, and how it fares there."""

from datetime import UTC, datetime, timedelta
from typing import Any

from svix.api import (
    MessageAttemptListAttemptedDestinationsOptions,
    MessageAttemptListAttemptedMessagesOptions,
)
from svix.models import MessageStatusText

from tests.e2e.sdk.reference import operation
from tests.e2e.sdk.refusals import missing
from tests.e2e.sdk.story import FAIL, PENDING, SENDING, SUCCESS, Story


@operation("v1.message-attempt.list-attempted-messages", "limit", "iterator", "with_content")
async def test_attempted_messages_say_how_they_fare_at_the_endpoint(story: Story) -> None:
    operations, endpoint = story.svix.message_attempt, story.endpoints["overloaded"].id
    wanted = MessageAttemptListAttemptedMessagesOptions(limit=2, with_content=True)
    first = await operations.list_attempted_messages(story.app, endpoint, wanted)
    assert (story.numbers([item.id for item in first.data]), first.done) == ([2, 1], False)
    message = first.data[1]
    assert (message.event_id, message.event_type, message.payload) == ("e-2", "order.paid", {"n": 2})
    assert set(message.channels or []) == {"eu", "us"}
    assert (message.status, message.status_text) == (SENDING, MessageStatusText.SENDING)
    assert message.next_attempt is not None
    assert timedelta(minutes=30) < message.next_attempt - datetime.now(UTC) < timedelta(minutes=90)

    wanted = MessageAttemptListAttemptedMessagesOptions(limit=2, iterator=first.iterator)
    second = await operations.list_attempted_messages(story.app, endpoint, wanted)
    assert ([item.payload for item in second.data], second.done) == ([{}], True)
    assert await story.attempted("overloaded", iterator=second.prev_iterator) == [2, 1]
    assert await missing(operations.list_attempted_messages(story.app, "nowhere"))


@operation("v1.message-attempt.list-attempted-messages", "status")
async def test_attempted_messages_by_status_and_one_that_waits_for_its_retry_is_being_sent(story: Story) -> None:
    for name, status in [
        ("good", SUCCESS),
        ("refusing", FAIL),
        ("overloaded", SENDING),
        ("silent", SENDING),
    ]:
        for each in (SUCCESS, PENDING, FAIL, SENDING):
            assert await story.attempted(name, status=each) == ([2, 1, 0] if each is status else [])


@operation("v1.message-attempt.list-attempted-messages", "channel", "event_types", "before", "after")
async def test_attempted_messages_by_channel_event_type_and_time(story: Story) -> None:
    oldest, _, newest = (message.timestamp for message in story.messages)
    cases: list[tuple[dict[str, Any], list[int]]] = [
        ({"channel": "eu"}, [1, 0]),
        ({"event_types": ["order.sent", "order.new"]}, [2, 0]),
        ({"event_types": ["order.sent"], "channel": "eu"}, []),
        ({"before": newest}, [1, 0]),
        ({"after": oldest}, [2, 1]),
        ({"before": oldest, "iterator": story.messages[2].id}, [1, 0]),
    ]
    for options, expected in cases:
        assert await story.attempted("good", **options) == expected, options


@operation("v1.message-attempt.list-attempted-destinations", "limit", "iterator")
async def test_attempted_destinations_say_how_the_message_fares_at_each_endpoint(story: Story) -> None:
    operations, message = story.svix.message_attempt, story.messages[0].id
    everything = (await operations.list_attempted_destinations(story.app, message)).data
    assert [item.id for item in everything] == [endpoint.id for endpoint in reversed(story.endpoints.values())]
    assert {item.uid: (item.status, item.next_attempt is not None) for item in everything} == {
        "good": (SUCCESS, False),
        "refusing": (FAIL, False),
        "overloaded": (SENDING, True),
        "silent": (SENDING, True),
    }
    assert [item.url for item in everything] == [endpoint.url for endpoint in reversed(story.endpoints.values())]
    options = MessageAttemptListAttemptedDestinationsOptions(limit=3)
    first = await operations.list_attempted_destinations(story.app, "e-1", options)
    assert (first.data, first.done) == (everything[:3], False)
    options = MessageAttemptListAttemptedDestinationsOptions(limit=3, iterator=first.iterator)
    second = await operations.list_attempted_destinations(story.app, message, options)
    assert (second.data, second.done) == (everything[3:], True)
    assert await missing(operations.list_attempted_destinations(story.app, "nowhere"))
