"""Jobs: resend, recover and replay, from the registry's row to the receiver."""

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from libs.common.contracts.registry import JobDocument, OnExhausted
from libs.common.domain.ids import Prefix, delivery_id, encode
from libs.common.domain.job import Task
from libs.common.postgres.jobs import begin_job, cancel_job, disabled_spans
from libs.common.postgres.registry import changing
from libs.common.postgres.snapshot import object_of
from services.dispatcher import history, reclaim
from services.dispatcher import jobs as working
from tests.integration.dispatcher.parts import Parts, dispatching
from tests.integration.dispatcher.world import World, until
from tests.support.receiver import Receiver, Reply

HOUR = timedelta(hours=1)
MANUAL = ["ResendRequested", "AttemptStarted", "AttemptEnded"]


async def begin(world: World, app: UUID, task: Task, endpoint: UUID, **fields: Any) -> UUID:
    """A job as the registry begins it; without a message it is about the last hour."""
    async with world.registry.acquire() as connection, changing(connection, "operator") as changes:
        if "message" not in fields:
            now: datetime = await connection.fetchval("SELECT clock_timestamp()")
            fields = {
                "since": now - HOUR,
                "until": now,
                "disabled": await disabled_spans(connection, endpoint),
            } | fields
        document = JobDocument(task=task, endpoint=endpoint, **fields)
        return (await begin_job(changes, document, org=world.org, app=app)).id


async def finished(world: World, job: UUID, state: str = "finished") -> tuple[int, int]:
    """How many messages the job has looked at and requested, once it has come to that state."""

    async def over() -> Any:
        row = await world.owner.fetchrow("SELECT * FROM hookledger.job WHERE id = $1", job)
        return row if row is not None and row["state"] == state else None

    row = await until(over, f"job {state}")
    return row["examined"], row["requested"]


async def send(world: World, parts: Parts, app: UUID, count: int = 1, **fields: Any) -> list[UUID]:
    """Messages, fanned out."""
    messages = await world.accept(app, count, **fields)
    await parts.fan_outs.take(messages, path="envelope")
    return [message.id for message in messages]


async def resent(world: World, parts: Parts, app: UUID, endpoint: UUID, message: UUID) -> None:
    """One resend, up to its being requested."""
    job = await begin(world, app, Task.RESEND, endpoint, message=message)
    await parts.snapshot.catch_up()
    parts.jobs.wake()
    await finished(world, job)


async def triggers(world: World, delivery: UUID) -> list[tuple[str, int, str]]:
    rows = await world.owner.fetch(
        "SELECT trigger, number, result FROM projection_1.attempt WHERE delivery = $1 ORDER BY started_at", delivery
    )
    return [tuple(row.values()) for row in rows]


# Resend


async def test_a_resend_makes_one_manual_attempt_and_success_ends_the_delivery(
    world: World, receiver: Receiver
) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.script("/", 500), schedule=())
    async with dispatching(world) as parts:
        parts.start_claiming()
        parts.start_jobs()
        [message] = await send(world, parts, app)
        delivery = delivery_id(message, endpoint)
        await world.until_status(delivery, "exhausted")
        await resent(world, parts, app, endpoint, message)
        await world.until_status(delivery, "succeeded")
    assert await world.facts(delivery) == [
        *("DeliveryScheduled", "AttemptStarted", "AttemptEnded", "DeliveryExhausted", *MANUAL),
    ]
    assert await triggers(world, delivery) == [("scheduled", 1, "retryable"), ("manual", 0, "succeeded")]
    assert len({request.id for request in receiver.requests}) == 1


async def test_a_skip_of_what_is_over_by_then_is_forgotten_although_a_manual_attempt_is_to_come(
    world: World, receiver: Receiver
) -> None:
    """Or it would befall the delivery when that is reopened."""
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.url())
    async with dispatching(world) as parts:
        parts.start_jobs()
        [message] = await send(world, parts, app)
        delivery = delivery_id(message, endpoint)
        await world.until_status(delivery, "succeeded")
        await resent(world, parts, app, endpoint, message)
        await world.owner.execute("INSERT INTO hookledger.skip_request (delivery, actor) VALUES ($1, 'me')", delivery)
        assert await parts.skips.take() == 0
        assert await world.owner.fetchval("SELECT count(*) FROM hookledger.skip_request") == 0
    assert (await world.state(delivery))["status"] == "succeeded"


