"""Writing what was decided about deliveries: facts, projections and queue, in one transaction."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import reduce
from typing import Final, Self
from uuid import UUID

from msgspec import Struct

from libs.common.domain.attempts import AttemptRow, ended
from libs.common.domain.delivery import Delivery, Status, evolve
from libs.common.domain.facts import (
    AttemptAbandoned,
    AttemptEnded,
    AttemptOutcomeUnknown,
    AttemptStarted,
    DeliveryFact,
)
from libs.common.postgres.ledger import Appended, append
from libs.common.postgres.pool import Connection
from services.dispatcher import lanes, projection
from services.dispatcher.metrics import ENDED

HELD_LOOK: Final = timedelta(minutes=1)
"""How often a held delivery is looked at: whether its endpoint still holds, and whether it is too old."""
_ENDS: Final = (AttemptEnded, AttemptAbandoned, AttemptOutcomeUnknown)


class Transition(Struct, frozen=True, kw_only=True, gc=False):
    """Facts decided for one delivery, whose row this transaction has locked, and the state that they lead to.

    `started` is the attempt that an ending among the facts ends; `lane` is where the delivery waits, None for the
    endpoint's own; `counted` says that the lane counts it; `max_inflight` is the endpoint's, where that is known.
    """

    delivery: UUID
    before: Delivery
    facts: Sequence[DeliveryFact]
    after: Delivery
    started: AttemptStarted | None = None
    lane: UUID | None = None
    counted: bool = False
    max_inflight: int | None = None

    @classmethod
    def of(
        cls,
        *,
        delivery: UUID,
        before: Delivery,
        facts: Sequence[DeliveryFact],
        started: AttemptStarted | None = None,
        lane: UUID | None = None,
        counted: bool = False,
        max_inflight: int | None = None,
    ) -> Self:
        """The transition that these facts make."""
        return cls(
            delivery=delivery,
            before=before,
            facts=facts,
            after=reduce(evolve, facts, before),
            started=started,
            lane=lane,
            counted=counted,
            max_inflight=max_inflight,
        )


async def write_facts(connection: Connection, epoch: int, transitions: Sequence[Transition]) -> None:
    """Append the facts, and bring the projections to the states after them."""
    await append(connection, epoch, [fact for transition in transitions for fact in _appended(transition)])
    await projection.update(connection, [(transition.delivery, transition.after) for transition in transitions])
    await projection.insert_attempts(connection, [row for transition in transitions for row in _attempts(transition)])


async def write(connection: Connection, epoch: int, transitions: Sequence[Transition], now: datetime) -> None:
    """Write facts and projections of deliveries that were in flight, or are skipped, and let them wait or leave.

    Args:
        connection: in the transaction that has locked the deliveries' rows in the order of their ids.
        epoch: of the ledger.
        transitions: out of flight, each to waiting or to an end; or from waiting to an end.
        now: the database's time.
    """
    await write_facts(connection, epoch, transitions)
    over = [transition.delivery for transition in transitions if not transition.after.open]
    waiting = [
        (transition.delivery, transition.after.next_at)
        for transition in transitions
        if transition.after.next_at is not None
    ] + [
        (transition.delivery, now + HELD_LOOK)
        for transition in transitions
        if transition.after.status is Status.HELD and transition.after.next_at is None
    ]
    changes: dict[UUID, lanes.LaneChange] = {}
    for transition in transitions:
        if transition.counted or transition.after.open or transition.started is None:
            endpoint = transition.before.endpoint
            lane = transition.lane or endpoint
            before = changes.get(lane)
            changes[lane] = lanes.LaneChange(
                app=transition.before.app,
                endpoint=endpoint,
                max_inflight=transition.max_inflight,
                finished=(before.finished if before else 0) + int(transition.counted),
            )
    await lanes.lock(connection, changes)
    await lanes.finish(connection, over)
    await lanes.release(connection, waiting)
    await lanes.refresh(connection, changes, now, served=False)


def count_ended(transitions: Iterable[Transition | None]) -> None:
    """Count what came to an end, once that is committed."""
    statuses = Counter(
        transition.after.status
        for transition in transitions
        if transition is not None and transition.after.status.terminal and not transition.before.status.terminal
    )
    for status, count in statuses.items():
        ENDED.labels(status).inc(count)


def _appended(transition: Transition) -> list[Appended]:
    return [
        Appended(
            stream=transition.delivery,
            version=transition.before.version + number,
            app=transition.before.app,
            endpoint=transition.before.endpoint,
            fact=fact,
        )
        for number, fact in enumerate(transition.facts, start=1)
    ]


def _attempts(transition: Transition) -> list[AttemptRow]:
    if transition.started is None:
        return []
    return [
        ended(
            transition.started,
            fact,
            delivery=transition.delivery,
            app=transition.before.app,
            message=transition.before.message,
            endpoint=transition.before.endpoint,
        )
        for fact in transition.facts
        if isinstance(fact, _ENDS)
    ]
