"""`make bench`: the whole instrument, on servers of its own. See docs/performance.md."""

import argparse
import asyncio
import contextlib
import sys
import time

from bench import report
from bench.plan import FULL, QUICK
from bench.run import measure
from deploy.stack.errors import StackError
from deploy.stack.interrupts import ending_undisturbed, interruptible
from deploy.stack.servers import session_servers
from deploy.stack.services import stop_services


def main() -> int:
    """Measure, print, write, stop what was started; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a glance: tiny counts, nothing is written")
    quick = parser.parse_args().quick
    plan = QUICK if quick else FULL
    began = time.monotonic()
    try:
        with contextlib.ExitStack() as stack:
            servers = stack.enter_context(session_servers("bench", say=say))
            folder = servers.folder / "platform"
            stack.callback(stop_services, folder, grace_s=10.0)
            stack.enter_context(ending_undisturbed())
            machine = report.machine_of(servers)
            measured = asyncio.run(asyncio.wait_for(measure(plan, servers, folder, say), plan.most_seconds))
    except StackError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except TimeoutError:
        print(f"bench: not done after {plan.most_seconds:.0f} s", file=sys.stderr)
        return 1
    file = report.LATEST.with_name("quick.json") if quick else report.LATEST
    report.show(report.write(measured, machine, file))
    say(f"{file.name} is written, after {time.monotonic() - began:.0f} s")
    return 0


def say(line: str) -> None:
    """Tell how far it has come."""
    print(f"bench: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(interruptible("bench", main))