async def test_a_resend_that_fails_leaves_the_schedule_alone(world: World, receiver: Receiver) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.script("/", then=500), schedule=(3600.0,))
    async with dispatching(world) as parts:
        parts.start_claiming()
        parts.start_jobs()
        [message] = await send(world, parts, app)
        delivery = delivery_id(message, endpoint)
        before = await world.until_status(delivery, "waiting")
        await resent(world, parts, app, endpoint, message)
        await receiver.wait_for(2)
        after = await until(lambda: _with_version(world, delivery, 7), "recorded")
    for column in ("status", "due_at", "run", "attempts", "failures"):
        assert after[column] == before[column]
    assert await triggers(world, delivery) == [("scheduled", 1, "retryable"), ("manual", 0, "retryable")]


async def _with_version(world: World, delivery: UUID, version: int) -> Any:
    row = await world.state(delivery)
    return row if row["version"] == version else None


async def test_a_message_that_did_not_match_gets_a_delivery_with_one_attempt(world: World, receiver: Receiver) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.script("/", 500), event_types=("other",))
    async with dispatching(world) as parts:
        parts.start_claiming()
        parts.start_jobs()
        [message] = await send(world, parts, app)
        await resent(world, parts, app, endpoint, message)
        await receiver.wait_for(1)
        delivery = delivery_id(message, endpoint)
        await until(lambda: _with_version(world, delivery, 5), "recorded")
        assert (await world.state(delivery))["status"] == "cancelled"
        await resent(world, parts, app, endpoint, message)
        await world.until_status(delivery, "succeeded")
    assert await world.facts(delivery) == ["DeliveryScheduled", "DeliveryCancelled", *MANUAL, *MANUAL]


async def test_a_resend_asked_for_while_an_attempt_is_in_flight_comes_after_it(
    world: World, receiver: Receiver
) -> None:
    app = await world.application()
    answering = asyncio.Event()
    endpoint = await world.endpoint(app, receiver.script("/", Reply(until=answering)))
    async with dispatching(world) as parts:
        parts.start_claiming()
        parts.start_jobs()
        [message] = await send(world, parts, app)
        await receiver.wait_for(1)
        await resent(world, parts, app, endpoint, message)
        delivery = delivery_id(message, endpoint)
        await until(lambda: _with_version(world, delivery, 3), "asked for")
        await world.assert_verified()  # the first attempt is still counted by no lane
        answering.set()
        await receiver.wait_for(2)
        await until(lambda: _with_version(world, delivery, 6), "recorded")
    assert await world.facts(delivery) == [
        *("DeliveryScheduled", "AttemptStarted", "ResendRequested", "AttemptEnded", "AttemptStarted", "AttemptEnded"),
    ]
    assert (await world.state(delivery))["status"] == "succeeded"


async def test_a_manual_attempt_whose_process_died_is_made_again(world: World, receiver: Receiver) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.script("/", 404, Reply(hang=True)))
    async with dispatching(world, renewing=False) as dead:
        dead.start_claiming()
        dead.start_jobs()
        [message] = await send(world, dead, app)
        delivery = delivery_id(message, endpoint)
        await world.until_status(delivery, "refused")
        await resent(world, dead, app, endpoint, message)
        await receiver.wait_for(2)
        await world.owner.execute(
            "UPDATE hookledger.process SET alive_until = clock_timestamp() WHERE id = $1", dead.lease.process
        )
        await dead.attempts.drop()
        async with dispatching(world) as other:
            assert await reclaim.reclaim_one(other.pool, world.epoch, other.snapshot.holds)
            await world.assert_verified()
            other.start_claiming()
            await world.until_status(delivery, "succeeded")
    assert await triggers(world, delivery) == [
        ("scheduled", 1, "refused"),
        ("manual", 0, "unknown"),
        ("manual", 0, "succeeded"),
    ]


