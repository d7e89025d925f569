"""Everything that `make test` runs, step by step: `python -m deploy.stack.suite`."""

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import IO

from deploy.stack.places import CHECKOUT


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Some folders of tests, or a module that is run as a program.

    `beside` are folders for a second run of the tests at the same time, on servers of its own: such tests wait more
    than they compute. `words` are the program's.
    """

    name: str
    folders: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    module: str | None = None
    words: tuple[str, ...] = ()


STEPS = (
    Step(name="pure: unit, property, contract, architecture",
         folders=("tests/unit", "tests/property", "tests/contract", "tests/architecture")),
    Step(name="integration: real Postgres, real RabbitMQ",
         folders=("tests/integration/dispatcher", "tests/integration/postgres", "tests/integration/rabbitmq",
                  "tests/integration/stack"),
         beside=("tests/integration/ingress", "tests/integration/registry")),
    Step(name="e2e: the three services; faults: what each leaves behind",
         folders=("tests/e2e",), beside=("tests/faults",)),
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
    with TemporaryFile() as output:
        beside = _begin(step.beside, output) if step.beside else None
        code = _begin(step.folders, None).wait()
        if beside is None:
            return code
        beside_code = beside.wait()
        output.seek(0)
        sys.stdout.write(output.read().decode(errors="replace"))
    return code or beside_code


def _begin(folders: Sequence[str], output: IO[bytes] | None) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "pytest", *folders], cwd=CHECKOUT, stdout=output, stderr=output)


if __name__ == "__main__":
    sys.exit(main())
