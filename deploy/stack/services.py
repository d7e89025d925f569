"""The three services as background processes: started, stopped, killed, waited for."""

import hashlib
import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.stack.errors import StackError
from deploy.stack.places import CHECKOUT, HOME, make_folder, read_record, tail, write_record
from deploy.stack.processes import Process, recall, remember, spawn

PREFIX = "HOOKLEDGER_"
_READY_S = 60.0
_STOP_S = 40.0
_TAIL_LINES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One replica of a service: its settings, its port on loopback, its log and its process."""

    name: str
    folder: Path
    port: int
    settings: Mapping[str, str]
    replica: str = ""
    code: Path = CHECKOUT

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """Its process id, while it runs."""
        process = self._process
        return process.pid if process else None

    @property
    def log(self) -> Path:
        """What it has written to stdout and stderr, over all its runs."""
        return log_folder(self.folder) / f"{self.label}.log"

    @property
    def label(self) -> str:
        """Its name and replica, such as `dispatcher-2`."""
        return f"{self.name}-{self.replica}" if self.replica else self.name

    def start(self) -> None:
        """Start its process; nothing when it runs with these settings. Does not wait: see `wait_ready`."""
        process, record = self._process, self._record
        wanted = {"port": str(self.port), "settings": self._fingerprint()}
        if process:
            if wanted.items() <= read_record(record).items():
                return
            self.stop()
        make_folder(self.log.parent)
        make_folder(record.parent)
        write_record(record, wanted | {"log_from": str(self.log.stat().st_size if self.log.exists() else 0)})
        started = spawn(
            [sys.executable, "-m", f"services.{self.name}"],
            log=self.log,
            env=environment(dict(self.settings) | {"HOST": "127.0.0.1", "PORT": str(self.port)}),
            cwd=self.code,
        )
        remember(started, self._pid_file)

    def wait_ready(self, *, timeout_s: float = _READY_S) -> None:
        """Wait until it answers `GET /readyz` with 200.

        Raises:
            StackError: it ended, or took longer than `timeout_s`; its notes hold the end of its log.
        """
        deadline = time.monotonic() + timeout_s
        while (status := _status(f"{self.url}/readyz")) != 200:
            if not self._process:
                raise self._failure("stopped at start")
            if time.monotonic() > deadline:
                raise self._failure(f"was not ready in {timeout_s:.0f} s (/readyz said {status or 'nothing'})")
            time.sleep(0.05)

    def stop(self, *, grace_s: float = _STOP_S) -> None:
        """SIGTERM, then wait for its end; SIGKILL after `grace_s`."""
        process = self._process
        if process:
            process.stop(grace_s=grace_s)
        self._pid_file.unlink(missing_ok=True)

    def kill(self) -> None:
        """SIGKILL; returns when it is dead."""
        process = self._process
        if process:
            process.kill()

    def _failure(self, what: str) -> StackError:
        """The error for what went wrong, with the last words of this run."""
        said = tail(self.log, lines=_TAIL_LINES, start=int(read_record(self._record).get("log_from", 0)))
        failure = StackError(f"{self.label} {what}: {said[-1] if said else 'without a word'} (log: {self.log})")
        for line in said[:-1]:
            failure.add_note(line)
        return failure

    def _fingerprint(self) -> str:
        """Differs when a setting does; tells none of them."""
        return hashlib.sha256(json.dumps(dict(self.settings), sort_keys=True).encode()).hexdigest()

    @property
    def _process(self) -> Process | None:
        return recall(self._pid_file)

    @property
    def _record(self) -> Path:
        return run_folder(self.folder) / f"{self.label}.json"

    @property
    def _pid_file(self) -> Path:
        return run_folder(self.folder) / f"{self.label}.pid"


def log_folder(folder: Path) -> Path:
    """Where the services of a state folder write."""
    return folder / "log"


def run_folder(folder: Path) -> Path:
    """Where the process ids and ports of a state folder's services are kept."""
    return folder / "run"


def running_port(folder: Path, label: str) -> int | None:
    """The port of a service that runs, whoever started it."""
    if recall(run_folder(folder) / f"{label}.pid") is None:
        return None
    return int(read_record(run_folder(folder) / f"{label}.json")["port"])


def stop_services(folder: Path, *, grace_s: float = _STOP_S) -> list[str]:
    """Stop every service of a state folder, replicas included; returns the names of those that ran."""
    stopped = []
    running = {file: process for file in run_folder(folder).glob("*.pid") if (process := recall(file))}
    for process in running.values():
        process.send(signal.SIGTERM)  # all at once, so that they finish their work side by side
    for file, process in running.items():
        if not process.wait(timeout_s=grace_s):  # a second SIGTERM would cut short what the first one asked for
            process.kill()
        stopped.append(file.stem)
    for file in run_folder(folder).glob("*"):
        file.unlink(missing_ok=True)
    return sorted(stopped)


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Our environment with exactly these settings of Hookledger: a service refuses those it does not know.

    Bytecode is kept, whatever the caller's environment says: half of a service's start would go into compiling.
    """
    python = {"PYTHONUNBUFFERED": "1", "PYTHONPYCACHEPREFIX": str(HOME / "cache" / "python")}
    others = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(PREFIX) and name != "PYTHONDONTWRITEBYTECODE"
    }
    return others | python | {f"{PREFIX}{name}": value for name, value in settings.items()}


def _status(url: str) -> int | None:
    """The HTTP status of a GET; None when nothing answered."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return int(response.status)
    except urllib.error.HTTPError as answer:
        return answer.code
    except OSError:
        return None
