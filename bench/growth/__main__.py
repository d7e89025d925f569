"""`make bench-growth`: what a delivery costs with many endpoints and with many ledger rows.

Three platforms on the same servers take turns: a small one, one of many endpoints and one of many ledger rows. The
measure is processor time of services, broker and Postgres, which other loads disturb less than they do rates.
"""

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from bench import phases, report
from bench.__main__ import say
from bench.check import check
from bench.growth import ledger, registry
from bench.processor import resident_mib
from bench.report import Measurements
from bench.world import Application, World, running
from deploy.stack.errors import StackError
from deploy.stack.interrupts import ending_undisturbed, interruptible
from deploy.stack.servers import Servers, session_servers
from deploy.stack.services import stop_services

_SMALL_ROWS: Final = 10_000
_WINDOW: Final = 200
"""So few are under way that each begins at once: ten endpoints would share the lanes of a backlog, and many not."""
_CHANGE: Final = 5_000
_TELL_S: Final = 10.0
_APPLICATIONS: Final = 2_000
"""To so many applications messages are posted in turn, of those that there are: more endpoints than caches hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How far to grow, how many deliveries to measure by, how often, and how long all of it may take."""

    endpoints: int
    rows: int
    deliveries: int
    turns: int
    most_seconds: float


FULL: Final = Plan(endpoints=100_000, rows=5_000_000, deliveries=6_000, turns=11, most_seconds=900.0)
QUICK: Final = Plan(endpoints=1_000, rows=50_000, deliveries=1_000, turns=1, most_seconds=180.0)


async def grow(plan: Plan, servers: Servers, folder: Path) -> Measurements:
    """Build the three, let them take turns."""
    async with contextlib.AsyncExitStack() as stack:
        worlds = {
            name: await stack.enter_async_context(running(servers, folder / name))
            for name in ("small", "endpoints", "ledger")
        }
        targets = {name: await _prepared(world) for name, world in worlds.items()}
        applications = await _furnished(worlds["endpoints"], plan.endpoints)
        targets["endpoints"] = applications[:: max(1, len(applications) // _APPLICATIONS)][:_APPLICATIONS]
        await _filled(worlds["ledger"], plan.rows)
        say("warming up")
        for name, world in worlds.items():  # plans, buffers and connections, and what each endpoint has of its own
            await _cost(world, targets[name], max(plan.deliveries, len(targets[name]) * registry.PER_APPLICATION))
        costs = await _turns(plan, worlds, targets)
        for name in ("small", "endpoints"):
            memory = (f"{service} {resident_mib(pid):,.0f} MiB" for service, pid in worlds[name].pids.items())
            say(f"{name}: {', '.join(memory)}; {await check(worlds[name])}")
    measured = Measurements()
    for ceiling in ("endpoints_10", "ledger_10k"):
        measured.ceiling(ceiling, median(costs["small"]))
    for figure, name in (("growth_endpoints", "endpoints"), ("growth_ledger", "ledger")):
        pairs = [large / small for large, small in zip(costs[name], costs["small"], strict=True)]
        measured.figure(figure, median(pairs))
    return measured


async def _turns(plan: Plan, worlds: Mapping[str, World], targets: dict[str, list[str]]) -> dict[str, list[float]]:
    """What a delivery costs each platform, turn by turn, in microseconds of processor time.

    Each goes on with the applications after those that it has sent to.
    """
    costs: dict[str, list[float]] = {name: [] for name in worlds}
    for turn in range(1, plan.turns + 1):
        for name, world in worlds.items():
            found = await _cost(world, targets[name], plan.deliveries)
            costs[name].append(sum(found.values()))
            parts = ", ".join(f"{part} {us:,.0f}" for part, us in found.items())
            say(f"turn {turn}: {name} {costs[name][-1]:,.0f} us: {parts}")
            sent_to = plan.deliveries // registry.PER_APPLICATION % len(targets[name])
            targets[name] = targets[name][sent_to:] + targets[name][:sent_to]
    return costs


async def _prepared(world: World) -> list[str]:
    """An application of ten endpoints, and ten thousand ledger rows of its deliveries."""
    paths = [f"/growth/{number}" for number in range(registry.PER_APPLICATION)]
    application = await world.application("growth", paths)
    await phases.saturate(world, application, deliveries=_SMALL_ROWS // 32 * 10)  # 3 rows each, 2 for a message
    return [application.id]


async def _furnished(world: World, endpoints: int) -> list[str]:
    """So many endpoints more, in changes that the services take in one after the other, as they would over months."""
    applications: list[str] = []
    reached = _telling("endpoints", endpoints)
    for first in range(0, endpoints, _CHANGE):
        applications += await registry.furnish(world, min(_CHANGE, endpoints - first), first=first)
        await _cost(world, applications[-1:], registry.PER_APPLICATION)
        reached(len(applications) * registry.PER_APPLICATION)
    return applications


async def _filled(world: World, rows: int) -> None:
    """The ledger at about so many rows, and in the order in which a week would have left it."""
    async with world.without_dispatcher():
        await ledger.fill(world.database, rows, _telling("ledger rows", rows))
        say("the ledger is being vacuumed and analyzed")
        say(f"{await ledger.settle(world.database):,} ledger rows are there")


def _telling(what: str, of: int) -> Callable[[int], None]:
    """Says how many there are, at most every ten seconds."""
    said = time.monotonic()

    def reached(count: int) -> None:
        nonlocal said
        if time.monotonic() > said + _TELL_S or count >= of:
            said = time.monotonic()
            say(f"{count:,} of {of:,} {what}")

    return reached


async def _cost(world: World, ids: list[str], deliveries: int) -> dict[str, float]:
    """What a delivery costs each part, in microseconds of processor time."""
    application = Application(id=ids[0], others=ids[1:], paths=[""] * registry.PER_APPLICATION)
    found = await phases.saturate(world, application, deliveries=deliveries, window=_WINDOW)
    return found.cost_us


def main() -> int:
    """Measure, print, merge into the file, stop what was started; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a glance: little growth, nothing is merged")
    quick = parser.parse_args().quick
    plan, began = (QUICK if quick else FULL), time.monotonic()
    try:
        with contextlib.ExitStack() as stack:
            servers = stack.enter_context(session_servers("bench", say=say))
            folder = servers.folder / "growth"
            for name in ("small", "endpoints", "ledger"):
                stack.callback(stop_services, folder / name, grace_s=10.0)
            stack.enter_context(ending_undisturbed())
            measured = asyncio.run(asyncio.wait_for(grow(plan, servers, folder), plan.most_seconds))
            machine = report.machine_of(servers)
    except StackError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except TimeoutError:
        print(f"bench: not done after {plan.most_seconds:.0f} s", file=sys.stderr)
        return 1
    file = report.LATEST.with_name("quick.json") if quick else report.LATEST
    report.show(report.write(measured, machine, file, merge=True))
    say(f"{file.name} is written, after {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(interruptible("bench", main))
