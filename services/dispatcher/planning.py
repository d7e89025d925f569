"""What fanning out messages comes to: facts, states, attempts that begin at once, and what waits in lanes."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from msgspec import Struct

from libs.common.domain.commands import StartAttempt
from libs.common.domain.delivery import Delivery, evolve, scheduled, start
from libs.common.domain.endpoint import Endpoint, FanOut, Rule
from libs.common.domain.facts import AttemptStarted, DeliveryScheduled, MessageFannedOut
from libs.common.domain.ids import delivery_id
from libs.common.domain.lanes import ordering_lane
from libs.common.domain.message import Message
from libs.common.postgres.ledger import Appended
from libs.common.runtime import clock
from services.dispatcher.at_once import FirstAttempt
from services.dispatcher.breaking import Breaking
from services.dispatcher.capacity import Capacity
from services.dispatcher.flight import Flight
from services.dispatcher.lanes import LaneChange
from services.dispatcher.lease import Lease

FIRST: Final = 2
"""The version of a message's first fan-out in its stream."""


class Match(Struct, frozen=True, kw_only=True):
    """Where a message goes by the registry of that version."""

    found: FanOut
    registry_version: int


@dataclass(slots=True, kw_only=True)
class Plan:
    """What one transaction of fan-out writes: `direct` are the deliveries whose first attempt touches no lane."""

    fanned_out: list[tuple[Message, int, MessageFannedOut]] = field(default_factory=list)
    direct: list[FirstAttempt] = field(default_factory=list)
    flights: list[Flight] = field(default_factory=list)
    lined_up: list[tuple[UUID, Delivery, DeliveryScheduled]] = field(default_factory=list)
    waiting: list[tuple[UUID, UUID, datetime]] = field(default_factory=list)
    ordered: list[tuple[UUID, UUID, datetime, UUID]] = field(default_factory=list)
    lanes: dict[UUID, LaneChange] = field(default_factory=dict)
    unfinished: list[tuple[Message, UUID]] = field(default_factory=list)
    unmatched: set[UUID] = field(default_factory=set)

    @property
    def deliveries(self) -> int:
        """How many it makes."""
        return len(self.direct) + len(self.lined_up)

    def keep(self, messages: AbstractSet[UUID]) -> list[Flight]:
        """Leave out all messages but these; the attempts that do not begin after all."""
        dropped = [flight for flight in self.flights if flight.message.id not in messages]
        self.fanned_out = [each for each in self.fanned_out if each[0].id in messages]
        self.direct = [first for first in self.direct if first.state.message in messages]
        self.flights = [flight for flight in self.flights if flight.message.id in messages]
        self.unmatched &= messages
        return dropped

    def states(self) -> list[tuple[UUID, Delivery]]:
        """Of its deliveries."""
        begun = [(first.delivery, first.state) for first in self.direct]
        return begun + [(delivery, state) for delivery, state, _ in self.lined_up]

    def facts(self) -> list[Appended]:
        """All of them."""
        facts = [
            Appended(stream=message.id, version=version, app=message.app, endpoint=None, fact=fact)
            for message, version, fact in self.fanned_out
        ]
        for first in self.direct:
            facts += _appended(first.delivery, first.state, first.scheduled, first.started)
        for delivery, state, fact in self.lined_up:
            facts += _appended(delivery, state, fact)
        return facts


