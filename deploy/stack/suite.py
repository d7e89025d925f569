"""Everything that `make test` runs, step by step: `python -m deploy.stack.suite`."""

import subprocess
import sys
import time
from dataclasses import dataclass

from deploy.stack.places import CHECKOUT

_NO_TESTS = 5  # pytest's exit code


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Some folders of tests, or a module that is run as a program."""

    name: str
    folders: tuple[str, ...] = ()
    module: str | None = None


STEPS = (
    Step(name="pure: unit, property, contract, architecture",
         folders=("tests/unit", "tests/property", "tests/contract", "tests/architecture")),
    Step(name="integration: real Postgres, real RabbitMQ", folders=("tests/integration",)),
    Step(name="e2e: the three services", folders=("tests/e2e",)),
    Step(name="faults: kill -9 and wiped brokers", folders=("tests/faults",)),
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
    folders = [folder for folder in step.folders if (CHECKOUT / folder).is_dir()]
    if not folders and not step.module:
        print("test: nothing here yet")
        return 0
    program = [step.module] if step.module else ["pytest", *folders]
    code = subprocess.run([sys.executable, "-m", *program], check=False, cwd=CHECKOUT).returncode
    if code == _NO_TESTS and not step.module:
        print("test: no tests in " + ", ".join(folders))
        return 0
    return code


if __name__ == "__main__":
    sys.exit(main())
