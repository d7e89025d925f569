"""Every kind of fault, and what does it. Each is real: signals, servers, sockets, locks."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from tests.faults.campaign import broker, networks, postgres, processes
from tests.faults.campaign.plan import Fault, Kind
from tests.faults.campaign.world import World


async def inject(world: World, fault: Fault) -> bool:
    """Do it, let it last, mend it; whether it came about (a failpoint may not be reached in time).

    Raises:
        FaultFailedError: something did not come back, or did not stop.
    """
    return await FAULTS[fault.kind](world, fault)


async def _overload(_: World, fault: Fault) -> bool:
    """The load itself does it."""
    await asyncio.sleep(fault.lasts)
    return True


FAULTS: Final[Mapping[Kind, Callable[[World, Fault], Awaitable[bool]]]] = {
    Kind.KILL: processes.kill,
    Kind.KILL_AT: processes.kill_at,
    Kind.FREEZE: processes.freeze,
    Kind.FREEZE_AT: processes.freeze_at,
    Kind.ROLL: processes.roll,
    Kind.CLOCK: processes.clock,
    Kind.REBUILD_KILLED: processes.rebuild_killed,
    Kind.BROKER_RESTART: broker.restart,
    Kind.BROKER_KILL: broker.kill,
    Kind.BROKER_WIPE: broker.wipe,
    Kind.BROKER_ALARM: broker.alarm,
    Kind.BROKER_DROPS: broker.drops,
    Kind.CONFIRMS_LOST: broker.confirms_lost,
    Kind.UNCONFIRMED_KILL: broker.unconfirmed_kill,
    Kind.QUEUE_DELETED: broker.queue_deleted,
    Kind.POISON: broker.poison,
    Kind.POSTGRES_KILL: postgres.kill,
    Kind.POSTGRES_IMMEDIATE: postgres.immediate,
    Kind.BACKENDS_ENDED: postgres.backends_ended,
    Kind.LOCK_HELD: postgres.lock_held,
    Kind.DEADLOCK: postgres.deadlock,
    Kind.SERIALIZATION: postgres.serialization,
    Kind.COMMITS_LOST: postgres.commits_lost,
    Kind.LATENCY: networks.latency,
    Kind.RESET: networks.reset,
    Kind.HOLD: networks.hold,
    Kind.HALF_OPEN: networks.half_open,
    Kind.SLICES: networks.slices,
    Kind.OVERLOAD: _overload,
}