class Planner:
    """Plans with the configuration in force and the places that are free.

    Args:
        lease: under which attempts begin.
        capacity: for them; each one that is planned has taken its place.
        breaking: whose breakers keep attempts back.
    """

    def __init__(self, lease: Lease, capacity: Capacity, breaking: Breaking) -> None:
        self._lease = lease
        self._capacity = capacity
        self._breaking = breaking

    def add_at_once(self, plan: Plan, message: Message, match: Match, at: datetime) -> bool:
        """Add a message if all of its deliveries begin at once, and none are to come; whether they do."""
        found = match.found
        if found.continues_after is not None or not _due(message, at):
            return False
        taken: list[Endpoint] = []
        for endpoint, _ in found.matches:
            if not self._take(endpoint):
                for other in taken:
                    self._capacity.give_back(other.id, other.app)
                return False
            taken.append(endpoint)
        self._note(plan, message, match, at, FIRST)
        for endpoint, rule in found.matches:
            self._begin(plan, message, endpoint, _scheduled(message, endpoint, rule, at))
        return True

    def add(self, plan: Plan, message: Message, match: Match, at: datetime, version: int) -> None:
        """Add a message at version `version` of its stream."""
        self._note(plan, message, match, at, version)
        for endpoint, rule in match.found.matches:
            fact = _scheduled(message, endpoint, rule, at)
            if _due(message, at) and self._take(endpoint):
                self._begin(plan, message, endpoint, fact)
            else:
                _line_up(plan, message, endpoint, fact)

    def _take(self, endpoint: Endpoint) -> bool:
        """Take a place for a first attempt that asks no lane."""
        return (
            endpoint.unhindered
            and self._breaking.closed(endpoint)
            and self._capacity.take_direct(endpoint, self._lease.standing)
        )

    def _note(self, plan: Plan, message: Message, match: Match, at: datetime, version: int) -> None:
        found = match.found
        fanned_out = MessageFannedOut(at=at, registry_version=match.registry_version, counts=found.counts)
        plan.fanned_out.append((message, version, fanned_out))
        if found.continues_after is not None:
            plan.unfinished.append((message, found.continues_after))
        elif version == FIRST and not found.matches:
            plan.unmatched.add(message.id)

    def _begin(self, plan: Plan, message: Message, endpoint: Endpoint, fact: DeliveryScheduled) -> None:
        """Plan a first attempt whose place is taken."""
        delivery = delivery_id(message.id, endpoint.id)
        waiting = scheduled(fact)
        started = start(waiting, attempt_command(endpoint, fact.at, self._lease.process))
        state = evolve(waiting, started)
        plan.direct.append(FirstAttempt(delivery=delivery, state=state, scheduled=fact, started=started))
        plan.flights.append(
            Flight(
                delivery=delivery,
                state=state,
                started=started,
                message=message,
                endpoint=endpoint,
                lane=endpoint.id,
                counted=False,
                lease=self._lease.epoch,
            )
        )


def _due(message: Message, at: datetime) -> bool:
    return not message.erased and (message.deliver_at is None or message.deliver_at <= at)


def _scheduled(message: Message, endpoint: Endpoint, rule: Rule, at: datetime) -> DeliveryScheduled:
    return DeliveryScheduled(
        at=at,
        app=message.app,
        message=message.id,
        endpoint=endpoint.id,
        config_version=endpoint.version,
        rule=rule,
        due_at=at if message.deliver_at is None else max(at, message.deliver_at),
    )


def _line_up(plan: Plan, message: Message, endpoint: Endpoint, fact: DeliveryScheduled) -> None:
    """Plan a delivery that waits in its lane."""
    delivery, lane = delivery_id(message.id, endpoint.id), endpoint.id
    if endpoint.ordered:
        lane = ordering_lane(endpoint.id, message.ordering_key)
        plan.ordered.append((delivery, lane, fact.due_at, message.id))
    else:
        plan.waiting.append((delivery, lane, fact.due_at))
    plan.lanes[lane] = LaneChange(app=message.app, endpoint=endpoint.id, max_inflight=endpoint.max_inflight)
    plan.lined_up.append((delivery, scheduled(fact), fact))


def attempt_command(endpoint: Endpoint, at: datetime, process: UUID) -> StartAttempt:
    """The command that begins an attempt with the configuration in force."""
    keys = endpoint.signing_keys(at)
    return StartAttempt(
        at=at,
        attempt=clock.new_id(),
        config_version=endpoint.version,
        signing_key=keys[0].id if keys else None,
        process=process,
    )


def _appended(delivery: UUID, state: Delivery, *facts: DeliveryScheduled | AttemptStarted) -> list[Appended]:
    return [
        Appended(stream=delivery, version=version, app=state.app, endpoint=state.endpoint, fact=fact)
        for version, fact in enumerate(facts, start=1)
    ]
