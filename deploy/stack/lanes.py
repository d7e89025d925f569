"""Programs that run beside one another, each of whose output is shown when it is over, so that nothing is mixed."""

import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from typing import IO, NoReturn

from deploy.stack.places import CHECKOUT

Say = Callable[[str], None]

_POLL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A program by its arguments; `folders` are those of the tests that it runs."""

    name: str
    command: tuple[str, ...]
    folders: tuple[str, ...] = ()


def module(name: str, *words: str) -> tuple[str, ...]:
    """The arguments that run a module with this Python."""
    return (sys.executable, "-m", name, *words)


def run_alone(lane: Lane) -> int:
    """Run a lane whose output is shown as it comes; its exit code."""
    return subprocess.run(lane.command, check=False, cwd=CHECKOUT).returncode


def run_beside(lanes: Sequence[Lane], *, at_once: int, say: Say, report_s: float = 30.0) -> int:
    """Run lanes, begun in their order; after one that fails no other begins. The first exit code that is not 0.

    Args:
        lanes: what to run.
        at_once: how many at the same time.
        say: takes a line of progress, or all that a lane wrote which failed.
        report_s: how often to tell how far those are that run.
    """
    waiting, code, told = deque(lanes), 0, time.monotonic()
    with _running() as runs:
        while runs or (waiting and not code):
            while waiting and len(runs) < at_once and not code:
                runs.append(_begin(waiting.popleft()))
                say(f"test: begins  {runs[-1].lane.name}")
            for run in [run for run in runs if run.process.poll() is not None]:
                runs.remove(run)
                code = code or run.process.returncode
                number = len(lanes) - len(waiting) - len(runs)
                say(run.outcome(f"test: {number}/{len(lanes)}"))
            if time.monotonic() - told > report_s:
                told = time.monotonic()
                say(f"test:   {', '.join(run.progress for run in runs)}")
            time.sleep(_POLL_S)
    return code


@dataclass(frozen=True, slots=True)
class _Run:
    """A lane's process, and the file that its output goes to."""

    lane: Lane
    process: subprocess.Popen[bytes]
    output: IO[bytes]
    began: float = field(default_factory=time.monotonic)

    @property
    def said(self) -> str:
        """What it has written so far. Its process shares the place in the file, which reading must not move."""
        descriptor = self.output.fileno()
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode(errors="replace")

    @property
    def progress(self) -> str:
        """Its name, and how many tests it has done, which pytest shows by a letter for each."""
        done = sum(map(len, re.findall(r"^[.FEsxX]+", self.said, flags=re.MULTILINE)))
        return f"{self.lane.name} {done} tests" if done else self.lane.name

    def outcome(self, label: str) -> str:
        """How it ended, with the last line of one that did well, and below everything that another wrote."""
        seconds = f"{time.monotonic() - self.began:.0f} s"
        said = self.said.rstrip()
        if self.process.returncode:
            return f"{label} FAILED  {self.lane.name}  {seconds}\n{said}"
        return f"{label} ok  {self.lane.name}  {seconds}: {said.rpartition(chr(10))[2]}"


class TerminatedError(KeyboardInterrupt):
    """SIGTERM came, which reaches this process alone; Ctrl-C reaches those that it runs as well."""


def terminate(*_: object) -> NoReturn:
    """The handler of SIGTERM."""
    raise TerminatedError


@contextmanager
def _running() -> Iterator[list[_Run]]:
    """Those that run. They are waited for, also after an interrupt, of which all of them hear: they clean up."""
    runs: list[_Run] = []
    try:
        yield runs
    except TerminatedError:
        for run in runs:
            run.process.send_signal(signal.SIGINT)
        raise
    finally:
        for run in runs:
            run.process.wait()


def _begin(lane: Lane) -> _Run:
    output = TemporaryFile()  # noqa: SIM115  closed with the last that refers to it
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(lane.command, cwd=CHECKOUT, env=environment, stdout=output, stderr=output)
    return _Run(lane, process, output)
