"""Recording: many outcomes in one transaction, each one judged by itself."""

import asyncio
from collections.abc import MutableMapping
from datetime import timedelta
from typing import Any, Self

import pytest
import structlog

from libs.common.domain.commands import RecordAnswer, RequestResend
from libs.common.domain.delivery import decide
from libs.common.domain.facts import Timings
from libs.common.domain.ids import Prefix, encode
from libs.common.domain.outcome import Answer, Failure
from libs.common.postgres.pool import CONTENT_ERRORS
from libs.common.runtime import clock
from services.dispatcher import projection, reclaim, transitions
from services.dispatcher.attempts import Attempts
from services.dispatcher.flight import Flight
from services.dispatcher.recorder import Ending
from services.dispatcher.sender import Report, Sender
from services.dispatcher.transitions import Transition
from tests.integration.dispatcher.parts import POLICY, Parts, dispatching
from tests.integration.dispatcher.world import World
from tests.support.patience import eventually
from tests.support.receiver import Receiver, Reply

OK = Answer(status=200)
BUSY = Answer(status=503, retry_after=timedelta(minutes=2))


async def test_each_outcome_of_a_batch_is_recorded_with_its_decision(world: World, begun: str) -> None:
    async with dispatching(world) as parts:
        flights = await _flights(world, parts, 4, begun)
        answers = [OK, BUSY, Answer(status=404), Answer(status=410)]
        await asyncio.gather(
            *(parts.recorder.batcher.submit(_ending(f, a)) for f, a in zip(flights, answers, strict=True))
        )
        statuses = [(await world.state(flight.delivery))["status"] for flight in flights]
    assert statuses == ["succeeded", "waiting", "refused", "gone"]
    facts = [(await world.facts(flight.delivery))[2:] for flight in flights]
    assert facts == [
        ["AttemptEnded"],
        ["AttemptEnded", "RetryScheduled"],
        ["AttemptEnded", "DeliveryRefused"],
        ["AttemptEnded", "DeliveryGone"],
    ]


async def test_what_fails_is_logged_and_what_succeeds_only_to_who_wants_all(world: World, receiver: Receiver) -> None:
    app = await world.application()
    await world.endpoint(app, receiver.script("/picky", 404, 200))
    async with dispatching(world) as parts:
        with structlog.testing.capture_logs() as lines:

            async def ended() -> list[MutableMapping[str, Any]]:
                return [line for line in lines if line["event"] == "attempt.ended"]

            refused, taken = await world.accept(app, 2)
            await parts.fan_outs.take([refused], path="envelope")
            await eventually(ended, lambda found: len(found) == 1)
            await parts.fan_outs.take([taken], path="envelope")
            said = await eventually(ended, lambda found: len(found) == 2)
    assert [line["message"] for line in said] == [encode(Prefix.MESSAGE, each.id) for each in (refused, taken)]
    assert [(line["log_level"], line["answer"], line["status"]) for line in said] == [
        ("info", "HTTP 404", "refused"),
        ("debug", "HTTP 200", "succeeded"),
    ]


async def test_a_stale_outcome_is_settled_alone_and_the_others_of_its_batch_are_recorded(
    world: World, begun: str
) -> None:
    async with dispatching(world) as parts:
        flights = await _flights(world, parts, 3, begun)
        await parts.recorder.batcher.submit(_ending(flights[1], BUSY))
        results = await asyncio.gather(*(parts.recorder.batcher.submit(_ending(f, OK)) for f in flights))
        assert [result is None for result in results] == [False, True, False]
        statuses = [(await world.state(flight.delivery))["status"] for flight in flights]
    assert statuses == ["succeeded", "waiting", "succeeded"]


async def test_an_outcome_of_a_delivery_that_has_changed_meanwhile_is_judged_by_what_it_is_now(world: World) -> None:
    async with dispatching(world) as parts:
        flights = await _flights(world, parts, 2, "at once")
        changed = flights[0].delivery
        async with parts.pool.acquire() as connection, connection.transaction():
            states = await projection.lock(connection, [changed])
            asked = decide(states[changed], RequestResend(at=clock.now(), job=clock.new_id()))
            change = Transition.of(delivery=changed, before=states[changed], facts=asked)
            await transitions.write_facts(connection, world.epoch, [change])
        await asyncio.gather(*(parts.recorder.batcher.submit(_ending(flight, OK)) for flight in flights))
        ended = [await world.state(flight.delivery) for flight in flights]
    assert [state["status"] for state in ended] == ["succeeded", "succeeded"]
    assert [state["resend_at"] is not None for state in ended] == [True, False]
    assert await world.facts(changed) == ["DeliveryScheduled", "AttemptStarted", "ResendRequested", "AttemptEnded"]
    await world.assert_verified()


