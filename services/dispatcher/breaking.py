"""Circuit breakers: who opens them, who closes them, and what this process knows of those that are not closed.

What each dispatcher has seen itself only tells it when to look. Whether an endpoint is down is then read off the
attempts that are recorded, so that one whose own network is broken keeps nobody from delivering, and nothing is written
for endpoints that answer. Claims ask the rows themselves; first attempts that touch no lane ask what this process knew
a second ago at most.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg

from libs.common.domain.breaker import (
    WINDOW,
    Breaker,
    BreakerPolicy,
    Ended,
    Run,
    Sign,
    is_suspicious,
    note,
    opened,
    sign,
)
from libs.common.domain.delivery import Delivery
from libs.common.domain.endpoint import Endpoint
from libs.common.domain.ids import Prefix, encode
from libs.common.domain.outcome import Answer
from libs.common.postgres.pool import CONNECTION_ERRORS, RETRYABLE_ERRORS, Connection, Pool, transaction
from libs.common.postgres.snapshot import RegistrySnapshot
from libs.common.runtime import clock
from libs.common.runtime.logs import logger
from libs.common.runtime.waiting import set_within
from services.dispatcher import breakers, lanes
from services.dispatcher.flight import Flight
from services.dispatcher.lease import Lease
from services.dispatcher.metrics import BREAKERS, BREAKERS_OPEN

_LOG: Final = logger("breaking")
LOOK_SECONDS: Final = 1.0
JUDGED_AT_ONCE: Final = 100
"""Endpoints in one look: where this process's own network is broken, all seem to be down."""
REMEMBERED: Final = timedelta(hours=1)
"""For how long it is known when a breaker has closed: what was kept back until then goes out within that time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeOver:
    """What became of a breaker, once that is committed. `breaker` is None where it is closed."""

    endpoint: Endpoint
    found: Sign | None
    now: datetime
    breaker: Breaker | None


class Breaking:
    """What this process has to do with breakers.

    Args:
        pool: of the dispatcher.
        lease: of this process.
        snapshot: of the registry.
        policy: of the installation; None: there are no breakers.
        waiting: called when lanes may be served again.
    """

    def __init__(
        self,
        *,
        pool: Pool,
        lease: Lease,
        snapshot: RegistrySnapshot,
        policy: BreakerPolicy | None,
        waiting: Callable[[Sequence[Delivery]], None],
    ) -> None:
        self._pool = pool
        self._lease = lease
        self._snapshot = snapshot
        self._policy = policy
        self._waiting = waiting
        self._runs: dict[UUID, Run] = {}
        self._known: dict[UUID, Breaker] = {}
        self._closed_at: dict[UUID, datetime] = {}
        self._looks: dict[UUID, tuple[UUID, datetime]] = {}
        self._next_look = 0.0
        self._wake = asyncio.Event()

    @property
    def on(self) -> bool:
        """Whether there are breakers."""
        return self._policy is not None

    def closed(self, endpoint: Endpoint) -> bool:
        """Whether a first attempt may begin at once, as far as this process knows."""
        known = self._known.get(endpoint.id)
        return known is None or not known.concerns(endpoint.version)

    def kept_waiting(self, endpoint: UUID, due_at: datetime) -> bool:
        """Whether a breaker kept back what was due at that time."""
        return endpoint in self._known or due_at < self._closed_at.get(endpoint, due_at)

    def note(self, flight: Flight, answer: Answer, at: datetime) -> None:
        """An attempt's end is recorded: remember what it says of the receiver."""
        identity = flight.endpoint.id
        found, run = sign(answer), self._runs.get(identity)
        if self._policy is None or found is None or (found is Sign.UP and run is None):
            return
        started = flight.started
        ended = Ended(config_version=started.config_version, started_at=started.at, ended_at=at, sign=found)
        after = note(run, ended)
        if after is None:
            del self._runs[identity]
        else:
            self._runs[identity] = after

    async def settle(
        self, connection: Connection, probes: Sequence[tuple[Flight, Answer | None]]
    ) -> Sequence[ProbeOver]:
        """Bring breakers to what their probes have come to.

        Args:
            connection: in the transaction that has recorded the ends, and waits for no lane from here on.
            probes: with their answers; None: nothing was sent.
        """
        if self._policy is None or not probes:
            return ()
        of_endpoint = {flight.endpoint.id: (flight, answer) for flight, answer in probes}
        now, probed = await breakers.lock_probed(
            connection, {endpoint: flight.delivery for endpoint, (flight, _) in of_endpoint.items()}
        )
        over = []
        for endpoint, breaker in probed.items():
            flight, answer = of_endpoint[endpoint]
            found = None if answer is None else sign(answer)
            after = breaker.after_probe(found, now, self._policy, flight.endpoint.retry.schedule)
            over.append(ProbeOver(endpoint=flight.endpoint, found=found, now=now, breaker=after))
        await breakers.save(connection, {probe.endpoint.id: probe.breaker for probe in over})
        return over

    def tell(self, over: Sequence[ProbeOver]) -> None:
        """These probes are over, and that is committed."""
        for probe in over:
            if probe.breaker is None:
                self._close(probe.endpoint.id, probe.endpoint.app, probe.now, "answered")
                continue
            self._known[probe.endpoint.id] = probe.breaker
            self._look_from(probe.endpoint.id, probe.endpoint.app, max(probe.now, probe.breaker.open_until))
            if probe.found is Sign.DOWN:
                BREAKERS.labels("reopened").inc()
                _LOG.info(
                    "breaker.reopened",
                    endpoint=str(probe.endpoint.id),
                    openings=probe.breaker.openings,
                    open_until=probe.breaker.open_until,
                )

    def wake(self) -> None:
        """It is time to stop."""
        self._wake.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Look each second, until told to stop; pass on at once what probes have come to."""
        if self._policy is None:
            return
        while not stopping.is_set():
            self._wake.clear()
            await self._look_and_pass_on(self._policy)
            await set_within(self._wake, LOOK_SECONDS)
        await self._look_and_pass_on(self._policy)

    async def _look_and_pass_on(self, policy: BreakerPolicy) -> None:
        try:
            if clock.monotonic() >= self._next_look:
                self._next_look = clock.monotonic() + LOOK_SECONDS
                await self._look(policy)
            await self._pass_on()
        except (*CONNECTION_ERRORS, *RETRYABLE_ERRORS, asyncpg.PostgresError) as error:
            _LOG.warning("breaking.interrupted", reason=str(error) or type(error).__name__)

    async def _look(self, policy: BreakerPolicy) -> None:
        rows = await breakers.read(self._pool)
        now = clock.now()
        self._closed_at = {endpoint: at for endpoint, at in self._closed_at.items() if now - at < REMEMBERED}
        self._closed_at |= dict.fromkeys(self._known.keys() - rows.keys(), now)
        self._known = {endpoint: row.breaker for endpoint, row in rows.items()}
        BREAKERS_OPEN.set(len(rows))
        await self._forget_unwanted(rows)
        for endpoint, row in rows.items():
            if row.abandoned is not None and await breakers.give_up(self._pool, endpoint, row.abandoned):
                self._look_from(endpoint, row.app, row.breaker.open_until)
        self._runs = {endpoint: run for endpoint, run in self._runs.items() if now - run.last_at < WINDOW}
        dispatchers = self._lease.standing.of
        suspicious = [
            (endpoint, run)
            for endpoint, run in self._runs.items()
            if endpoint not in self._known and is_suspicious(run, policy, dispatchers)
        ]
        for endpoint, run in suspicious[:JUDGED_AT_ONCE]:
            await self._judge(endpoint, run, policy)

    async def _forget_unwanted(self, rows: Mapping[UUID, breakers.Row]) -> None:
        """Close breakers of earlier configurations, and of endpoints that are disabled or deleted."""
        if not self._unwanted(rows):
            return
        await self._snapshot.catch_up()  # what seems unknown may be new
        for endpoint in self._unwanted(rows):
            row = rows[endpoint]
            if await breakers.forget(self._pool, endpoint, row.breaker.config_version):
                self._close(endpoint, row.app, row.breaker.opened_at, "changed")

    def _unwanted(self, rows: Mapping[UUID, breakers.Row]) -> Collection[UUID]:
        return [
            identity
            for identity, row in rows.items()
            if (endpoint := self._snapshot.wanted(identity)) is None or not row.breaker.concerns(endpoint.version)
        ]

    async def _judge(self, identity: UUID, run: Run, policy: BreakerPolicy) -> None:
        """Open the breaker of an endpoint that is down for all."""
        self._runs.pop(identity, None)  # what is found not to be so is looked at again after as many failures
        endpoint = self._snapshot.wanted(identity)
        if endpoint is None or endpoint.version != run.config_version:
            return
        now, evidence = await breakers.evidence(
            self._pool, identity, config_version=run.config_version, since=run.since
        )
        if not evidence.is_down(policy):
            return
        breaker = opened(run.config_version, now, policy, endpoint.retry.schedule)
        if not await breakers.add(self._pool, identity, endpoint.app, breaker):
            return
        self._known[identity] = breaker
        self._look_from(identity, endpoint.app, breaker.open_until)
        BREAKERS.labels("opened").inc()
        _LOG.warning(
            "breaker.opened",
            endpoint=encode(Prefix.ENDPOINT, identity),
            attempts=evidence.down,
            open_until=breaker.open_until,
        )

    def _close(self, endpoint: UUID, app: UUID, look_at: datetime, reason: str) -> None:
        self._known.pop(endpoint, None)
        self._closed_at[endpoint] = clock.now()
        self._runs.pop(endpoint, None)
        self._look_from(endpoint, app, look_at)
        BREAKERS.labels("closed").inc()
        _LOG.info("breaker.closed", endpoint=encode(Prefix.ENDPOINT, endpoint), reason=reason)

    def _look_from(self, endpoint: UUID, app: UUID, at: datetime) -> None:
        """Have an endpoint's lanes looked at from then on. Should this process die before, they are in the end."""
        self._looks[endpoint] = (app, at)
        self._wake.set()

    async def _pass_on(self) -> None:
        while self._looks:
            endpoint, (app, at) = wanted = next(iter(self._looks.items()))
            async with transaction(self._pool) as connection:
                await lanes.look_from(connection, app, endpoint, at)
            if self._looks.get(endpoint) == wanted[1]:
                del self._looks[endpoint]
            self._waiting([])
