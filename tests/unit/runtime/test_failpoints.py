"""Failpoints: off unless asked for; armed by a file; each acts once."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from libs.common.runtime import clock, failpoints
from libs.common.runtime.failpoints import Failpoint, reach

REACH_THREE_TIMES = """
import sys
from libs.common.runtime import failpoints
failpoints.enable(sys.argv[1])
for number in (1, 2, 3):
    failpoints.reach(failpoints.Failpoint.ACCEPT_COMMITTED)
    print(number, flush=True)
"""


@pytest.fixture
def enabled(tmp_path: Path) -> Iterator[Path]:
    failpoints.enable(str(tmp_path))
    yield tmp_path
    failpoints.enable("")


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", REACH_THREE_TIMES, str(folder)], capture_output=True, text=True, check=False
    )


def test_a_point_that_is_not_armed_is_passed(enabled: Path) -> None:
    reach(Failpoint.ACCEPT_COMMITTED)


def test_an_armed_point_kills_where_it_is_reached(tmp_path: Path) -> None:
    (tmp_path / Failpoint.ACCEPT_COMMITTED).write_text("kill")
    done = run(tmp_path)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "")


def test_a_point_can_be_armed_for_a_later_time(tmp_path: Path) -> None:
    (tmp_path / Failpoint.ACCEPT_COMMITTED).write_text("kill 3")
    done = run(tmp_path)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "1\n2\n")


def test_a_point_acts_once_and_says_so(tmp_path: Path) -> None:
    (tmp_path / Failpoint.ACCEPT_COMMITTED).write_text("kill")
    run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["accept.committed.hit"]
    assert run(tmp_path).returncode == 0


def test_a_point_that_is_armed_again_counts_from_then_on(enabled: Path) -> None:
    armed = enabled / Failpoint.ACCEPT_COMMITTED
    for _ in range(3):
        armed.write_text("kill 3")
        reach(Failpoint.ACCEPT_COMMITTED)
        armed.unlink()
        reach(Failpoint.ACCEPT_COMMITTED)


def test_the_wall_clock_can_be_stepped(enabled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_reference", None)  # as in a process that has not asked its database yet
    (enabled / failpoints.CLOCK).write_text("-3600")
    off = clock.now() - datetime.now(UTC)
    assert timedelta(seconds=-3601) < off < timedelta(seconds=-3599)


def test_without_a_folder_nothing_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / Failpoint.ACCEPT_COMMITTED).write_text("kill")
    (tmp_path / failpoints.CLOCK).write_text("3600")
    reach(Failpoint.ACCEPT_COMMITTED)
    assert failpoints.clock_step() == timedelta(0)
