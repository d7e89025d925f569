"""`python -m tests.faults.campaign --seed 7 --rounds 20`: break everything while load runs, then ask what was lost."""

import argparse
import asyncio
import logging
import sys
from pathlib import Path

import uvloop

from deploy.stack.errors import StackError
from deploy.stack.interrupts import ending_undisturbed, interruptible
from deploy.stack.isolation import isolated
from deploy.stack.places import CHECKOUT
from deploy.stack.servers import session_servers
from tests.faults.campaign.campaign import Campaign, Summary, possible
from tests.faults.campaign.plan import Kind, plan
from tests.faults.campaign.world import at_war

MESSAGES = 240


def main() -> int:
    """Run a campaign; exit 0 without a violation, 1 with one, 2 where it cannot be run."""
    words = _parse(sys.argv[1:])
    logging.disable()  # the libraries' own remarks on what is done to them on purpose
    try:
        with (
            session_servers("faults", say=lambda line: print(f"stack: {line}", flush=True)) as servers,
            ending_undisturbed(),
        ):
            wanted = [kind for kind in words.only or list(Kind) if kind not in words.without]
            kinds = possible(servers, wanted, lambda line: print(f"faults: {line}", flush=True))
            rounds = plan(words.seed, words.rounds, messages=words.messages, kinds=kinds)

            async def run() -> Summary:
                folder = servers.folder / "platform"
                with isolated(servers, label="faults") as corner:
                    async with at_war(servers, corner, folder, code=words.code) as world:
                        return await Campaign(world, print).run(rounds)

            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                summary = runner.run(run())
    except StackError as error:
        print(f"faults: {error}", file=sys.stderr)
        return 2
    for line in summary.lines():
        print(line)
    return 1 if summary.violations else 0


def _parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="names the run: one seed, one run")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--messages", type=int, default=MESSAGES, help="sent in each round")
    parser.add_argument("--only", type=Kind, action="append", help="a kind of fault; may be repeated", metavar="KIND")
    parser.add_argument("--without", type=Kind, action="append", default=[], help="a kind left out", metavar="KIND")
    parser.add_argument("--code", type=Path, default=CHECKOUT, help="where the services are imported from")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(interruptible("faults", main))
