"""`make bench-dispatch`: claims, order, lateness and fairness, each beside what is asked of it.

The parts run one after another, each on a database of its own; `--only` picks some. What was measured is merged into
bench/results/dispatch.json. See docs/performance.md, "Dispatching".
"""

import argparse
import asyncio
import contextlib
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from bench import report
from bench.__main__ import say
from bench.check import check, sound
from bench.dispatch import claims, fairness, order, retrying
from bench.dispatch.plan import FULL, QUICK, Plan
from bench.report import Measurements
from bench.world import running
from deploy.stack.errors import StackError
from deploy.stack.interrupts import ending_undisturbed, interruptible
from deploy.stack.servers import Servers, session_servers
from deploy.stack.services import stop_services

PARTS: Final = ("claims", "order", "retries", "hanging", "backlog")


async def measure(part: str, plan: Plan, measured: Measurements, servers: Servers, folder: Path) -> None:
    """Measure one part, and check that what it measured is true.

    Raises:
        StackError: it is not, or something failed.
    """
    match part:
        case "claims":
            await claims.measure(plan, measured, servers, folder, say)
        case "order":
            async with running(servers, folder, dispatchers=order.DISPATCHERS) as world:
                await order.measure(world, plan, measured, say)
                say(await sound(world))
        case "retries":
            async with running(servers, folder, settings=retrying.SETTINGS) as world:
                await retrying.measure(world, plan, measured, say)
                say(await check(world))
        case "hanging":
            async with running(servers, folder) as world:
                await fairness.beside_one_that_hangs(world, plan, measured, say)
                say(await check(world))
        case _:
            async with running(servers, folder) as world:
                big = await fairness.beside_a_backlog(world, plan, measured, say)
                say(await sound(world, gone=[big]))


def main() -> int:
    """Measure, print, write; returns the exit code: 1 where time ran out, 2 where something is untrue or failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.dispatch", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a glance: small counts, nothing is merged")
    parser.add_argument("--only", choices=PARTS, action="append", help="a part; may be repeated")
    parser.add_argument("--backlog", type=int, metavar="N", help="due for each endpoint of the large application")
    given = parser.parse_args()
    plan, began = (QUICK if given.quick else FULL), time.monotonic()
    if given.backlog:
        plan = replace(plan, backlog=(plan.backlog[0], given.backlog))
    measured = Measurements()
    try:
        with contextlib.ExitStack() as stack:
            servers = stack.enter_context(session_servers("bench", say=say))
            machine = report.machine_of(servers)
            stack.enter_context(ending_undisturbed())
            for part in given.only or PARTS:
                folder = servers.folder / part
                with contextlib.ExitStack() as services:
                    services.callback(stop_services, folder, grace_s=10.0)
                    measuring = measure(part, plan, measured, servers, folder)
                    asyncio.run(asyncio.wait_for(measuring, plan.most_seconds))
    except StackError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except TimeoutError:
        print(f"bench: a part was not done after {plan.most_seconds:.0f} s", file=sys.stderr)
        return 1
    file = report.LATEST.with_name("quick.json") if given.quick else report.DISPATCH
    report.show(report.write(measured, machine, file, merge=not given.quick))
    say(f"{file.name} is written, after {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(interruptible("bench", main))
