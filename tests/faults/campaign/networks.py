"""Harm to the networks between services, servers and receivers."""

import asyncio
import time
from collections.abc import Callable

from tests.faults.campaign.plan import Fault
from tests.faults.campaign.world import World
from tests.support.network import Link


async def latency(world: World, fault: Fault) -> bool:
    def slow_down(link: Link) -> None:
        link.latency = fault.extent

    return await _for_a_while(world, fault, slow_down)


async def hold(world: World, fault: Fault) -> bool:
    return await _for_a_while(world, fault, Link.hold)


async def half_open(world: World, fault: Fault) -> bool:
    return await _for_a_while(world, fault, Link.half_open)


async def slices(world: World, fault: Fault) -> bool:
    def cut_up(link: Link) -> None:
        link.slices = True

    return await _for_a_while(world, fault, cut_up)


async def reset(world: World, fault: Fault) -> bool:
    """Again and again: every connection that was opened anew, too."""
    async with world.turn(fault.target):
        until = time.monotonic() + fault.lasts
        while time.monotonic() < until:
            world.links[fault.target].reset()
            await asyncio.sleep(0.25)
    return True


async def _for_a_while(world: World, fault: Fault, harm: Callable[[Link], None]) -> bool:
    async with world.turn(fault.target):
        link = world.links[fault.target]
        harm(link)
        await asyncio.sleep(fault.lasts)
        link.heal()
    return True
