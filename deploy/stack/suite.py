"""Everything that `make test` runs, step by step: `python -m deploy.stack.suite`."""

import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import IO

from deploy.stack.places import CHECKOUT


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Some folders of tests, or a module that is run as a program.

    `lanes` are runs of the tests at the same time, each on servers of its own: such tests wait more than they compute.
    `words` are the program's.
    """

    name: str
    lanes: tuple[tuple[str, ...], ...] = ()
    module: str | None = None
    words: tuple[str, ...] = ()


STEPS = (
    Step(name="pure: unit, property, contract, architecture",
         lanes=(("tests/unit", "tests/property", "tests/contract", "tests/architecture"),)),
    Step(name="integration: real Postgres, real RabbitMQ",
         lanes=(("tests/integration/dispatcher", "tests/integration/rabbitmq"),
                ("tests/integration/ingress", "tests/integration/postgres"),
                ("tests/integration/registry", "tests/integration/stack"))),
    Step(name="e2e: the three services; faults: what each leaves behind; the portal, in Chromium",
         lanes=(("tests/e2e",), ("tests/faults",), ("tests/browser",))),
    Step(name="campaign: everything broken by a seed", module="tests.faults.campaign",
         words=("--seed", "11", "--rounds", "5")),
    Step(name="demo: the main job", module="deploy.demo"),
)  # fmt: skip


def main() -> int:
    """Run each step, stop at the first that fails; returns its exit code."""
    began = time.monotonic()
    for number, step in enumerate(STEPS, start=1):
        print(f"test: {number}/{len(STEPS)} {step.name}", flush=True)
        started = time.monotonic()
        code = _run(step)
        print(
            f"test: {number}/{len(STEPS)} {'ok' if code == 0 else 'FAILED'}  {time.monotonic() - started:.0f} s",
            flush=True,
        )
        if code:
            print(f"test: failed at step {number} after {time.monotonic() - began:.0f} s")
            return code
    print(f"test: all {len(STEPS)} steps passed in {time.monotonic() - began:.0f} s")
    return 0


def _run(step: Step) -> int:
    if step.module:
        return subprocess.run([sys.executable, "-m", step.module, *step.words], check=False, cwd=CHECKOUT).returncode
    first, *others = step.lanes
    with ExitStack() as stack:
        beside = [_begin(lane, stack.enter_context(TemporaryFile())) for lane in others]
        codes = [_begin(first, None).process.wait()]
        for lane in beside:
            codes.append(lane.process.wait())
            assert lane.output is not None
            lane.output.seek(0)
            sys.stdout.write(lane.output.read().decode(errors="replace"))
    return next(filter(None, codes), 0)


@dataclass(frozen=True, slots=True)
class _Lane:
    process: subprocess.Popen[bytes]
    output: IO[bytes] | None


def _begin(folders: Sequence[str], output: IO[bytes] | None) -> _Lane:
    """Start a run of the tests; its output is kept in `output` until its turn, or shown as it comes."""
    command = [sys.executable, "-m", "pytest", *folders]
    return _Lane(subprocess.Popen(command, cwd=CHECKOUT, stdout=output, stderr=output), output)


if __name__ == "__main__":
    sys.exit(main())
