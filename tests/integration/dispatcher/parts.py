"""The parts of a dispatcher, put together in this process as `services.dispatcher.app` puts them together."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from libs.common.domain.addresses import AddressPolicy
from libs.common.domain.breaker import BreakerPolicy
from libs.common.domain.delivery import Delivery
from libs.common.postgres.pool import Pool, open_pool
from libs.common.postgres.snapshot import RegistrySnapshot
from services.dispatcher.attempts import Attempts
from services.dispatcher.breaking import Breaking
from services.dispatcher.cancelling import Cancelling
from services.dispatcher.capacity import Capacity
from services.dispatcher.claims import Claims
from services.dispatcher.fanout import FanOuts
from services.dispatcher.jobs import Jobs
from services.dispatcher.lean_sender import LeanSender
from services.dispatcher.lease import Lease
from services.dispatcher.recorder import Recorder
from services.dispatcher.skips import Skips
from tests.integration.dispatcher.sending import TRUST
from tests.integration.dispatcher.world import World

POLICY = AddressPolicy(development=True)
DEFAULT = BreakerPolicy()


@dataclass(slots=True, kw_only=True)
class Parts:
    """One dispatcher's; its batchers run, its lease has begun and its snapshot is current."""

    world: World
    pool: Pool
    lease: Lease
    snapshot: RegistrySnapshot
    capacity: Capacity
    recorder: Recorder
    attempts: Attempts
    claims: Claims
    breaking: Breaking
    cancelling: Cancelling
    fan_outs: FanOuts
    skips: Skips
    jobs: Jobs
    tasks: asyncio.TaskGroup
    stopping: asyncio.Event

    def start_claiming(self) -> None:
        """Claim waiting deliveries from now on, and cancel those of endpoints that are taken away."""
        self.tasks.create_task(self.claims.run(self.stopping))
        self.tasks.create_task(self.cancelling.run(self.stopping))
        self.tasks.create_task(self.breaking.run(self.stopping))

    def start_jobs(self) -> None:
        """Work through jobs from now on."""
        self.tasks.create_task(self.jobs.run(self.stopping))

    def start_sweeping(self) -> None:
        """Take overdue messages from now on."""
        self.tasks.create_task(self.fan_outs.sweep())

    def start_renewing(self) -> None:
        """Keep the lease from now on."""
        self.tasks.create_task(self.lease.run(self.stopping))


@asynccontextmanager
async def dispatching(
    world: World, *, most: int = 256, renewing: bool = True, breaker: BreakerPolicy | None = DEFAULT
) -> AsyncIterator[Parts]:
    """A dispatcher without a broker, whose loops the test starts."""
    pool = await open_pool(world.url, "dispatcher", size=6)
    async with pool, LeanSender(POLICY, trust=TRUST) as sender:
        snapshot = RegistrySnapshot(pool, world.keys)
        await snapshot.catch_up()
        capacity = Capacity(most)

        async def lost() -> None:
            await attempts.drop()

        def note(waiting: Sequence[Delivery]) -> None:
            claims.note(waiting)
            cancelling.note(waiting)

        lease = Lease(pool, lost, capacity.shared_anew)
        breaking = Breaking(pool=pool, lease=lease, snapshot=snapshot, policy=breaker, waiting=note)
        recorder = Recorder(pool, world.epoch, lease, note, breaking)
        attempts = Attempts(sender, recorder, lease, capacity, POLICY)
        claims = Claims(
            pool=pool,
            epoch=world.epoch,
            lease=lease,
            snapshot=snapshot,
            capacity=capacity,
            attempts=attempts,
            breaking=breaking,
        )
        cancelling = Cancelling(pool=pool, epoch=world.epoch, lease=lease, snapshot=snapshot)
        fan_outs = FanOuts(
            pool=pool,
            epoch=world.epoch,
            lease=lease,
            snapshot=snapshot,
            capacity=capacity,
            attempts=attempts,
            waiting=note,
            breaking=breaking,
        )
        jobs = Jobs(pool=pool, epoch=world.epoch, lease=lease, snapshot=snapshot, requested=note)
        await lease.begin()
        stopping = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fan_outs.batcher.run())
            tasks.create_task(recorder.batcher.run())
            parts = Parts(
                world=world,
                pool=pool,
                lease=lease,
                snapshot=snapshot,
                capacity=capacity,
                recorder=recorder,
                attempts=attempts,
                claims=claims,
                breaking=breaking,
                cancelling=cancelling,
                fan_outs=fan_outs,
                skips=Skips(pool, world.epoch, lease, note),
                jobs=jobs,
                tasks=tasks,
                stopping=stopping,
            )
            if renewing:
                parts.start_renewing()
            try:
                yield parts
            finally:
                stopping.set()
                fan_outs.stop()
                claims.note([])
                cancelling.wake()
                breaking.wake()
                jobs.wake()
                await attempts.drain(5)
                recorder.batcher.stop()
        if not await pool.fetchval("SELECT count(*) FROM hookledger.queue WHERE owner = $1", lease.process):
            await lease.end()  # otherwise it dies, and whoever reclaims finds its row