async def test_the_same_outcome_twice_in_one_batch_is_recorded_once(world: World, begun: str) -> None:
    async with dispatching(world) as parts:
        flights = await _flights(world, parts, 3, begun)
        endings = [_ending(flight, OK) for flight in [*flights, flights[0]]]
        results = await asyncio.gather(*(parts.recorder.batcher.submit(ending) for ending in endings))
        assert [result is not None for result in results].count(True) == 3
        assert await world.statuses(world.apps[-1]) == {"succeeded": 3}


async def test_an_outcome_that_cannot_be_written_fails_alone(world: World, begun: str) -> None:
    async with dispatching(world) as parts:
        flights = await _flights(world, parts, 5, begun)
        endings = [_ending(flight, OK) for flight in flights]
        bad = endings[2] = _ending(flights[2], OK, url="http://nul.example/\0")
        results = await asyncio.gather(
            *(parts.recorder.batcher.submit(ending) for ending in endings), return_exceptions=True
        )
        assert [isinstance(result, Exception) for result in results] == [False, False, True, False, False]
        assert await world.statuses(world.apps[-1]) == {"succeeded": 4, "sending": 1}
        # Whoever carries it out gives up rather than spoil one batch after another.
        with pytest.raises(CONTENT_ERRORS):
            await asyncio.wait_for(parts.attempts._record(bad), 5)