async def test_each_of_several_resends_makes_an_attempt_of_its_own(world: World, receiver: Receiver) -> None:
    app = await world.application()
    answering = asyncio.Event()
    endpoint = await world.endpoint(app, receiver.script("/", 404, Reply(until=answering), 404, 500))
    async with dispatching(world) as one, dispatching(world) as two:
        for parts in (one, two):
            parts.start_claiming()
            parts.start_jobs()
        [message] = await send(world, one, app)
        delivery = delivery_id(message, endpoint)
        await world.until_status(delivery, "refused")
        jobs = [await begin(world, app, Task.RESEND, endpoint, message=message) for _ in range(5)]
        for parts in (one, two):
            await parts.snapshot.catch_up()
            parts.jobs.wake()
        await receiver.wait_for(2)  # the first of them is in flight, and the others wait
        await asyncio.sleep(0.5)
        requested = await world.owner.fetch("SELECT state, requested FROM hookledger.job WHERE id = ANY($1)", jobs)
        assert sorted(tuple(row) for row in requested) == [("finished", 1), *[("running", 0)] * 4]
        answering.set()
        for job in jobs:
            assert await finished(world, job) == (1, 1)
        await receiver.wait_for(6)
        await until(lambda: _with_version(world, delivery, 4 + 5 * len(MANUAL)), "recorded")
    assert await world.facts(delivery) == [
        *("DeliveryScheduled", "AttemptStarted", "AttemptEnded", "DeliveryRefused", *(5 * MANUAL)),
    ]
    asked = await world.owner.fetch(
        "SELECT data FROM hookledger.fact WHERE stream = $1 AND kind = 'ResendRequested'", delivery
    )
    assert len({row["data"] for row in asked}) == 5, "each was asked for by another job"


async def test_a_resend_that_waits_for_its_turn_while_the_payload_is_erased_says_so(
    world: World, receiver: Receiver
) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.url())
    async with dispatching(world) as parts:
        [message] = await send(world, parts, app)
        await world.until_over(app, 1)
        parts.start_jobs()  # nobody claims, so that the first stays asked for
        await resent(world, parts, app, endpoint, message)
        waiting = await begin(world, app, Task.RESEND, endpoint, message=message)
        await parts.snapshot.catch_up()
        parts.jobs.wake()
        await world.owner.execute("DELETE FROM hookledger.message_body WHERE message = $1", message)
        assert await finished(world, waiting, "failed") == (0, 0)
        reason = await world.owner.fetchval("SELECT reason FROM hookledger.job WHERE id = $1", waiting)
    assert reason == "the message's payload was erased or has expired"


# Recover


async def test_recover_brings_back_what_failed_and_what_was_missed_while_disabled(
    world: World, receiver: Receiver
) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.script("/", 200, 404))
    other = await world.endpoint(app, receiver.url("/other"), event_types=("nothing",))
    async with dispatching(world) as parts:
        parts.start_claiming()
        parts.start_jobs()
        [good] = await send(world, parts, app)
        await world.until_status(delivery_id(good, endpoint), "succeeded")
        [failed] = await send(world, parts, app)
        await world.until_status(delivery_id(failed, endpoint), "refused")
        await world.change(endpoint, disabled=True)
        await parts.snapshot.catch_up()
        [missed] = await send(world, parts, app)
        await world.change(endpoint, disabled=False, event_types=("order.completed",))
        await parts.snapshot.catch_up()
        [unwanted] = await send(world, parts, app, event_type="cart.left")
        jobs = [await begin(world, app, Task.RECOVER, each) for each in (endpoint, other)]
        await parts.snapshot.catch_up()
        parts.jobs.wake()
        assert await finished(world, jobs[0]) == (4, 2)
        assert await finished(world, jobs[1]) == (4, 0)
        for message in (failed, missed):
            await world.until_status(delivery_id(message, endpoint), "succeeded")
    assert sorted(request.id for request in receiver.requests) == sorted(
        encode(Prefix.MESSAGE, message) for message in (good, failed, failed, missed)
    )
    assert not await world.facts(delivery_id(unwanted, endpoint))


