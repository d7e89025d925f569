"""Harm to our own processes: signals, at random and at failpoints; clocks; the operator's command."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Final

from deploy.stack.services import environment
from libs.common.runtime.failpoints import Failpoint
from tests.faults.campaign.errors import FaultFailedError
from tests.faults.campaign.plan import REPLICAS, Fault
from tests.faults.campaign.world import World

HIT_SECONDS: Final = 8.0
REBUILD_SECONDS: Final = 60.0


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
    """The clock steps under a running replica, and another time while it starts."""
    async with world.turn(fault.target):
        world.failpoints[fault.target].step_clock(fault.extent)
        await asyncio.sleep(1.0)
        await world.kill(fault.target)
        await world.start(fault.target)
        await asyncio.sleep(fault.lasts)
        world.failpoints[fault.target].disarm()
    return True


async def rebuild_killed(world: World, _: Fault) -> bool:
    points = world.failpoints["admin"]
    points.arm(Failpoint.REBUILD_CHUNK, "kill")
    settings = {"DATABASE_URL": world.database_url, **points.settings}
    first = await asyncio.to_thread(_rebuild, world, settings)
    points.disarm()
    again = await asyncio.to_thread(_rebuild, world, settings)
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
        env=environment(settings),
        cwd=world.installation.code,
        timeout=REBUILD_SECONDS,
    )
