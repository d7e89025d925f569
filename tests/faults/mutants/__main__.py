"""`make faults-mutants`: plants each defect in a copy of the code, and shows that the campaign finds it."""

import argparse
import asyncio
import logging
import secrets
import shutil
import sys
from pathlib import Path

import uvloop

from deploy.stack.errors import StackError
from deploy.stack.interrupts import ending_undisturbed, interruptible
from deploy.stack.isolation import isolated
from deploy.stack.places import CHECKOUT, HOME
from deploy.stack.servers import Servers, session_servers
from tests.faults.campaign.campaign import Campaign, Summary, possible
from tests.faults.campaign.plan import ROUND_SECONDS, Kind, Round
from tests.faults.campaign.world import at_war
from tests.faults.mutants.catalogue import MUTANTS, Mutant

MESSAGES = 240
TRIES = 3
SETTLE_SECONDS = 25.0
_COPIES = HOME / "mutants"


def main() -> int:
    """Try every mutant; exit 0 when all are found, 1 when one survives, 2 where they cannot be tried."""
    words = _parse(sys.argv[1:])
    logging.disable()  # the libraries' own remarks on what is done to them on purpose
    chosen = [mutant for mutant in MUTANTS if not words.only or mutant.name in words.only]
    try:
        with (
            session_servers("mutants", say=lambda line: print(f"stack: {line}", flush=True)) as servers,
            ending_undisturbed(),
        ):
            needed = {fault.kind for mutant in chosen for fault in mutant.faults}
            if set(possible(servers, list(Kind), print)) < needed:
                print("mutants: the servers must be our own: unset their URLs", file=sys.stderr)
                return 2
            found = [_is_found(servers, mutant, number, len(chosen)) for number, mutant in enumerate(chosen, 1)]
    except StackError as error:
        print(f"mutants: {error}", file=sys.stderr)
        return 2
    print(f"mutants {len(found)}, found {sum(found)}, survived {len(found) - sum(found)}")
    return 0 if all(found) else 1


def _is_found(servers: Servers, mutant: Mutant, number: int, of: int) -> bool:
    """Whether the campaign finds in the mutant what it breaks, and nothing in the code as it is under the same faults."""
    innocent = _run(servers, mutant, "as it is", CHECKOUT)
    if innocent.violations:
        print(
            f"mutants: {number}/{of}  {mutant.name}: the code as it is has it too: {innocent.violations[0]}", flush=True
        )
        return False
    code = plant(mutant, _COPIES / str(number))
    for tried in range(1, TRIES + 1):
        summary = _run(servers, mutant, str(tried), code)
        found = next((text for text in summary.violations if mutant.breaks in text), None)
        if found is not None:
            print(f"mutants: {number}/{of}  {mutant.name}: found: {found}", flush=True)
            break
    else:
        missed = f", of whose faults did not come about: {', '.join(summary.missed)}" if summary.missed else ""
        seen = f"; last seen: {summary.violations[0]}" if summary.violations else ""
        print(f"mutants: {number}/{of}  {mutant.name}: SURVIVED {TRIES} rounds{missed}{seen}", flush=True)
    shutil.rmtree(code)
    return found is not None


def _run(servers: Servers, mutant: Mutant, name: str, code: Path) -> Summary:
    """A round of the mutant's faults, with the services of `code`."""
    round_ = Round(
        number=1,
        seed=f"{mutant.name}/{name}",
        messages=MESSAGES,
        seconds=ROUND_SECONDS,
        faults=mutant.faults,
        behaviours=mutant.behaviours,
    )

    async def run() -> Summary:
        folder = servers.folder / "mutants" / secrets.token_hex(4)
        with isolated(servers, label="mutant") as corner:
            async with at_war(servers, corner, folder, code=code) as world:
                campaign = Campaign(world, lambda _: None, settle_seconds=SETTLE_SECONDS)
                return await campaign.run([round_])

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


def plant(mutant: Mutant, folder: Path) -> Path:
    """A copy of the services' code with the defect in it.

    Raises:
        StackError: the code has changed, so that the defect cannot be planted as it is written.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for package in ("libs", "services"):
        shutil.copytree(CHECKOUT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for edit in mutant.edits:
        path = folder / edit.file
        text = path.read_text()
        if text.count(edit.old) != 1:
            raise StackError(
                f"{mutant.name}: {edit.file} does not hold its text once: mend tests/faults/mutants/catalogue.py"
            )
        path.write_text(text.replace(edit.old, edit.new))
    return folder


def _parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make faults-mutants", description=__doc__)
    parser.add_argument("--only", action="append", help="a mutant's name; may be repeated", metavar="NAME")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(interruptible("mutants", main))
