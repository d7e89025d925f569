"""Background processes that outlive the launcher, and are found again by another one."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from deploy.stack.places import write_private

_POLL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process, known by its id and the moment it was born: a reused id is never taken for it."""

    pid: int
    born: str

    @property
    def alive(self) -> bool:
        """Whether it still runs; one that ended but was not waited for does not."""
        state, born = _state(self.pid)
        if not born or born != self.born:
            return False
        if state == "Z":
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)  # a child of ours leaves no zombie
            return False
        return True

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self, *, timeout_s: float) -> bool:
        """Wait for its end, at most `timeout_s`; whether it has ended."""
        deadline = time.monotonic() + timeout_s
        while self.alive:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def stop(self, *, number: signal.Signals = signal.SIGTERM, grace_s: float) -> None:
        """Ask it to end, give it `grace_s` seconds, then kill it with all that it started."""
        self.send(number)
        if not self.wait(timeout_s=grace_s):
            self.kill()

    def kill(self) -> None:
        """SIGKILL, to it and its children at once, as a power cut would."""
        family = [self, *self._children()] if self.alive else []
        for member in family:
            member.send(signal.SIGKILL)
        for member in family:
            member.wait(timeout_s=10)

    def _children(self) -> list[Self]:
        listing = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        try:
            pids = [int(pid) for pid in listing.read_text().split()]
        except OSError:  # not Linux, or it has just ended
            pids = []
        return [type(self)(pid=pid, born=_state(pid)[1]) for pid in pids]


def spawn(
    argv: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str],
    cwd: Path | None = None,
    user: int | None = None,
) -> Process:
    """Start `argv` in a session of its own, its output appended to `log`; as the user id `user`, if given."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )
    child.returncode = 0  # Process waits for it; Popen need not warn that it still runs
    return Process(pid=child.pid, born=_state(child.pid)[1])


def remember(process: Process, path: Path) -> None:
    """Keep which process it is in the pid file `path`."""
    write_private(path, f"{process.pid} {process.born}\n")


def recall(path: Path) -> Process | None:
    """The process kept in the pid file `path`, if it is still alive."""
    try:
        pid, _, born = path.read_text().strip().partition(" ")
        process = Process(pid=int(pid), born=born)
    except (FileNotFoundError, ValueError):
        return None
    return process if process.alive else None


def _state(pid: int) -> tuple[str, str]:
    """A process' state (`Z` for one that has ended and was not waited for) and birth; no birth when there is none."""
    if not Path("/proc/self/stat").exists():  # macOS
        answer = subprocess.run(
            ["ps", "-o", "state=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
        ).stdout.strip()
        return answer[:1], answer.partition(" ")[2].strip()
    try:
        # After the name in parentheses: the state, then as the 20th field the start, in clock ticks since boot.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "", ""
    return fields[0], fields[19]
