"""`make bench-growth`: what a delivery costs with many endpoints and with many ledger rows.

Three platforms on the same servers take turns: a small one, one of many endpoints and one of many ledger rows. The
measure is processor time of services, broker and Postgres, which other loads disturb less than they do rates.
"""

import argparse
import asyncio
import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from bench import phases, report
from bench.__main__ import say
from bench.growth import ledger, registry
from bench.report import Measurements
from bench.world import Application, World, running
from deploy.stack.errors import StackError
from deploy.stack.servers import Servers, session_servers
from deploy.stack.services import stop_services

_SMALL_ROWS: Final = 10_000
_WINDOW: Final = 200
"""So few are under way that each begins at once: ten endpoints would share the lanes of a backlog, and many not."""
_CHANGE: Final = 2_500
_APPLICATIONS: Final = 2_000
"""To so many applications messages are posted in turn, of those that there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How far to grow, and how many deliveries to measure by."""

    endpoints: int
    rows: int
    deliveries: int
    turns: int


FULL: Final = Plan(endpoints=100_000, rows=5_000_000, deliveries=6_000, turns=5)
QUICK: Final = Plan(endpoints=1_000, rows=50_000, deliveries=1_000, turns=1)


async def grow(plan: Plan, servers: Servers, folder: Path) -> Measurements:
    """Build the three, let them take turns."""
    async with contextlib.AsyncExitStack() as stack:
        worlds = {
            name: await stack.enter_async_context(running(servers, folder / name))
            for name in ("small", "endpoints", "ledger")
        }
        targets = {name: await _prepared(world) for name, world in worlds.items()}
        say(f"{plan.endpoints:,} endpoints")
        applications = await _furnished(worlds["endpoints"], plan.endpoints)
        targets["endpoints"] = applications[:: max(1, len(applications) // _APPLICATIONS)][:_APPLICATIONS]
        say(f"{plan.rows:,} ledger rows")
        async with worlds["ledger"].without_dispatcher():
            rows = await ledger.fill(worlds["ledger"], plan.rows)
        say(f"{rows:,} ledger rows are there")
        costs: dict[str, list[float]] = {name: [] for name in worlds}
        for turn in range(plan.turns + 1):
            for name, world in worlds.items():
                found = await _cost(world, targets[name], plan.deliveries)
                say(f"turn {turn}: {name} {found:,.0f} us")
                if turn:  # the first one warms up plans, buffers and connections
                    costs[name].append(found)
    measured = Measurements()
    for ceiling in ("endpoints_10", "ledger_10k"):
        measured.ceiling(ceiling, median(costs["small"]))
    for figure, name in (("growth_endpoints", "endpoints"), ("growth_ledger", "ledger")):
        pairs = [large / small for large, small in zip(costs[name], costs["small"], strict=True)]
        measured.figure(figure, median(pairs))
    return measured


async def _prepared(world: World) -> list[str]:
    """An application of ten endpoints, and ten thousand ledger rows of its deliveries."""
    paths = [f"/growth/{number}" for number in range(registry.PER_APPLICATION)]
    application = await world.application("growth", paths)
    await phases.saturate(world, application, deliveries=_SMALL_ROWS // 32 * 10)  # 3 rows each, 2 for a message
    return [application.id]


async def _furnished(world: World, endpoints: int) -> list[str]:
    """So many endpoints more, in changes that the services take in one after the other, as they would over months."""
    applications: list[str] = []
    while (left := endpoints - len(applications) * registry.PER_APPLICATION) > 0:
        applications += await registry.furnish(world, min(left, _CHANGE))
        await _cost(world, applications[-1:], registry.PER_APPLICATION)
    return applications


async def _cost(world: World, ids: list[str], deliveries: int) -> float:
    application = Application(id=ids[0], others=ids[1:], paths=[""] * registry.PER_APPLICATION)
    found = await phases.saturate(world, application, deliveries=deliveries, window=_WINDOW)
    return sum(found.cost_us.values())


def main() -> int:
    """Measure, print, merge into the file; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a glance: little growth, nothing is merged")
    quick = parser.parse_args().quick
    try:
        with contextlib.ExitStack() as stack:
            servers = stack.enter_context(session_servers("bench", say=say))
            folder = servers.folder / "growth"
            for name in ("small", "endpoints", "ledger"):
                stack.callback(stop_services, folder / name, grace_s=10.0)
            measured = asyncio.run(grow(QUICK if quick else FULL, servers, folder))
            machine = report.machine_of(servers)
    except StackError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    file = report.LATEST.with_name("quick.json") if quick else report.LATEST
    report.show(report.write(measured, machine, file, merge=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