async def skip(world: World, parts: Parts, delivery: UUID) -> None:
    await world.owner.execute("INSERT INTO hookledger.skip_request (delivery, actor) VALUES ($1, 'me')", delivery)
    assert await parts.skips.take() == 1


async def worked(world: World, parts: Parts, job: UUID) -> tuple[int, int]:
    """How many messages a job that has just begun looked at and requested."""
    await parts.snapshot.catch_up()
    parts.jobs.wake()
    return await finished(world, job)


async def test_what_was_skipped_by_hand_is_left_alone_by_what_asks_for_failures(
    world: World, receiver: Receiver
) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.script("/", 503), schedule=(3600.0,))
    async with dispatching(world) as parts:
        parts.start_claiming()
        parts.start_jobs()
        [tried] = await send(world, parts, app)
        await world.until_status(delivery_id(tried, endpoint), "waiting")
        [untried] = await send(world, parts, app, deliver_in=HOUR)
        for message in (tried, untried):
            await skip(world, parts, delivery_id(message, endpoint))
        recovery = await begin(world, app, Task.RECOVER, endpoint)
        assert await worked(world, parts, recovery) == (2, 0)
        assert await worked(world, parts, await begin(world, app, Task.REPLAY_MISSING, endpoint)) == (2, 0)
        assert await worked(world, parts, await begin(world, app, Task.REPLAY, endpoint, only_failed=True)) == (2, 0)
        assert await world.statuses(app) == {"cancelled": 2}

        await resent(world, parts, app, endpoint, untried)
        await world.until_status(delivery_id(untried, endpoint), "succeeded")
        assert await worked(world, parts, await begin(world, app, Task.REPLAY, endpoint)) == (2, 2)
        await world.until_status(delivery_id(tried, endpoint), "succeeded")
        await world.change(endpoint, disabled=True)
        await parts.snapshot.catch_up()
        parts.cancelling.wake()
        await world.until_status(delivery_id(untried, endpoint), "cancelled")
        await world.change(endpoint, disabled=False)
        recovery = await begin(world, app, Task.RECOVER, endpoint)
        assert await worked(world, parts, recovery) == (2, 1), "the second time nobody has skipped it"


async def test_what_is_recovered_before_its_time_gets_its_schedule_from_then(world: World, receiver: Receiver) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.script("/", 503), schedule=(0.01,))
    async with dispatching(world) as parts:
        parts.start_claiming()
        parts.start_jobs()
        [cancelled] = await world.accept(app, deliver_in=timedelta(seconds=2))
        await parts.fan_outs.take([cancelled], path="envelope")
        await world.change(endpoint, disabled=True)
        await parts.snapshot.catch_up()
        parts.cancelling.wake()
        await world.until_status(delivery_id(cancelled.id, endpoint), "cancelled")
        [missed] = await world.accept(app, deliver_in=timedelta(seconds=2))
        await parts.fan_outs.take([missed], path="envelope")
        await world.change(endpoint, disabled=False)
        assert await worked(world, parts, await begin(world, app, Task.RECOVER, endpoint)) == (2, 2)
        assert await world.statuses(app) == {"waiting": 2}
        await world.assert_verified()
        assert await world.until_over(app, 2) == {"succeeded": 2}
    for message in (cancelled, missed):
        assert message.deliver_at is not None
        times = await world.owner.fetch(
            "SELECT started_at, trigger FROM projection_1.attempt WHERE delivery = $1",
            delivery_id(message.id, endpoint),
        )
        assert all(row["started_at"] >= message.deliver_at and row["trigger"] == "scheduled" for row in times)


