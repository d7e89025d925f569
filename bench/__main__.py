"""`make bench`: deliveries a second and CPU a delivery on this machine, beside a bare HTTP client in the same run.

What is measured: the real services on the real servers, one process of each, in one run, against a receiver of the
bench's own on loopback. First a bare aiohttp client posts the same signed bytes to the same receiver: the ceiling. Then
messages are accepted by ingress, with no dispatcher running; then a dispatcher delivers them. So the parts do not take
the processor from one another, except for Postgres, RabbitMQ and the receiver, which are part of the work.
"""

import argparse
import asyncio
import contextlib
import json
import os
import sys
from dataclasses import asdict

from bench.run import Plan, measure
from bench.table import show
from deploy.stack.errors import StackError
from deploy.stack.servers import session_servers
from deploy.stack.services import stop_services


def main() -> int:
    """Measure, print, stop what was started; returns the exit code."""
    plan, as_json = _arguments()
    say = _quiet if as_json else _say
    try:
        with contextlib.ExitStack() as stack:
            servers = stack.enter_context(session_servers("bench", say=say))
            folder = servers.folder / "platform"
            stack.callback(stop_services, folder, grace_s=10.0)
            figures = asyncio.run(asyncio.wait_for(measure(plan, servers, folder, say), plan.most_seconds))
    except StackError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except TimeoutError:
        print(f"bench: not done after {plan.most_seconds} s", file=sys.stderr)
        return 1
    if as_json:
        print(json.dumps({"plan": asdict(plan), "cores": os.cpu_count(), "figures": figures.as_dict()}))
    else:
        show(plan, figures)
    return 0


def _arguments() -> tuple[Plan, bool]:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.partition("\n")[0])
    defaults = Plan()
    for name, value in asdict(defaults).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value, metavar="N")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    given = vars(parser.parse_args())
    as_json: bool = given.pop("json")
    return Plan(**given), as_json


def _say(line: str) -> None:
    print(f"bench: {line}", flush=True)


def _quiet(_line: str) -> None:
    pass


if __name__ == "__main__":
    sys.exit(main())
