"""Fan-out: which endpoints a message goes to, committed together with the first attempts.

A message is fanned out by whoever deletes its outbox row, so an envelope that comes twice changes nothing. Envelopes
are the fast way; messages whose envelope was lost are taken from Postgres when they are overdue. Messages all of whose
first attempts can begin at once take one statement; the others take a transaction of several.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from datetime import timedelta
from typing import Final, TypeAlias
from uuid import UUID

import asyncpg

from libs.common.contracts import envelope
from libs.common.domain.delivery import Delivery
from libs.common.domain.endpoint import fan_out
from libs.common.domain.ids import Prefix, encode
from libs.common.domain.message import Message
from libs.common.postgres.ledger import append
from libs.common.postgres.pool import (
    CONNECTION_ERRORS,
    CONTENT_ERRORS,
    RETRYABLE_ERRORS,
    Connection,
    Pool,
    transaction,
)
from libs.common.postgres.snapshot import RegistrySnapshot
from libs.common.rabbitmq.consuming import Incoming
from libs.common.runtime import clock
from libs.common.runtime.batcher import Batcher, StoppedError
from libs.common.runtime.expressions.evaluation import PayloadFilters
from libs.common.runtime.failpoints import Failpoint, reach
from libs.common.runtime.logs import logger
from libs.common.runtime.waiting import set_within
from services.dispatcher import at_once, lanes, messages, projection
from services.dispatcher.attempts import Attempts
from services.dispatcher.breaking import Breaking
from services.dispatcher.capacity import Capacity
from services.dispatcher.lease import Lease, LeaseLostError
from services.dispatcher.metrics import DELIVERIES, FANNED_OUT, LATENESS_SECONDS, UNMATCHED
from services.dispatcher.planning import FIRST, Match, Plan, Planner

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

_Matched: TypeAlias = Mapping[UUID, tuple[Message, Match]]


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
        self._in_hand: set[UUID] = set()
        self._set_aside: dict[UUID, float] = {}
        self._stopping = asyncio.Event()
        self._planner = Planner(lease, capacity, breaking)
        self.batcher: Final[Batcher[Message, None]] = Batcher(
            self._fan_out,
            is_content_fault=_is_fault_of_a_message,
            max_items=BATCH_MESSAGES,
            max_weight=BATCH_ENDPOINTS,
            weight=lambda message: len(self._snapshot.endpoints(message.app)),
            linger=0.0,  # messages come in envelopes
            writers=2,
        )

    async def on_envelope(self, incoming: Incoming) -> None:
        """Fan out an envelope's messages, then acknowledge it; its attempts take their own time."""
        try:
            batch = envelope.decode(incoming.body)
        except envelope.MalformedEnvelopeError as error:
            _LOG.error("envelope.malformed", reason=str(error))
            incoming.nack(requeue=False)
            return
        if await self.take(batch, path="envelope"):
            incoming.ack()
        else:
            incoming.nack(requeue=True)

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
                again, failed = [], 0
                for message, future in zip(left, futures, strict=True):  # a batch, or a few: they end together
                    try:
                        await future
                    except Exception as error:  # noqa: BLE001  whatever it is, the others are fanned out
                        if not _is_fault_of_a_message(error):
                            again.append(message)
                            continue
                        failed += 1
                        # Its outbox row stays: the sweep comes back to it, in case the cause is mended.
                        _LOG.error("fanout.failed", message=encode(Prefix.MESSAGE, message.id), reason=repr(error))
                        self._set_aside[message.id] = clock.monotonic() + SET_ASIDE_SECONDS
                FANNED_OUT.labels(path).inc(len(left) - len(again) - failed)
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
        matched = {message.id: (message, await self._match(message)) for message in batch}
        done = await self._fan_out_at_once(matched)
        left = {identity: pair for identity, pair in matched.items() if identity not in done}
        if left:
            await self._fan_out_at_length(left)
        return [None] * len(batch)

    async def _fan_out_at_once(self, batch: "_Matched") -> AbstractSet[UUID]:
        """Fan out those of whose deliveries none touches a lane; which they were."""
        plan = Plan()
        at = max(clock.now(), *(message.accepted_at for message, _ in batch.values()))
        with self._disowning(plan):
            for message, match in batch.values():
                self._planner.add_at_once(plan, message, match, at)
            if not plan.fanned_out:
                return frozenset()
            reach(Failpoint.FAN_OUT_IN_TRANSACTION)
            taken = await at_once.begin(
                self._pool,
                self._lease,
                epoch=self._epoch,
                at=at,
                messages=[(message.id, fact) for message, _, fact in plan.fanned_out],
                attempts=plan.direct,
            )
        if len(taken) < len(plan.fanned_out):
            for flight in plan.keep(taken):
                self._capacity.give_back(flight.endpoint.id, flight.endpoint.app)
        self._begin(plan)
        return taken

    async def _fan_out_at_length(self, batch: "_Matched") -> None:
        """Fan out whatever waits in a lane, goes on from an earlier endpoint, or is fanned out already."""
        plan = Plan()
        with self._disowning(plan):
            async with transaction(self._pool) as connection:
                await self._write(connection, plan, batch)
                reach(Failpoint.FAN_OUT_IN_TRANSACTION)
        self._begin(plan)
        if not self._stopping.is_set():
            for message, _ in plan.unfinished:
                self.batcher.put(message)

    @contextmanager
    def _disowning(self, plan: Plan) -> Iterator[None]:
        """Where it fails, and whether it is committed may not be known: then what has begun is taken back."""
        try:
            yield
        except BaseException:
            for flight in plan.flights:
                self._attempts.disown(flight)
            raise

    def _begin(self, plan: Plan) -> None:
        """What is planned is committed."""
        reach(Failpoint.FAN_OUT_COMMITTED)
        for flight in plan.flights:
            LATENESS_SECONDS.observe((flight.started.at - flight.message.accepted_at).total_seconds())
            self._attempts.begin(flight)
        DELIVERIES.inc(plan.deliveries)
        UNMATCHED.inc(len(plan.unmatched))
        if plan.lanes:
            self._waiting([state for _, state, _ in plan.lined_up])

    async def _match(self, message: Message, after: UUID | None = None) -> Match:
        version = self._snapshot.version
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
        return Match(found=found, registry_version=version)

    async def _write(self, connection: Connection, plan: Plan, batch: "_Matched") -> None:
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
            (message, match), after, version = batch[row["message"]], row["after_endpoint"], FIRST
            if after is not None:
                match, version = await self._match(message, after), await _next_version(connection, message.id)
            self._planner.add(plan, message, match, max(now, message.accepted_at), version)
        await append(connection, self._epoch, plan.facts())
        await projection.insert(connection, plan.states())
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


async def _next_version(connection: Connection, stream: UUID) -> int:
    version: int = await connection.fetchval("SELECT max(version) + 1 FROM hookledger.fact WHERE stream = $1", stream)
    return version


def _is_fault_of_a_message(error: BaseException) -> bool:
    """Whether it is no sign of a server that is away, so that one message fails alone."""
    return isinstance(error, CONTENT_ERRORS) or not isinstance(error, _AWAY)