async def test_two_dispatchers_recover_each_message_once_chunk_by_chunk(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "CHUNK", 7)
    monkeypatch.setattr(history, "SCAN", 10)
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.script("/", *[404] * 60))
    async with dispatching(world) as one, dispatching(world) as two:
        for parts in (one, two):
            parts.start_claiming()
            parts.start_jobs()
        messages = await send(world, one, app, 60)
        await world.until_over(app, 60)
        job = await begin(world, app, Task.RECOVER, endpoint)
        for parts in (one, two):
            await parts.snapshot.catch_up()
            parts.jobs.wake()
        assert await finished(world, job) == (60, 60)
        await until(lambda: _all(world, app, {"succeeded": 60}), "all recovered")
    assert len(receiver.requests) == 120
    assert [kind for kind in await world.facts(delivery_id(messages[7], endpoint)) if kind == "ResendRequested"] == [
        "ResendRequested"
    ]


async def _all(world: World, app: UUID, wanted: dict[str, int]) -> bool:
    return await world.statuses(app) == wanted


async def test_a_job_waits_while_its_endpoints_lane_is_full_and_can_be_cancelled(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.dispatcher.jobs.BACKLOG", 5)
    monkeypatch.setattr(history, "CHUNK", 5)
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.script("/", *[404] * 20))
    async with dispatching(world) as parts:
        await send(world, parts, app, 20)
        await world.until_over(app, 20)
        parts.start_jobs()  # nobody claims, so that nothing leaves the lane
        job = await begin(world, app, Task.RECOVER, endpoint)
        await parts.snapshot.catch_up()
        parts.jobs.wake()
        requested = "SELECT requested FROM hookledger.job WHERE id = $1"
        await until(lambda: world.owner.fetchval(requested, job), "a chunk")
        await asyncio.sleep(0.5)
        assert await world.owner.fetchval(requested, job) == 5
        async with world.registry.acquire() as connection, changing(connection, "operator") as changes:
            assert await cancel_job(changes, object_of(await world._object(connection, job)))
        parts.start_claiming()
        await until(lambda: _all(world, app, {"succeeded": 5, "refused": 15}), "the chunk sent, and no more")
        assert await finished(world, job, "cancelled") == (5, 5)


# Replay


async def test_replay_starts_the_schedule_anew_also_at_a_new_endpoint(world: World, receiver: Receiver) -> None:
    app = await world.application()
    old = await world.endpoint(app, receiver.script("/old", 200, 500), schedule=(0.05,))
    async with dispatching(world) as parts:
        parts.start_claiming()
        parts.start_jobs()
        messages = await send(world, parts, app, 2)
        await world.until_over(app, 2)
        new = await world.endpoint(app, receiver.script("/new", 500), schedule=(0.05,))
        jobs = [
            await begin(world, app, Task.REPLAY, old, event_types=("order.completed",)),
            await begin(world, app, Task.REPLAY_MISSING, new),
        ]
        await parts.snapshot.catch_up()
        parts.jobs.wake()
        for job in jobs:
            assert await finished(world, job) == (2, 2)
        assert await world.until_over(app, 4) == {"succeeded": 4}
        again = await begin(world, app, Task.REPLAY_MISSING, new)
        await parts.snapshot.catch_up()
        parts.jobs.wake()
        assert await finished(world, again) == (2, 0)
    for message in messages:
        reopened = await world.state(delivery_id(message, old))
        assert (reopened["run"], reopened["attempts"], reopened["failures"]) == (2, 1, 0)
        assert "DeliveryReopened" in await world.facts(delivery_id(message, old))
        assert (await world.facts(delivery_id(message, new)))[0] == "DeliveryScheduled"
    assert len(receiver.got("/new")) == 3


async def test_what_an_endpoints_filter_does_not_pass_is_not_sent_by_a_job_either(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "FILTERED_SCAN", 2)
    app = await world.application()
    async with dispatching(world) as parts:
        parts.start_claiming()
        parts.start_jobs()
        sent = [
            (await send(world, parts, app, body=body))[0]
            for body in (b'{"paid": true}', b'{"paid": false}', b"no JSON", b'{"paid": true, "again": 1}')
        ]
        endpoint = await world.endpoint(app, receiver.url("/paid"), filter="paid")
        job = await begin(world, app, Task.REPLAY_MISSING, endpoint)
        await parts.snapshot.catch_up()
        parts.jobs.wake()
        assert await finished(world, job) == (4, 2)
        assert await world.until_over(app, 2) == {"succeeded": 2}
    assert {request.id for request in receiver.requests} == {encode(Prefix.MESSAGE, sent[at]) for at in (0, 3)}


