"""The tests' own hand on failpoints."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from libs.common.runtime.failpoints import Failpoint
from tests.support.failpoints import Failpoints

PASS_ONCE = """
import os
from libs.common.runtime import failpoints
failpoints.enable(os.environ["FAILPOINTS"])
failpoints.reach(failpoints.Failpoint.CLAIM_COMMITTED)
print(failpoints.clock_step().total_seconds())
"""


def passing(failpoints: Failpoints) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PASS_ONCE],
        env={**os.environ, **failpoints.settings},
        stdout=subprocess.PIPE,
        text=True,
    )


async def test_a_frozen_process_has_hit_the_point_and_goes_on_when_told(tmp_path: Path) -> None:
    failpoints = Failpoints(tmp_path / "failpoints")
    failpoints.step_clock(2.5)
    failpoints.arm(Failpoint.CLAIM_COMMITTED, "freeze")
    with passing(failpoints) as process:
        await failpoints.hit(Failpoint.CLAIM_COMMITTED)
        _, status = await asyncio.to_thread(os.waitpid, process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        process.send_signal(signal.SIGCONT)
        out, _ = process.communicate(timeout=10)
    assert (process.returncode, out) == (0, "2.5\n")


def test_nothing_happens_once_all_is_disarmed(tmp_path: Path) -> None:
    failpoints = Failpoints(tmp_path)
    failpoints.arm(Failpoint.CLAIM_COMMITTED)
    failpoints.step_clock(2.5)
    failpoints.disarm()
    with passing(failpoints) as process:
        out, _ = process.communicate(timeout=10)
    assert (process.returncode, out) == (0, "0.0\n")
