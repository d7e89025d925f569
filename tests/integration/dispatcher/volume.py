"""A ledger of a size worth measuring: decided by the core and written by the dispatcher's own writers."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from libs.common.domain.commands import DeclareUnknown, RecordAnswer, StartAttempt
from libs.common.domain.delivery import Delivery, decide, evolve, scheduled, start
from libs.common.domain.endpoint import Rule
from libs.common.domain.facts import AttemptStarted, DeliveryScheduled, Timings
from libs.common.domain.ids import delivery_id
from libs.common.domain.outcome import Answer
from libs.common.domain.retry import RetryPolicy
from libs.common.postgres.ledger import Appended, append
from libs.common.runtime.clock import new_id
from services.dispatcher import lanes, projection, transitions
from services.dispatcher.transitions import Transition
from tests.integration.dispatcher.world import World

UNKNOWN = 0
STORIES: tuple[list[int], ...] = (
    [200],
    [200],
    [500, 200],
    [500, 404],
    [503, UNKNOWN, 200],
    [410],
    [500],
    [UNKNOWN],
    [],
    [500, 500, 500],
)
"""The answers that a delivery's attempts get. A story that is over too early waits; an empty one is in flight."""

POLICY = RetryPolicy(schedule=(timedelta(hours=1), timedelta(hours=2)))


@dataclass(slots=True, kw_only=True)
class _Live:
    """A delivery on its way through its story."""

    id: UUID
    first: DeliveryScheduled
    state: Delivery
    started: AttemptStarted
    counted: bool
    answers: list[int]


async def write_history(world: World, connection: Any, *, process: UUID, messages: int, endpoints: int) -> None:
    """Messages of one application, each delivered to each of its endpoints, as the stories go."""
    app = await world.application()
    receivers = await world.endpoints(app, ["http://127.0.0.1:9/"] * endpoints)
    for message in await world.accept(app, messages):
        now = await connection.fetchval("SELECT clock_timestamp()")
        async with connection.transaction():
            await connection.execute("DELETE FROM hookledger.outbox WHERE message = $1", message.id)
            live = _fan_out(message.id, app, receivers, process, now)
            await _append(world, connection, live, now)
        while live := [item for item in live if item.answers]:
            now += timedelta(minutes=10)
            async with connection.transaction():
                await _record(world, connection, live, now)
            live = [item for item in live if item.answers]
            async with connection.transaction():
                await _start_again(world, connection, live, process, now)


def _fan_out(message: UUID, app: UUID, receivers: Sequence[UUID], process: UUID, now: datetime) -> list[_Live]:
    """A message's deliveries, each with its first attempt begun."""
    live = []
    for number, endpoint in enumerate(receivers):
        first = DeliveryScheduled(
            at=now, app=app, message=message, endpoint=endpoint, config_version=1, rule=Rule.ALL, due_at=now
        )
        state = scheduled(first)
        begun = start(state, _command(now, process))
        live.append(
            _Live(
                id=delivery_id(message, endpoint),
                first=first,
                state=evolve(state, begun),
                started=begun,
                counted=False,
                answers=list(STORIES[number % len(STORIES)]),
            )
        )
    return live


async def _append(world: World, connection: Any, live: Sequence[_Live], now: datetime) -> None:
    facts = [
        Appended(stream=item.id, version=version, app=item.state.app, endpoint=item.state.endpoint, fact=fact)
        for item in live
        for version, fact in ((1, item.first), (2, item.started))
    ]
    await append(connection, world.epoch, facts)
    await projection.insert(connection, [(item.id, item.state) for item in live])
    await lanes.enqueue(connection, [(item.id, item.state.endpoint, now) for item in live], live[0].started.process)


async def _record(world: World, connection: Any, live: Sequence[_Live], now: datetime) -> None:
    changes = []
    for item in live:
        answer, attempt = item.answers.pop(0), item.started.attempt
        command: RecordAnswer | DeclareUnknown = DeclareUnknown(at=now, attempt=attempt, holds=False)
        if answer != UNKNOWN:
            command = RecordAnswer(
                at=now,
                attempt=attempt,
                answer=Answer(status=answer),
                policy=POLICY,
                jitter=0.25,
                url="http://127.0.0.1:9/",
                peer="127.0.0.1:9",
                sends=1,
                timings=Timings(total=timedelta(microseconds=1234 + answer)),
            )
        facts = decide(item.state, command)
        change = Transition.of(
            delivery=item.id, before=item.state, facts=facts, started=item.started, counted=item.counted
        )
        changes.append(change)
        item.state = change.after
        assert not (item.answers and item.state.status.terminal), "a story goes on after its end"
    await transitions.write(connection, world.epoch, changes, now)


async def _start_again(world: World, connection: Any, live: Sequence[_Live], process: UUID, now: datetime) -> None:
    """As a claim does, for deliveries whose time has come."""
    changes = []
    for item in live:
        [begun] = decide(item.state, _command(now, process))
        assert isinstance(begun, AttemptStarted)
        change = Transition.of(delivery=item.id, before=item.state, facts=[begun])
        changes.append(change)
        item.state, item.started, item.counted = change.after, begun, True
    touched = {
        item.state.endpoint: lanes.LaneChange(app=item.state.app, endpoint=item.state.endpoint, max_inflight=32)
        for item in live
    }
    await lanes.lock(connection, touched)
    await connection.execute(
        "UPDATE hookledger.queue SET owner = $2, counted = true WHERE delivery = ANY($1)",
        [item.id for item in live],
        process,
    )
    await transitions.write_facts(connection, world.epoch, changes)
    started = Counter(item.state.endpoint for item in live)
    await lanes.refresh(connection, touched, now, served=True, started=started)


def _command(at: datetime, process: UUID) -> StartAttempt:
    return StartAttempt(at=at, attempt=new_id(), config_version=1, signing_key=None, process=process)
