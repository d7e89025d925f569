"""Claiming waiting deliveries: whose turn it is gets its next attempt begun, or is cancelled or expired."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg

from libs.common.domain.commands import Command, Expire, LetGo
from libs.common.domain.delivery import Delivery, NotWaitingError, Status, decide
from libs.common.domain.endpoint import Endpoint
from libs.common.domain.facts import AttemptStarted, CancelReason, DropReason
from libs.common.domain.ids import Prefix, encode
from libs.common.domain.message import Message
from libs.common.postgres.pool import CONNECTION_ERRORS, Connection, Pool, transaction
from libs.common.postgres.snapshot import RegistrySnapshot
from libs.common.runtime import clock
from libs.common.runtime.failpoints import Failpoint, reach
from libs.common.runtime.logs import logger
from libs.common.runtime.waiting import set_within
from services.dispatcher import breakers, lanes, messages, projection, transitions, turns
from services.dispatcher.attempts import Attempts
from services.dispatcher.breaking import Breaking
from services.dispatcher.cancelling import ended, given_up
from services.dispatcher.capacity import Capacity
from services.dispatcher.flight import Flight
from services.dispatcher.lease import Lease, LeaseLostError
from services.dispatcher.metrics import CLAIMED, LATENESS_SECONDS
from services.dispatcher.planning import attempt_command
from services.dispatcher.terms import ClaimTerms
from services.dispatcher.transitions import HELD_LOOK, Transition

_LOG: Final = logger("claims")
MOST_AT_ONCE: Final = 128
BEGUN_TOGETHER: Final = 8
LONGEST_SLEEP_SECONDS: Final = 1.0
LINGER_SECONDS: Final = 0.004
_SOON: Final = timedelta(milliseconds=2)


class Claims:
    """The loop that claims. It sleeps until the next due time that it knows of, at most a second."""

    def __init__(
        self,
        *,
        pool: Pool,
        epoch: int,
        lease: Lease,
        snapshot: RegistrySnapshot,
        capacity: Capacity,
        attempts: Attempts,
        breaking: Breaking,
    ) -> None:
        self._pool = pool
        self._epoch = epoch
        self._lease = lease
        self._snapshot = snapshot
        self._capacity = capacity
        self._attempts = attempts
        self._breaking = breaking
        self._wake = capacity.room
        self._next_due: datetime | None = None

    def note(self, waiting: Sequence[Delivery]) -> None:
        """These deliveries wait now, or lanes have room again: look in time."""
        for state in waiting:
            if state.next_at is not None and (self._next_due is None or state.next_at < self._next_due):
                self._next_due = state.next_at
        self._wake.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Claim until told to stop."""
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self._capacity.watch())
            await self._claim_until(stopping)
            watching.cancel()

    async def _claim_until(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            try:
                claimed = await self._claim_if_free()
            except LeaseLostError:
                claimed = False
            except (*CONNECTION_ERRORS, asyncpg.PostgresError) as error:
                _LOG.warning("claims.interrupted", reason=str(error) or type(error).__name__)
                claimed = False
            if claimed:
                # Under load, let what ends in the next milliseconds make room for a fuller claim.
                await asyncio.sleep(LINGER_SECONDS)
            else:
                await self._sleep()

    async def _claim_if_free(self) -> bool:
        self._wake.clear()
        most = min(self._capacity.claimable, MOST_AT_ONCE)
        if not most:
            await self._wait_for_room()
            return True
        await self._snapshot.catch_up()
        flights, claimed = await self._claim(most)
        for number, flight in enumerate(flights, start=1):
            self._attempts.begin(flight)
            if number % BEGUN_TOGETHER == 0:
                await asyncio.sleep(0)  # what has become ready meanwhile is not kept waiting for all of them
        CLAIMED.inc(claimed)
        return claimed > 0

    async def _wait_for_room(self) -> None:
        self._capacity.freed.clear()
        await set_within(self._capacity.freed, LONGEST_SLEEP_SECONDS)

    async def _claim(self, most: int) -> tuple[list[Flight], int]:
        flights: list[Flight] = []
        changed: list[Transition] = []
        committed = False
        terms = ClaimTerms(self._snapshot, self._capacity, self._lease, with_breakers=self._breaking.on)
        try:
            async with transaction(self._pool) as connection:
                now = await self._lease.fence(connection)
                claim = await turns.claim(
                    connection, now, most=most, owner=self._lease.process, terms=terms, epoch=self._epoch
                )
                if claim.deliveries:
                    flights, changed = await self._start(connection, claim, terms, now)
                terms.hand_over(flights)
                parked = _parked(claim, flights)
                started = Counter(flight.lane for flight in flights)
                await lanes.refresh(connection, claim.served, now, served=True, parked=parked, started=started)
                await lanes.refresh_turns(connection, claim.idle, now, served=True, parked=parked)
                idle = claim.idle - claim.parked.keys()
                self._next_due = await lanes.next_ready(connection, idle=idle, full=claim.full)
                reach(Failpoint.CLAIM_IN_TRANSACTION)
            committed = True
            self._observe(flights, changed)
            if flights:
                reach(Failpoint.CLAIM_COMMITTED)
        finally:
            terms.give_back()
            if not committed:
                for flight in flights:
                    self._attempts.disown(flight)
        return flights, len(claim.deliveries)

    async def _start(
        self, connection: Connection, claim: turns.Claim, terms: ClaimTerms, now: datetime
    ) -> tuple[list[Flight], list[Transition]]:
        states = await projection.lock(connection, sorted(item.delivery for item in claim.deliveries))
        bodies = await messages.read(connection, list({state.message for state in states.values()}))
        flights: list[Flight] = []
        changed: list[Transition] = []
        probes: dict[UUID, UUID] = {}
        put_back: list[tuple[UUID, datetime]] = []
        doubtful = await self._doubtful(connection, {state.endpoint for state in states.values()}, terms)
        for item in claim.deliveries:
            state = states.get(item.delivery)
            if state is None:  # a damaged row must not stop the others; rebuild brings it back
                _LOG.error("claims.no_state", delivery=encode(Prefix.DELIVERY, item.delivery))
                continue
            if state.endpoint in probes and state.next_at is not None:
                put_back.append((item.delivery, state.next_at))
                continue
            if state.endpoint in doubtful:
                put_back.append((item.delivery, state.next_at or now))
                continue
            endpoint = self._snapshot.endpoint(state.endpoint)
            command = self._command(state, endpoint, bodies.get(state.message), now)
            if command is None:
                put_back.append((item.delivery, now + HELD_LOOK))
                continue
            try:
                facts = decide(state, command)
            except NotWaitingError as error:
                _LOG.error("claims.not_waiting", delivery=encode(Prefix.DELIVERY, item.delivery), status=str(error))
                continue
            change = Transition.of(delivery=item.delivery, before=state, facts=facts)
            changed.append(change)
            match facts:
                case [AttemptStarted() as begun] if endpoint is not None:
                    if probe := endpoint.id in claim.probes:
                        probes[endpoint.id] = item.delivery
                    flights.append(
                        Flight(
                            delivery=item.delivery,
                            state=change.after,
                            started=begun,
                            message=bodies[state.message],
                            endpoint=endpoint,
                            lane=item.lane,
                            counted=True,
                            lease=self._lease.epoch,
                            probe=probe,
                        )
                    )
                case _:
                    pass
        await transitions.write_facts(connection, self._epoch, changed)
        await lanes.finish(connection, [change.delivery for change in changed if not change.after.open])
        await lanes.release(connection, put_back)
        await breakers.begin(connection, probes, self._lease.process)
        return flights, changed

    async def _doubtful(self, connection: Connection, endpoints: set[UUID], terms: ClaimTerms) -> set[UUID]:
        """Those that seemed unwanted, but may have been created or enabled since this process has last caught up."""
        unwanted = {identity for identity in endpoints if not terms.wants(identity)}
        if not unwanted:
            return unwanted
        current = await self._snapshot.is_current(connection)
        certain = {identity for identity in unwanted if current and self._snapshot.wanted(identity) is None}
        # Asked again: while the registry was looked at, this process may have heard of more.
        return {identity for identity in endpoints if not terms.wants(identity)} - certain

    def _command(
        self, state: Delivery, endpoint: Endpoint | None, message: Message | None, now: datetime
    ) -> Command | None:
        """What is to be done with a delivery that was claimed; None for one that is held, and stays so."""
        if endpoint is None or not endpoint.enabled:
            return given_up(state, endpoint, now)
        if message is None or message.erased:
            return ended(state, now, CancelReason.CONTENT_ERASED, DropReason.CONTENT_ERASED)
        wanted_from = state.begun_at if message.deliver_at is None else max(state.begun_at, message.deliver_at)
        if state.resend_at is None and now - wanted_from > endpoint.retry.max_age:
            return Expire(at=now)
        if state.status is Status.HELD and state.resend_at is None:
            return None if endpoint.retry.holds else LetGo(at=now)
        return attempt_command(endpoint, now, self._lease.process)

    def _observe(self, flights: Sequence[Flight], changed: Sequence[Transition]) -> None:
        """Count what a claim has committed."""
        transitions.count_ended(changed)
        before = {change.delivery: change.before for change in changed}
        for flight in flights:
            due_at = before[flight.delivery].next_at
            assert due_at is not None, "what is claimed waits"
            if flight.endpoint.unhindered and not self._breaking.kept_waiting(flight.endpoint.id, due_at):
                # What waited longer did so for its rate, its order or its breaker.
                LATENESS_SECONDS.observe(max(0.0, (flight.started.at - due_at).total_seconds()))

    async def _sleep(self) -> None:
        seconds = LONGEST_SLEEP_SECONDS
        if self._next_due is not None:
            until_due = (self._next_due - clock.now() + _SOON).total_seconds()
            seconds = min(seconds, max(0.005, until_due))
        await set_within(self._wake, seconds)


def _parked(claim: turns.Claim, flights: Sequence[Flight]) -> Mapping[UUID, datetime]:
    """Lanes and applications that are not to be looked at before that time, those behind a probe included."""
    parked = dict(claim.parked)
    begun = {flight.endpoint.id for flight in flights if flight.probe}
    for lane, change in claim.served.items():
        if change.endpoint in begun:
            look_at = claim.probes[change.endpoint]
            parked[lane] = max(look_at, parked.get(lane, look_at))
    return parked
