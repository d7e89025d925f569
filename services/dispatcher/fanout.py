"""Fan-out: which endpoints a message goes to, committed together with the first attempts.

A message is fanned out by whoever deletes its outbox row, so an envelope that comes twice changes nothing. Envelopes
are the fast way; messages whose envelope was lost are taken from Postgres when they are overdue.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg
from aio_pika.abc import AbstractIncomingMessage

from libs.common.contracts import envelope
from libs.common.domain.commands import StartAttempt
from libs.common.domain.delivery import Delivery, evolve, scheduled, start
from libs.common.domain.endpoint import Endpoint, FanOut, Rule, fan_out
from libs.common.domain.facts import AttemptStarted, DeliveryScheduled, MessageFannedOut
from libs.common.domain.ids import delivery_id
from libs.common.domain.lanes import ordering_lane
from libs.common.domain.message import Message
from libs.common.postgres.ledger import Appended, append
from libs.common.postgres.pool import (
    CONNECTION_ERRORS,
    CONTENT_ERRORS,
    RETRYABLE_ERRORS,
    Connection,
    Pool,
    transaction,
)
from libs.common.postgres.snapshot import RegistrySnapshot
from libs.common.runtime import clock
from libs.common.runtime.batcher import Batcher, StoppedError
from libs.common.runtime.expressions.evaluation import PayloadFilters
from libs.common.runtime.failpoints import Failpoint, reach
from libs.common.runtime.logs import logger
from libs.common.runtime.waiting import set_within
from services.dispatcher import lanes, messages, projection
from services.dispatcher.attempts import Attempts
from services.dispatcher.breaking import Breaking
from services.dispatcher.capacity import Capacity
from services.dispatcher.flight import Flight
from services.dispatcher.lease import Lease, LeaseLostError
from services.dispatcher.metrics import DELIVERIES, FANNED_OUT, LATENESS_SECONDS, UNMATCHED

_LOG: Final = logger("fanout")
BATCH_MESSAGES: Final = 256
BATCH_ENDPOINTS: Final = 2_000
MOST_MATCHES: Final = 1_000
OVERDUE: Final = timedelta(seconds=2)
SWEEP_SECONDS: Final = 1.0
SWEEP_MESSAGES: Final = 256
SET_ASIDE_SECONDS: Final = 60.0
_AGAIN_SECONDS: Final = 0.3
_AWAY: Final = (*CONNECTION_ERRORS, *RETRYABLE_ERRORS, asyncpg.PostgresError, LeaseLostError)


class _Plan:
    """What one transaction of fan-out writes."""

    def __init__(self) -> None:
        self.facts: list[Appended] = []
        self.states: list[tuple[UUID, Delivery]] = []
        self.flights: list[Flight] = []
        self.waiting: list[tuple[UUID, UUID, datetime]] = []
        self.ordered: list[tuple[UUID, UUID, datetime, UUID]] = []
        self.lanes: dict[UUID, lanes.LaneChange] = {}
        self.unfinished: list[tuple[Message, UUID]] = []
        self.unmatched = 0


class FanOuts:
    """Fans out messages in batches.

    Args:
        pool: of the dispatcher.
        epoch: of the ledger.
        lease: of this process.
        snapshot: of the registry.
        capacity: for first attempts.
        attempts: begins them.
        waiting: called with deliveries for which there was no place.
        breaking: says to which endpoints nothing goes at once.
    """

    def __init__(
        self,
        *,
        pool: Pool,
        epoch: int,
        lease: Lease,
        snapshot: RegistrySnapshot,
        capacity: Capacity,
        attempts: Attempts,
        waiting: Callable[[Sequence[Delivery]], None],
        breaking: Breaking,
    ) -> None:
        self._pool = pool
        self._epoch = epoch
        self._lease = lease
        self._snapshot = snapshot
        self._capacity = capacity
        self._attempts = attempts
        self._waiting = waiting
        self._breaking = breaking
        self._in_hand: set[UUID] = set()
        self._set_aside: dict[UUID, float] = {}
        self._stopping = asyncio.Event()
        self.batcher: Final[Batcher[Message, None]] = Batcher(
            self._fan_out,
            is_content_fault=lambda error: isinstance(error, CONTENT_ERRORS),
            max_items=BATCH_MESSAGES,
            max_weight=BATCH_ENDPOINTS,
            weight=lambda message: len(self._snapshot.endpoints(message.app)),
            writers=2,
        )

    async def on_envelope(self, incoming: AbstractIncomingMessage) -> None:
        """Fan out an envelope's messages, then acknowledge it; its attempts take their own time."""
        try:
            batch = envelope.decode(incoming.body)
        except envelope.MalformedEnvelopeError as error:
            _LOG.error("envelope.malformed", reason=str(error))
            await incoming.reject(requeue=False)
            return
        if await self.take(batch, path="envelope"):
            await incoming.ack()
        else:
            await incoming.nack(requeue=True)

    async def take(self, batch: Sequence[Message], *, path: str) -> bool:
        """Fan out messages, waiting for Postgres if it is away; False if this process stops before that."""
        left = [message for message in batch if message.id not in self._in_hand]
        mine = {message.id for message in left}
        self._in_hand |= mine
        try:
            while left:
                try:
                    futures = [self.batcher.put(message) for message in left]
                except StoppedError:
                    return False
                results = await asyncio.gather(*futures, return_exceptions=True)
                again = []
                for message, result in zip(left, results, strict=True):
                    if isinstance(result, _AWAY) and not isinstance(result, CONTENT_ERRORS):
                        again.append(message)
                    elif isinstance(result, BaseException):
                        # Its outbox row stays: the sweep comes back to it, in case the cause is mended.
                        _LOG.error("fanout.failed", message=str(message.id), reason=repr(result))
                        self._set_aside[message.id] = clock.monotonic() + SET_ASIDE_SECONDS
                FANNED_OUT.labels(path).inc(len(left) - len(again))
                if again and await set_within(self._stopping, _AGAIN_SECONDS):
                    return False
                left = again
        finally:
            self._in_hand -= mine
        return True

    async def sweep(self) -> None:
        """Take overdue messages straight from Postgres, until told to stop."""
        while not await set_within(self._stopping, SWEEP_SECONDS):
            try:
                while len(self.batcher) < BATCH_MESSAGES and (overdue := await self._overdue()):
                    _LOG.info("sweep.overdue", messages=len(overdue))
                    if not await self.take(overdue, path="sweep"):
                        return
            except (*CONNECTION_ERRORS, asyncpg.PostgresError) as error:
                _LOG.warning("sweep.interrupted", reason=str(error) or type(error).__name__)

    def stop(self) -> None:
        """Take no more messages."""
        self._stopping.set()
        self.batcher.stop()

    async def _overdue(self) -> list[Message]:
        now = clock.monotonic()
        self._set_aside = {message: until for message, until in self._set_aside.items() if until > now}
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(
                """
                SELECT message FROM hookledger.outbox
                WHERE accepted_at < clock_timestamp() - $1::interval AND message <> ALL($3)
                ORDER BY message LIMIT $2
                """,
                OVERDUE,
                SWEEP_MESSAGES,
                [*self._in_hand, *self._set_aside],
            )
            found = await messages.read(connection, [row["message"] for row in rows]) if rows else {}
        return [found[row["message"]] for row in rows if row["message"] in found]

    async def _fan_out(self, batch: Sequence[Message]) -> Sequence[None]:
        await self._snapshot.catch_up(max(message.registry_version for message in batch))
        plan = _Plan()
        begun = False
        try:
            async with transaction(self._pool) as connection:
                await self._write(connection, plan, {message.id: message for message in batch})
                reach(Failpoint.FAN_OUT_IN_TRANSACTION)
            begun = True
        finally:
            if not begun:
                for flight in plan.flights:
                    self._attempts.disown(flight)
        reach(Failpoint.FAN_OUT_COMMITTED)
        for flight in plan.flights:
            LATENESS_SECONDS.observe((flight.started.at - flight.message.accepted_at).total_seconds())
            self._attempts.begin(flight)
        DELIVERIES.inc(len(plan.states))
        UNMATCHED.inc(plan.unmatched)
        if plan.lanes:
            self._waiting([state for _, state in plan.states if state.due_at is not None])
        if not self._stopping.is_set():
            for message, _ in plan.unfinished:
                self.batcher.put(message)
        return [None] * len(batch)

    async def _write(self, connection: Connection, plan: _Plan, batch: dict[UUID, Message]) -> None:
        now = await self._lease.fence(connection)
        rows = await connection.fetch(
            """
            WITH locked AS (
                SELECT message FROM hookledger.outbox WHERE message = ANY($1) ORDER BY message FOR UPDATE
            )
            DELETE FROM hookledger.outbox o USING locked WHERE o.message = locked.message
            RETURNING o.message, o.app, o.xact::text, o.accepted_at, o.after_endpoint
            """,
            sorted(batch),
        )
        for row in rows:
            message, after = batch[row["message"]], row["after_endpoint"]
            filters = PayloadFilters(message.body)
            found = fan_out(
                self._snapshot.endpoints(message.app),
                event_type=message.event_type,
                channels=message.channels,
                judge=filters.judge,
                after=after,
                most=MOST_MATCHES,
            )
            if filters.asked:
                await asyncio.sleep(0)  # a costly filter keeps everything else waiting for one message at most
            version = 2 if after is None else await _next_version(connection, message.id)
            self._plan_message(plan, message, found, now, version)
            plan.unmatched += after is None and found.continues_after is None and not found.matches
        await append(connection, self._epoch, plan.facts)
        await projection.insert(connection, plan.states)
        in_flight = [(flight.delivery, flight.endpoint.id, now) for flight in plan.flights]
        await lanes.enqueue(connection, in_flight, self._lease.process)
        if plan.unfinished:
            was = {row["message"]: (row["accepted_at"], row["app"], row["xact"]) for row in rows}
            await connection.executemany(
                """
                INSERT INTO hookledger.outbox (message, accepted_at, app, xact, after_endpoint)
                VALUES ($1, $2, $3, $4::text::xid8, $5)
                """,
                [(message.id, *was[message.id], after) for message, after in plan.unfinished],
            )
        if plan.lanes:
            await lanes.lock(connection, plan.lanes)
            await lanes.enqueue(connection, plan.waiting, None)
            await lanes.enqueue_ordered(connection, plan.ordered)
            await lanes.refresh(connection, plan.lanes, now, served=False)

    def _plan_message(self, plan: _Plan, message: Message, found: FanOut, now: datetime, version: int) -> None:
        at = max(now, message.accepted_at)
        fanned_out = MessageFannedOut(at=at, registry_version=self._snapshot.version, counts=found.counts)
        plan.facts.append(Appended(stream=message.id, version=version, app=message.app, endpoint=None, fact=fanned_out))
        if found.continues_after is not None:
            plan.unfinished.append((message, found.continues_after))
        for endpoint, rule in found.matches:
            self._plan_delivery(plan, message, endpoint, rule, at)

    def _plan_delivery(self, plan: _Plan, message: Message, endpoint: Endpoint, rule: Rule, at: datetime) -> None:
        delivery = delivery_id(message.id, endpoint.id)
        due_at = at if message.deliver_at is None else max(at, message.deliver_at)
        first = DeliveryScheduled(
            at=at,
            app=message.app,
            message=message.id,
            endpoint=endpoint.id,
            config_version=endpoint.version,
            rule=rule,
            due_at=due_at,
        )
        facts: list[DeliveryScheduled | AttemptStarted] = [first]
        state = scheduled(first)
        direct = endpoint.unhindered and due_at == at and not message.erased and self._breaking.closed(endpoint)
        if direct and self._capacity.take_direct(endpoint, self._lease.standing):
            started = start(state, attempt_command(endpoint, at, self._lease.process))
            facts.append(started)
            state = evolve(state, started)
            plan.flights.append(
                Flight(
                    delivery=delivery,
                    started=started,
                    message=message,
                    endpoint=endpoint,
                    lane=endpoint.id,
                    counted=False,
                    lease=self._lease.epoch,
                )
            )
        else:
            lane = endpoint.id
            if endpoint.ordered:
                lane = ordering_lane(endpoint.id, message.ordering_key)
                plan.ordered.append((delivery, lane, due_at, message.id))
            else:
                plan.waiting.append((delivery, lane, due_at))
            plan.lanes[lane] = lanes.LaneChange(
                app=message.app, endpoint=endpoint.id, max_inflight=endpoint.max_inflight
            )
        plan.states.append((delivery, state))
        plan.facts.extend(
            Appended(stream=delivery, version=number, app=message.app, endpoint=endpoint.id, fact=fact)
            for number, fact in enumerate(facts, start=1)
        )


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


async def _next_version(connection: Connection, stream: UUID) -> int:
    version: int = await connection.fetchval("SELECT max(version) + 1 FROM hookledger.fact WHERE stream = $1", stream)
    return version