# What cannot be sent any more


async def test_what_waits_when_its_body_is_erased_is_cancelled_and_a_resend_of_it_dropped(
    world: World, receiver: Receiver
) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.script("/", 404, 500), schedule=(1.0,))
    async with dispatching(world) as parts:
        [refused, waiting] = [(await send(world, parts, app))[0] for _ in range(2)]
        await until(lambda: _all(world, app, {"refused": 1, "waiting": 1}), "both tried")
        parts.start_jobs()
        await resent(world, parts, app, endpoint, refused)
        await world.owner.execute("DELETE FROM hookledger.message_body WHERE message = ANY($1)", [refused, waiting])
        parts.start_claiming()
        await world.until_status(delivery_id(waiting, endpoint), "cancelled")
        await until(lambda: _with_version(world, delivery_id(refused, endpoint), 6), "dropped")
    assert (await world.facts(delivery_id(waiting, endpoint)))[-1] == "DeliveryCancelled"
    assert (await world.facts(delivery_id(refused, endpoint)))[-1] == "ResendDropped"
    assert len(receiver.requests) == 2


async def test_a_job_whose_endpoint_is_disabled_meanwhile_says_so(world: World, receiver: Receiver) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.url(), disabled=True)
    async with dispatching(world) as parts:
        parts.start_jobs()
        job = await begin(world, app, Task.RECOVER, endpoint)
        await parts.snapshot.catch_up()
        parts.jobs.wake()
        assert await finished(world, job, "failed") == (0, 0)


async def test_rebuilding_in_the_middle_changes_nothing(world: World, receiver: Receiver) -> None:
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.script("/", 404))
    async with dispatching(world) as parts:
        [message] = await send(world, parts, app)
        await world.until_over(app, 1)
        parts.start_jobs()
        await resent(world, parts, app, endpoint, message)  # nobody claims: it waits, and is over at the same time
        await world.assert_verified()
        await world.owner.execute("DELETE FROM hookledger.queue WHERE delivery = $1", delivery_id(message, endpoint))
        assert (await world.rebuild()).mended
        await world.assert_verified()
        parts.start_claiming()
        await world.until_status(delivery_id(message, endpoint), "succeeded")


# Ordered endpoints


async def test_a_held_head_is_delivered_by_a_resend_however_much_is_due_behind_it(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(working, "BACKLOG", 2)
    app = await world.application()
    hold = {"ordered": True, "on_exhausted": OnExhausted.HOLD}
    endpoint = await world.endpoint(app, receiver.script("/", 404), schedule=(), **hold)
    async with dispatching(world) as parts:
        parts.start_claiming()
        parts.start_jobs()
        [head] = await send(world, parts, app, ordering_key="a")
        delivery = delivery_id(head, endpoint)
        await world.until_status(delivery, "held")
        await send(world, parts, app, 3, ordering_key="a")
        await resent(world, parts, app, endpoint, head)
        assert await world.until_over(app, 4) == {"succeeded": 4}
    assert await world.facts(delivery) == [
        "DeliveryScheduled",
        "AttemptStarted",
        "AttemptEnded",
        "DeliveryHeld",
        *MANUAL,
    ]


async def test_what_is_replayed_to_an_ordered_endpoint_comes_in_the_order_of_its_acceptance(
    world: World, receiver: Receiver
) -> None:
    app = await world.application()
    async with dispatching(world) as parts:
        for number in range(5):
            await send(world, parts, app, body=b"%d" % number, ordering_key="a")
        endpoint = await world.endpoint(app, receiver.script("/", 200, 500), schedule=(0.01,), ordered=True)
        await parts.snapshot.catch_up()
        parts.start_claiming()
        parts.start_jobs()
        job = await begin(world, app, Task.REPLAY, endpoint)
        assert await finished(world, job) == (5, 5)
        assert await world.until_over(app, 5) == {"succeeded": 5}
    assert [int(request.body) for request in receiver.got("/")] == [0, 1, 1, 2, 3, 4]
