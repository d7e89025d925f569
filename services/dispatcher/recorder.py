"""Recording how attempts ended: many outcomes, one transaction.

Those that end their deliveries, as most do, take one statement; what waits again, or is counted by a lane, takes a
transaction of several.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final
from uuid import UUID

import asyncpg
from msgspec import Struct
from msgspec.structs import replace

from libs.common.domain.commands import AbandonAttempt, DeclareUnknown, RecordAnswer
from libs.common.domain.delivery import Delivery, StaleAttemptError, Status, decide
from libs.common.domain.facts import DeliveryFact
from libs.common.domain.ids import Prefix, encode
from libs.common.domain.outcome import Answer
from libs.common.postgres.pool import CONTENT_ERRORS, RETRYABLE_ERRORS, Connection, Pool, transaction
from libs.common.runtime.batcher import Batcher
from libs.common.runtime.failpoints import Failpoint, reach
from libs.common.runtime.logs import logger
from services.dispatcher import at_once, projection, transitions
from services.dispatcher.breaking import Breaking
from services.dispatcher.flight import Flight
from services.dispatcher.lease import Lease
from services.dispatcher.metrics import ATTEMPT_SECONDS, ATTEMPTS
from services.dispatcher.transitions import Transition

_LOG: Final = logger("recorder")
BATCH: Final = 256
LINGER_SECONDS: Final = 0.015
_TRIES: Final = 5


class Ending(Struct, frozen=True, kw_only=True, gc=False):
    """An attempt's end as it was seen here, at the command's time, or the database's where a transaction asks for that.

    `response` is what is kept of the answer's body, `url_query` what the ledger leaves out of the URL.
    """

    flight: Flight
    command: RecordAnswer | AbandonAttempt | DeclareUnknown
    response: bytes = b""
    url_query: str | None = None


class Recorder:
    """The batching writer of outcomes.

    Args:
        pool: of the dispatcher.
        epoch: of the ledger.
        lease: without which nothing is recorded.
        waiting: called with deliveries that wait again.
        breaking: is told what attempts say of their receivers, and what probes have come to.
    """

    def __init__(
        self,
        pool: Pool,
        epoch: int,
        lease: Lease,
        waiting: Callable[[Sequence[Delivery]], None],
        breaking: Breaking,
    ) -> None:
        self._pool = pool
        self._epoch = epoch
        self._lease = lease
        self._waiting = waiting
        self._breaking = breaking
        self.batcher: Final[Batcher[Ending, Transition | None]] = Batcher(
            self._write,
            is_content_fault=lambda error: isinstance(error, CONTENT_ERRORS),
            max_items=BATCH,
            linger=LINGER_SECONDS,
            writers=2,
        )

    async def _write(self, batch: Sequence[Ending]) -> Sequence[Transition | None]:
        """A transition for each ending, or None where the attempt was declared unknown meanwhile.

        Raises:
            LeaseLostError: this process may record nothing.
        """
        settled: dict[int, Transition | None] = {}
        for _ in range(_TRIES):
            try:
                settled |= await self._record_at_once(_but(batch, settled))
                if left := _but(batch, settled):
                    settled |= await self._record_at_length(left)
                break
            except RETRYABLE_ERRORS as error:
                _LOG.info("recorder.again", reason=str(error))
        else:
            raise asyncpg.DeadlockDetectedError("the transaction lost too often")
        results = [settled[place] for place in range(len(batch))]
        transitions.count_ended(results)
        waiting = [result.after for result in results if result is not None and result.after.open]
        if waiting or any(ending.flight.counted for ending in batch):
            self._waiting(waiting)
        self._note(zip(batch, results, strict=True))
        return results

    def _note(self, recorded: Iterable[tuple[Ending, Transition | None]]) -> None:
        """Count attempts and remember what they say of their receivers, once that is committed."""
        statuses: Counter[Status] = Counter()
        for ending, transition in recorded:
            command = ending.command
            if transition is not None and isinstance(command, RecordAnswer):
                statuses[transition.after.status] += 1
                ATTEMPT_SECONDS.observe(command.timings.total.total_seconds())
                self._breaking.note(ending.flight, command.answer, command.at)
        for status, count in statuses.items():
            ATTEMPTS.labels(status).inc(count)

    async def _record_at_once(self, batch: Mapping[int, Ending]) -> dict[int, Transition | None]:
        """Record what ends its delivery, where nothing has changed that meanwhile; by place in the batch."""
        over: dict[UUID, tuple[int, Transition]] = {}
        for place, ending in batch.items():
            flight, command = ending.flight, ending.command
            if flight.counted or flight.delivery in over or not isinstance(command, RecordAnswer):
                continue
            transition = _transition(flight, flight.state, decide(flight.state, command))
            if not transition.after.open and transition.after.status.terminal:
                over[flight.delivery] = place, transition
        if not over:
            return {}
        reach(Failpoint.RECORD_IN_TRANSACTION)
        done = await at_once.end(
            self._pool,
            self._lease,
            epoch=self._epoch,
            attempts=[
                at_once.LastAttempt(
                    delivery=delivery,
                    before=transition.before,
                    facts=transition.facts,
                    after=transition.after,
                    started=batch[place].flight.started,
                    response=batch[place].response,
                    url_query=batch[place].url_query,
                )
                for delivery, (place, transition) in over.items()
            ],
        )
        reach(Failpoint.RECORD_COMMITTED)
        return dict(over[delivery] for delivery in done)

    async def _record_at_length(self, batch: Mapping[int, Ending]) -> dict[int, Transition | None]:
        """Record whatever waits again, or is counted by a lane, or is no longer what it was."""
        endings = list(batch.values())
        async with transaction(self._pool) as connection:
            results = await self._record(connection, endings)
            over = await self._breaking.settle(connection, _probes(endings, results))
            reach(Failpoint.RECORD_IN_TRANSACTION)
        reach(Failpoint.RECORD_COMMITTED)
        self._breaking.tell(over)
        return dict(zip(batch, results, strict=True))

    async def _record(self, connection: Connection, batch: Sequence[Ending]) -> list[Transition | None]:
        now = await self._lease.fence(connection)
        states = await projection.lock(connection, sorted(ending.flight.delivery for ending in batch))
        results: list[Transition | None] = []
        for ending in batch:
            flight = ending.flight
            before = states.get(flight.delivery)
            if before is None:
                results.append(None)  # its start was never committed
                continue
            try:
                facts = decide(before, replace(ending.command, at=now))
            except StaleAttemptError as stale:
                # Settled for this stream alone: somebody declared the attempt unknown and went on.
                _LOG.warning("attempt.stale", delivery=encode(Prefix.DELIVERY, flight.delivery), reason=str(stale))
                results.append(None)
                continue
            results.append(_transition(flight, before, facts))
        written = [result for result in results if result is not None]
        await transitions.write(connection, self._epoch, written, now)
        await _keep_contents(connection, [e for e, result in zip(batch, results, strict=True) if result is not None])
        return results


def _but(batch: Sequence[Ending], settled: Mapping[int, object]) -> Mapping[int, Ending]:
    """What is left of a batch, by place."""
    return {place: ending for place, ending in enumerate(batch) if place not in settled}


def _transition(flight: Flight, before: Delivery, facts: Sequence[DeliveryFact]) -> Transition:
    return Transition.of(
        delivery=flight.delivery,
        before=before,
        facts=facts,
        started=flight.started,
        lane=flight.lane,
        counted=flight.counted,
        max_inflight=flight.endpoint.max_inflight,
    )


def _probes(batch: Sequence[Ending], results: Sequence[Transition | None]) -> Sequence[tuple[Flight, Answer | None]]:
    """The attempts among these, as far as they were recorded, that went through a breaker, with their answers."""
    return [
        (ending.flight, ending.command.answer if isinstance(ending.command, RecordAnswer) else None)
        for ending, result in zip(batch, results, strict=True)
        if ending.flight.probe and result is not None
    ]


async def _keep_contents(connection: Connection, endings: Sequence[Ending]) -> None:
    """Keep what can be erased apart from the facts."""
    kept = [ending for ending in endings if ending.response or ending.url_query]
    if kept:
        await connection.execute(
            """
            INSERT INTO hookledger.attempt_content (delivery, attempt, response, url_query)
            SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bytea[], $4::text[])
            """,
            [ending.flight.delivery for ending in kept],
            [ending.flight.started.attempt for ending in kept],
            [ending.response for ending in kept],
            [ending.url_query for ending in kept],
        )
