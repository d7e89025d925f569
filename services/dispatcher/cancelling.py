"""Cancelling what waits for endpoints that nobody wants any more, because they were disabled or deleted.

Once a dispatcher knows of the change it begins no attempt: whoever claims asks the registry first. What waits is then
taken from its lanes, due or not, a chunk for each transaction and beside the claims, so that nobody else waits for it,
however much it is. Dispatchers that do so at the same time share the lanes.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg

from libs.common.domain.commands import Cancel, Command, DropResend
from libs.common.domain.delivery import Delivery, NotWaitingError, decide
from libs.common.domain.endpoint import Endpoint
from libs.common.domain.facts import CancelReason, DropReason
from libs.common.domain.ids import Prefix, encode
from libs.common.postgres.pool import CONNECTION_ERRORS, Connection, Pool, transaction
from libs.common.postgres.snapshot import RegistrySnapshot
from libs.common.runtime.logs import logger
from libs.common.runtime.waiting import set_within
from services.dispatcher import lanes, projection, transitions
from services.dispatcher.lease import Lease, LeaseLostError
from services.dispatcher.transitions import Transition

_LOG: Final = logger("cancelling")
CHUNK: Final = 256
WATCH_SECONDS: Final = 1.0
BUSY_SECONDS: Final = 0.1
"""Before another look where others hold the lanes, or the registry is just changing."""


class Cancelling:
    """The loop that cancels. It looks after each change of the registry, and when it is told to."""

    def __init__(self, *, pool: Pool, epoch: int, lease: Lease, snapshot: RegistrySnapshot) -> None:
        self._pool = pool
        self._epoch = epoch
        self._lease = lease
        self._snapshot = snapshot
        self._wake = asyncio.Event()
        self._done_as_of = -1

    def note(self, waiting: Sequence[Delivery]) -> None:
        """These deliveries wait now: those of unwanted endpoints were in flight when the others were cancelled."""
        if any(self._snapshot.wanted(state.endpoint) is None for state in waiting):
            self._done_as_of = -1
            self._wake.set()

    def wake(self) -> None:
        """The registry has changed, or it is time to stop: look now."""
        self._wake.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Cancel until told to stop."""
        while not stopping.is_set():
            self._wake.clear()
            pause = WATCH_SECONDS
            try:
                if self._snapshot.version != self._done_as_of:
                    if await self._look(stopping):
                        continue
                    pause = BUSY_SECONDS
            except LeaseLostError:
                pass
            except (*CONNECTION_ERRORS, asyncpg.PostgresError) as error:
                _LOG.warning("cancelling.interrupted", reason=str(error) or type(error).__name__)
            await set_within(self._wake, pause)

    async def _look(self, stopping: asyncio.Event) -> int:
        """Cancel a chunk for each unwanted endpoint that something waits for; how many deliveries that were."""
        await self._snapshot.catch_up()
        version = self._snapshot.version
        async with self._pool.acquire() as connection:
            waiting = await lanes.waiting_endpoints(connection)
        unwanted = [identity for identity in waiting if self._snapshot.wanted(identity) is None]
        if not unwanted:
            self._done_as_of = version
        cancelled = 0
        for identity in unwanted:
            if not stopping.is_set():
                async with transaction(self._pool) as connection:
                    changed = await self._cancel_some(connection, identity)
                transitions.count_ended(changed)
                cancelled += len(changed)
        return cancelled

    async def _cancel_some(self, connection: Connection, identity: UUID) -> list[Transition]:
        now = await self._lease.fence(connection)
        changes, deliveries = await lanes.take_waiting(connection, identity, most=CHUNK)
        states = await projection.lock(connection, sorted(deliveries))
        if not await self._snapshot.is_current(connection) or self._snapshot.wanted(identity) is not None:
            return []  # what was taken may be meant for an endpoint that is wanted again
        endpoint = self._snapshot.endpoint(identity)
        changed: list[Transition] = []
        for delivery, state in states.items():
            try:
                facts = decide(state, given_up(state, endpoint, now))
                changed.append(Transition.of(delivery=delivery, before=state, facts=facts))
            except NotWaitingError as error:
                _LOG.error("cancelling.not_waiting", delivery=encode(Prefix.DELIVERY, delivery), status=str(error))
        await transitions.write_facts(connection, self._epoch, changed)
        await lanes.finish(connection, [change.delivery for change in changed])
        await lanes.refresh(connection, changes, now, served=False)
        return changed


def given_up(state: Delivery, endpoint: Endpoint | None, now: datetime) -> Command:
    """What becomes of a delivery whose endpoint is disabled, or deleted and so None."""
    if endpoint is None:
        return ended(state, now, CancelReason.ENDPOINT_DELETED, DropReason.ENDPOINT_DELETED)
    return ended(state, now, CancelReason.ENDPOINT_DISABLED, DropReason.ENDPOINT_DISABLED)


def ended(state: Delivery, now: datetime, cancel: CancelReason, drop: DropReason) -> Command:
    """Nothing can be sent: what waits is cancelled; of what is over, only the manual attempt is given up."""
    return DropResend(at=now, reason=drop) if state.status.terminal else Cancel(at=now, reason=cancel)
