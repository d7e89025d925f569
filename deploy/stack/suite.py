"""Everything that `make test` runs: `python -m deploy.stack.suite`."""

import signal
import sys
import time

from deploy.stack.lanes import Lane, module, run_alone, run_beside, terminate

AT_ONCE = 3
"""One more than a small machine has processors, since every lane waits now and then."""

_INTERRUPTED = 130


def _tests(name: str, *folders: str) -> Lane:
    """A run of the tests in `folders`, on servers of its own."""
    return Lane(name=name, command=module("pytest", *folders), folders=folders)


LANES = (
    _tests("dispatcher", "tests/integration/dispatcher"),
    _tests("e2e", "tests/e2e"),
    _tests("unit", "tests/unit"),
    _tests("registry", "tests/integration/registry", "tests/browser"),
    _tests("faults", "tests/faults"),
    Lane(name="campaign", command=module("tests.faults.campaign", "--seed", "11", "--rounds", "5")),
    _tests("ingress", "tests/integration/ingress"),
    _tests("servers", "tests/integration/postgres", "tests/integration/rabbitmq", "tests/integration/stack"),
    _tests("property", "tests/property", "tests/contract", "tests/architecture"),
)
"""In the order in which they begin: the long ones early, so that none runs alone in the end; but the unit tests, which
say most in the least time, are among the first.
"""

DEMO = Lane(name="demo", command=module("deploy.demo"))
"""The main job, by itself and in the open, when all else has passed."""


def main() -> int:
    """Run the lanes and then the demo; returns the exit code of what fails first."""
    began = time.monotonic()
    signal.signal(signal.SIGTERM, terminate)
    print(f"test: {len(LANES)} lanes, {AT_ONCE} at once, then the demo", flush=True)
    try:
        code = run_beside(LANES, at_once=AT_ONCE, say=_say) or _demonstrate()
    except KeyboardInterrupt:
        code = _INTERRUPTED
    seconds = time.monotonic() - began
    _say(f"test: failed after {seconds:.0f} s" if code else f"test: all passed in {seconds:.0f} s")
    return code


def _demonstrate() -> int:
    _say("test: demo: the main job")
    return run_alone(DEMO)


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
