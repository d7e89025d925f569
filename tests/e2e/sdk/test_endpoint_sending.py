"""Sending to one endpoint by hand: recover, replay, examples; and the statistics of what was sent."""

from datetime import UTC, datetime, timedelta

from svix.api import (
    EndpointGetStatsOptions,
    EndpointIn,
    EndpointPatch,
    EventExampleIn,
    EventTypeIn,
    MessageIn,
    RecoverIn,
    ReplayIn,
    SvixAsync,
)
from svix.api.endpoint import (
    EndpointRecoverOptions,
    EndpointReplayMissingOptions,
    EndpointSendExampleOptions,
)
from svix.models import (
    BackgroundTaskStatus,
    BackgroundTaskType,
    EndpointStats,
    MessageAttemptTriggerType,
)

from tests.e2e.sdk.reference import operation
from tests.e2e.sdk.refusals import invalid, missing, refused
from tests.support.client import Client
from tests.support.patience import eventually
from tests.support.receiver import Receiver


def since(**ago: float) -> datetime:
    return datetime.now(UTC) - timedelta(**ago)


# Sending again


@operation("v1.endpoint.recover", "idempotency-key")
@operation("v1.background-task.get")
async def test_recover_sends_what_failed_once_more(
    svix: SvixAsync, client: Client, receiver: Receiver, app: str
) -> None:
    endpoint = (await client.create_endpoint(app, receiver.script("/", 400))).id
    sent = await svix.message.create(app, MessageIn(event_type="ping", payload={}))
    await client.settled(app, 1)
    await svix.message.create(app, MessageIn(event_type="ping", payload={}))
    await client.settled(app, 2)

    asked, under = RecoverIn(since=since(hours=1)), EndpointRecoverOptions(idempotency_key="recovery-1")
    task = await svix.endpoint.recover(app, endpoint, asked, under)
    assert (task.task, task.status) == (BackgroundTaskType.ENDPOINT_RECOVER, BackgroundTaskStatus.RUNNING)
    assert await svix.endpoint.recover(app, endpoint, asked, under) == task
    assert (await receiver.wait_for(3))[2].id == sent.id
    await eventually(
        lambda: svix.background_task.get(task.id), lambda found: found.status is BackgroundTaskStatus.FINISHED
    )
    await client.settled(app, 2)  # the receiver hears of an attempt before its outcome is committed
    [again, first] = (await svix.message_attempt.list_by_msg(app, sent.id)).data
    assert (again.trigger_type, again.status) == (MessageAttemptTriggerType.MANUAL, 0)
    assert (first.trigger_type, first.status) == (MessageAttemptTriggerType.SCHEDULED, 2)
    assert await missing(svix.background_task.get("nothing"))


@operation("v1.endpoint.recover")
async def test_recover_reaches_back_two_weeks(svix: SvixAsync, app: str, endpoint: str) -> None:
    too_old = RecoverIn(since=since(days=14, minutes=1))
    assert await invalid(svix.endpoint.recover(app, endpoint, too_old)) == [["body", "since"]]
    backwards = RecoverIn(since=since(days=1), until=since(days=2))
    assert (await invalid(svix.endpoint.recover(app, endpoint, backwards)))[0][0] == "body"
    assert await missing(svix.endpoint.recover(app, "nowhere", RecoverIn(since=since(days=1))))


@operation("v1.endpoint.replay-missing", "idempotency-key")
async def test_replay_missing_sends_what_was_never_sent_there(svix: SvixAsync, receiver: Receiver, app: str) -> None:
    await svix.endpoint.create(app, EndpointIn(url=receiver.url("/first")))
    sent = await svix.message.create(app, MessageIn(event_type="ping", payload={}))
    await receiver.wait_for(1, "/first")
    later = (await svix.endpoint.create(app, EndpointIn(url=receiver.url("/later")))).id
    under = EndpointReplayMissingOptions(idempotency_key="replay-1")
    asked = ReplayIn(since=since(hours=1))
    task = await svix.endpoint.replay_missing(app, later, asked, under)
    assert task.task is BackgroundTaskType.ENDPOINT_REPLAY
    assert await svix.endpoint.replay_missing(app, later, asked, under) == task
    assert [request.id for request in await receiver.wait_for(1, "/later")] == [sent.id]


@operation("v1.endpoint.recover")
@operation("v1.endpoint.replay-missing")
async def test_nothing_is_sent_again_to_a_disabled_endpoint(svix: SvixAsync, app: str, endpoint: str) -> None:
    await svix.endpoint.patch(app, endpoint, EndpointPatch(disabled=True))
    for asked in (
        svix.endpoint.recover(app, endpoint, RecoverIn(since=since(hours=1))),
        svix.endpoint.replay_missing(app, endpoint, ReplayIn(since=since(hours=1))),
    ):
        assert await refused(asked, 409) == "conflict"


# Examples


@operation("v1.endpoint.send-example", "idempotency-key")
async def test_send_example_sends_one_message_there_alone(svix: SvixAsync, receiver: Receiver, app: str) -> None:
    schema = {"type": "object", "examples": [{"total": 5}]}
    await svix.event_type.create(EventTypeIn(name="example.sent", description="", schemas={"1": schema}))
    await svix.endpoint.create(app, EndpointIn(url=receiver.url("/other")))
    endpoint = (await svix.endpoint.create(app, EndpointIn(url=receiver.url("/examples")))).id
    asked, under = EventExampleIn(event_type="example.sent"), EndpointSendExampleOptions(idempotency_key="example-1")
    made = await svix.endpoint.send_example(app, endpoint, asked, under)
    assert (made.event_type, made.payload) == ("example.sent", {"total": 5})
    assert await svix.endpoint.send_example(app, endpoint, asked, under) == made
    [received] = await receiver.wait_for(1)
    assert (received.id, received.path) == (made.id, "/examples")
    assert await missing(svix.endpoint.send_example(app, endpoint, EventExampleIn(event_type="no.such")))


# Statistics


@operation("v1.endpoint.get-stats", "since", "until")
async def test_stats_count_the_messages_at_an_endpoint_by_their_status(
    svix: SvixAsync, client: Client, receiver: Receiver, app: str
) -> None:
    endpoint = (await svix.endpoint.create(app, EndpointIn(url=receiver.script("/", 200, 200, 400)))).id
    for _ in range(3):
        await svix.message.create(app, MessageIn(event_type="ping", payload={}))
    await client.settled(app, 3)
    stats = await svix.endpoint.get_stats(app, endpoint)
    assert stats == EndpointStats(success=2, fail=1, pending=0, sending=0, canceled=0)
    within = EndpointGetStatsOptions(since=since(hours=1), until=datetime.now(UTC))
    assert await svix.endpoint.get_stats(app, endpoint, within) == stats
    before = EndpointGetStatsOptions(since=since(hours=2), until=since(hours=1))
    assert (await svix.endpoint.get_stats(app, endpoint, before)).success == 0


@operation("v1.endpoint.get-stats", "since", "until")
async def test_stats_of_more_than_four_weeks_are_refused(svix: SvixAsync, app: str, endpoint: str) -> None:
    long = EndpointGetStatsOptions(since=since(days=29), until=datetime.now(UTC))
    assert await refused(svix.endpoint.get_stats(app, endpoint, long), 400) == "invalid_range"
