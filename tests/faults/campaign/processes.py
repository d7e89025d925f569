"""Harm to our own processes: signals, at random and at failpoints; clocks; the operator's command."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Final

from deploy.stack.services import environment
from libs.common.runtime.failpoints import Failpoint
from tests.faults.campaign.errors import FaultFailedError
from tests.faults.campaign.plan import REPLICAS, Fault
from tests.faults.campaign.world import World

HIT_SECONDS: Final = 8.0
REBUILD_SECONDS: Final = 60.0
OPERATOR_ERRS: Final = 2


async def kill(world: World, fault: Fault) -> bool:
    async with world.turn(fault.target):
        await world.kill(fault.target)
        await asyncio.sleep(fault.lasts)
        await world.start(fault.target)
    return True


async def kill_at(world: World, fault: Fault) -> bool:
    assert fault.point is not None
    async with world.turn(fault.target):
        points = world.failpoints[fault.target]
        points.arm(fault.point, "kill")
        world.killed.add(fault.target)
        hit = await _is_hit(world, fault)
        if not hit:
            points.disarm()
        await asyncio.sleep(fault.lasts if hit else 0)
        await world.start(fault.target)
    return hit


async def freeze(world: World, fault: Fault) -> bool:
    async with world.turn(fault.target):
        world.freeze(fault.target)
        await asyncio.sleep(fault.lasts)
        world.thaw(fault.target)
    return True


async def freeze_at(world: World, fault: Fault) -> bool:
    assert fault.point is not None
    async with world.turn(fault.target):
        points = world.failpoints[fault.target]
        points.arm(fault.point, "freeze")
        hit = await _is_hit(world, fault)
        if hit:
            await asyncio.sleep(fault.lasts)
        points.disarm()
        world.thaw(fault.target)
    return hit


async def _is_hit(world: World, fault: Fault) -> bool:
    """Whether the armed point is reached in time; there is only something to take over when somebody has died."""
    assert fault.point is not None
    if fault.point is Failpoint.RECLAIM_IN_TRANSACTION:
        other = "dispatcher-1" if fault.target == "dispatcher-2" else "dispatcher-2"
        async with world.turn(other):
            await world.kill(other)
            hit = await _reached(world, fault)
            await world.start(other)
        return hit
    return await _reached(world, fault)


async def _reached(world: World, fault: Fault) -> bool:
    assert fault.point is not None
    try:
        await world.failpoints[fault.target].hit(fault.point, within=HIT_SECONDS)
    except AssertionError:
        return False
    return True


async def roll(world: World, _: Fault) -> bool:
    for name in REPLICAS:
        async with world.turn(name):
            stopped = await world.stop(name)
            await world.start(name)
        if not stopped:
            raise FaultFailedError(f"{name} did not stop within its grace")
    return True


async def clock(world: World, fault: Fault) -> bool:
    """A replica starts on a machine whose clock is wrong; one that runs reads its machine's clock no more."""
    async with world.turn(fault.target):
        world.failpoints[fault.target].step_clock(fault.extent)
        await world.kill(fault.target)
        await world.start(fault.target)
        await asyncio.sleep(fault.lasts)
        world.failpoints[fault.target].disarm()
    return True


async def rebuild_killed(world: World, fault: Fault) -> bool:
    """Kill a rebuild at one of its chunks; then have one come to its end, however often the servers go meanwhile."""
    points = world.failpoints["admin"]
    points.arm(Failpoint.REBUILD_CHUNK, "kill", after=int(fault.extent))
    first = await asyncio.to_thread(_rebuild, world, points.settings)
    points.disarm()
    deadline = time.monotonic() + REBUILD_SECONDS
    while (again := await asyncio.to_thread(_rebuild, world, points.settings)).returncode == OPERATOR_ERRS:
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(0.5)
    if again.returncode:
        raise FaultFailedError(f"rebuild exits with {again.returncode}: {(again.stderr or again.stdout)[-300:]}")
    return first.returncode == -signal.SIGKILL


def _rebuild(world: World, settings: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "services.admin", "rebuild"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env=environment({"DATABASE_URL": world.database_url, **settings}),
        cwd=world.installation.code,
        timeout=REBUILD_SECONDS,
    )
