"""The follower of the ledger: tells the broker what happened, off the attempt path, from where it had come to.

It reads below the snapshot's xmin in the order (epoch, xact, position), so that no transaction that commits late is
passed over. One process at a time follows; it publishes, awaits the confirms, then moves the checkpoint: at least once.

Most platforms have nobody who listens for outcomes, and to tell each of them would be a message of the broker for every
attempt. So of the types that nobody has bound a queue for, one in each batch is told, to ask the broker whether that is
still so; the others follow, in their order, as soon as it is not. Whoever has bound a queue gets all that is committed
from then on: it is read, and asked for, after that.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final
from uuid import UUID

import asyncpg

from libs.common.contracts.cloudevents import structured
from libs.common.domain.facts import MessageAccepted
from libs.common.postgres.checkpoint import Checkpoint
from libs.common.postgres.following import Tail
from libs.common.postgres.ledger import Appended
from libs.common.postgres.pool import CONNECTION_ERRORS, Pool
from libs.common.rabbitmq.broker import Broker
from libs.common.rabbitmq.connection import BrokerUnavailableError
from libs.common.rabbitmq.publishing import Outgoing
from libs.common.runtime.failpoints import Failpoint, reach
from libs.common.runtime.logs import logger
from libs.common.runtime.waiting import set_within
from services.dispatcher import messages
from services.dispatcher.events import KINDS, accepted, outcome, outcome_type
from services.dispatcher.metrics import FOLLOWED

_LOG: Final = logger("follower")
NAME: Final = "outcomes"
BATCH: Final = 2_000
POLL_SECONDS: Final = 0.25
AGAIN_SECONDS: Final = 1.0


class Follower:
    """Publishes outcomes that somebody listens for on `deliveries`, and accepted messages on `accepted`.

    Args:
        pool: of the dispatcher.
        broker: to publish on.
        process: this one.
        tail: by which the ledger is read.
    """

    def __init__(self, pool: Pool, broker: Broker, process: UUID, tail: Tail) -> None:
        self._pool = pool
        self._tail = tail
        self._broker = broker
        self._checkpoint = Checkpoint(NAME, process)
        self._unheard: frozenset[str] = frozenset()

    async def run(self, stopping: asyncio.Event) -> None:
        """Follow until told to stop, then let another go on."""
        while not stopping.is_set():
            pause = POLL_SECONDS
            try:
                while not stopping.is_set() and self._broker.ready and await self._step():
                    pass
            except BrokerUnavailableError as error:
                _LOG.warning("follower.interrupted", reason=str(error))
                pause = AGAIN_SECONDS
            except (*CONNECTION_ERRORS, asyncpg.PostgresError) as error:
                _LOG.warning("follower.interrupted", reason=str(error) or type(error).__name__)
                pause = AGAIN_SECONDS
            await set_within(stopping, pause)
        try:
            await self._checkpoint.leave(self._pool)
        except (*CONNECTION_ERRORS, asyncpg.PostgresError) as error:
            _LOG.info("follower.not_left", reason=str(error) or type(error).__name__)

    async def _step(self) -> bool:
        """Publish a batch; whether there may be more at once."""
        cursor = await self._checkpoint.own(self._pool)
        if cursor is None:
            return False
        batch = await self._tail.read_on(self._pool, cursor, kinds=KINDS, most=BATCH)
        if not batch.facts:
            return False
        await self._publish(batch.found)
        reach(Failpoint.FOLLOWER_PUBLISHED)
        await self._checkpoint.move(self._pool, batch.last)
        return batch.facts >= BATCH

    async def _publish(self, items: Sequence[Appended]) -> None:
        wanted = [item.stream for item in items if isinstance(item.fact, MessageAccepted) and item.fact.publish]
        if wanted:
            async with self._pool.acquire() as connection:
                bodies = await messages.read(connection, wanted)
            await self._send(self._broker.names.accepted, (accepted(bodies[s]) for s in wanted if s in bodies))
        await self._tell_outcomes(items)

    async def _tell_outcomes(self, items: Iterable[Appended]) -> None:
        """In their order; of a type that nobody listens for, the first alone."""
        asked: set[str] = set()
        told: list[tuple[Appended, str]] = []
        for item in items:
            event_type = outcome_type(item.fact)
            if event_type is None or event_type in asked:
                continue
            told.append((item, event_type))
            if event_type in self._unheard:
                await self._send_outcomes(told)
                told = []
                if event_type in self._unheard:
                    asked.add(event_type)
        await self._send_outcomes(told)

    async def _send_outcomes(self, told: Sequence[tuple[Appended, str]]) -> None:
        if not told:
            return
        rows = await self._pool.fetch(
            "SELECT delivery, message FROM delivery_state WHERE delivery = ANY($1)", [item.stream for item, _ in told]
        )
        message_of = {row["delivery"]: row["message"] for row in rows}
        events = (
            outcome(item, message_of[item.stream], event_type) for item, event_type in told if item.stream in message_of
        )
        unheard = await self._send(self._broker.names.deliveries, events, asking=True)
        self._unheard = self._unheard.difference(event_type for _, event_type in told) | unheard

    async def _send(self, exchange: str, events: Iterable[Outgoing], *, asking: bool = False) -> frozenset[str]:
        """Publish, and say which types nobody has bound a queue for, if asked."""
        sent = await self._broker.publish_many(exchange, events, content_type=structured.CONTENT_TYPE, asking=asking)
        FOLLOWED.labels(exchange).inc(sent.count)
        return sent.unheard