@pytest.mark.parametrize("wrong", ["no report", "a report that cannot be written"])
async def test_an_attempt_that_goes_wrong_here_is_declared_unknown_and_followed_by_another(
    world: World, begun: str, receiver: Receiver, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.dispatcher.attempts.UNKNOWN_AFTER_SECONDS", 0.01)
    async with dispatching(world) as parts:
        [flight] = await _flights(world, parts, 1, begun, receiver.url())
        broken = Attempts(_Broken(wrong), parts.recorder, parts.lease, parts.capacity, POLICY)
        broken.begin(flight)
        await asyncio.wait([*broken._tasks], timeout=5)
        state = await world.state(flight.delivery)
        assert (state["status"], state["unknowns"], state["failures"]) == ("waiting", 1, 0)
        lane = "SELECT inflight FROM hookledger.lane WHERE lane = $1"
        assert await world.owner.fetchval(lane, flight.lane) == 0
        parts.start_claiming()
        await world.until_status(flight.delivery, "succeeded")
        await parts.attempts.drain(5)
        assert parts.capacity.in_flight == 0
    assert await world.facts(flight.delivery) == [
        *("DeliveryScheduled", "AttemptStarted", "AttemptOutcomeUnknown", "RetryScheduled"),
        *("AttemptStarted", "AttemptEnded"),
    ]


async def test_an_attempt_that_went_wrong_here_is_left_to_others_where_the_lease_has_passed(
    world: World, receiver: Receiver
) -> None:
    async with dispatching(world, renewing=False) as parts:
        [flight] = await _flights(world, parts, 1, url=receiver.url())
        broken = Attempts(_Broken("no report"), parts.recorder, parts.lease, parts.capacity, POLICY)
        await world.owner.execute(
            "UPDATE hookledger.process SET alive_until = clock_timestamp() WHERE id = $1", parts.lease.process
        )
        broken.begin(flight)  # by its own clock the lease holds still
        await asyncio.wait([*broken._tasks], timeout=5)
        assert await world.facts(flight.delivery) == ["DeliveryScheduled", "AttemptStarted"]
        assert await reclaim.reclaim_one(parts.pool, world.epoch, parts.snapshot.holds)
        await world.until_status(flight.delivery, "waiting")


async def test_the_answers_first_bytes_and_the_urls_query_are_kept_apart_from_the_facts(
    world: World, receiver: Receiver
) -> None:
    app = await world.application()
    receiver.script("/hook", Reply(body=b"\0\xff thanks"))
    await world.endpoint(app, receiver.url("/hook?token=secret"))
    async with dispatching(world) as parts:
        await parts.fan_outs.take(await world.accept(app), path="envelope")
        await world.until_over(app, 1)
    kept = await world.owner.fetchrow(
        "SELECT c.response, c.url_query, a.url, a.peer FROM hookledger.attempt_content c"
        " JOIN projection_1.attempt a USING (delivery, attempt) WHERE a.app = $1",
        app,
    )
    assert kept is not None
    assert tuple(kept) == (b"\0\xff thanks", "token=secret", receiver.url("/hook"), f"127.0.0.1:{receiver.port}")
    ledger = await world.owner.fetch("SELECT data FROM hookledger.fact WHERE app = $1", app)
    assert not any(b"secret" in row["data"] for row in ledger)


async def test_an_attempt_that_a_stop_overtakes_is_abandoned_and_waits_again(world: World, receiver: Receiver) -> None:
    async with dispatching(world) as parts:
        [flight] = await _flights(world, parts, 1, receiver.url())
        await parts.attempts.drain(1)
        parts.attempts.begin(flight)
        await asyncio.wait([*parts.attempts._tasks], timeout=5)
        state = await world.state(flight.delivery)
    assert await world.facts(flight.delivery) == [
        *("DeliveryScheduled", "AttemptStarted", "AttemptAbandoned", "RetryScheduled"),
    ]
    assert (state["status"], state["failures"]) == ("waiting", 0)
    assert receiver.requests == []


async def test_what_is_still_under_way_when_the_grace_has_passed_is_declared_unknown(
    world: World, receiver: Receiver
) -> None:
    app = await world.application()
    await world.endpoint(app, receiver.script("/hook", Reply(hang=True)))
    async with dispatching(world) as parts:
        await parts.fan_outs.take(await world.accept(app), path="envelope")
        await receiver.wait_for(1)
        await parts.attempts.drain(0.1)
        async with parts.pool.acquire() as connection, connection.transaction():
            holds = parts.snapshot.holds
            taken = await reclaim.take_over(connection, world.epoch, parts.lease.process, holds)
        assert [change.after.status for change in taken] == ["waiting"]
        assert await world.statuses(app) == {"waiting": 1}


@pytest.mark.parametrize("answer", [BUSY, Answer(failure=Failure.TIMEOUT)], ids=["busy", "timeout"])
async def test_the_retry_that_was_decided_is_the_one_that_waits_in_the_lane(world: World, answer: Answer) -> None:
    async with dispatching(world) as parts:
        [flight] = await _flights(world, parts, 1)
        await parts.recorder.batcher.submit(_ending(flight, answer))
        due_at = (await world.state(flight.delivery))["due_at"]
    row = await world.owner.fetchrow("SELECT * FROM hookledger.queue WHERE delivery = $1", flight.delivery)
    lane = await world.owner.fetchrow("SELECT * FROM hookledger.lane WHERE lane = $1", flight.endpoint.id)
    assert row is not None
    assert lane is not None
    assert (row["due_at"], row["owner"], row["counted"]) == (due_at, None, False)
    assert (lane["head_due"], lane["inflight"]) == (due_at, 0)


class _Broken(Sender):
    """A sender with a fault of its own."""

    def __init__(self, wrong: str) -> None:
        self._wrong = wrong

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def send(self, *_: object, **__: object) -> Report:
        if self._wrong == "no report":
            raise RuntimeError("a fault")
        return Report(answer=OK, peer="\0", sends=1, timings=Timings())


@pytest.fixture(params=["at once", "claimed"])
def begun(request: pytest.FixtureRequest) -> str:
    """How attempts begin: with their fan-out, or from a lane, which counts them."""
    way: str = request.param
    return way


async def _flights(
    world: World, parts: Parts, count: int, begun: str = "claimed", url: str = "http://127.0.0.1:9/"
) -> list[Flight]:
    """Attempts whose start is committed and that nobody carries out."""
    app = await world.application()
    endpoint = await world.endpoint(app, url, schedule=(60.0,))
    if begun == "at once":
        flights: list[Flight] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(parts.attempts, "begin", flights.append)
            assert await parts.fan_outs.take(await world.accept(app, count), path="envelope")
        assert [flight.counted for flight in flights] == [False] * count
        return flights
    await world.waiting(app, endpoint, count)
    await parts.snapshot.catch_up()
    flights, _ = await parts.claims._claim(count)
    assert len(flights) == count
    return flights


def _ending(flight: Flight, answer: Answer, *, url: str = "http://127.0.0.1:9/") -> Ending:
    command = RecordAnswer(
        at=clock.now(),
        attempt=flight.started.attempt,
        answer=answer,
        policy=flight.endpoint.retry,
        jitter=0.5,
        url=url,
        peer=None,
        sends=1,
        timings=Timings(),
    )
    return Ending(flight=flight, command=command)
