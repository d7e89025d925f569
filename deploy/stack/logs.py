"""The logs of the services, side by side."""

import time
from pathlib import Path

from deploy.stack.places import tail
from deploy.stack.services import log_folder

_POLL_S = 0.3


def show(folder: Path, *, lines: int) -> bool:
    """Print the last lines of each service's log; whether there was any."""
    logs = _logs(folder)
    for log in logs:
        for line in tail(log, lines=lines):
            _print(log, line)
    return bool(logs)


def follow(folder: Path) -> None:
    """Print what the services write from now on; never returns by itself."""
    read = {log: log.stat().st_size for log in _logs(folder)}
    rest: dict[Path, str] = {}
    while True:
        for log in _logs(folder):
            with log.open(errors="replace") as file:
                size = file.seek(0, 2)
                # A log that is shorter than before was begun anew.
                file.seek(min(read.get(log, 0), size) if size >= read.get(log, 0) else 0)
                text = rest.pop(log, "") + file.read()
                read[log] = file.tell()
            *whole, rest[log] = text.split("\n")
            for line in whole:
                _print(log, line)
        time.sleep(_POLL_S)


def _logs(folder: Path) -> list[Path]:
    return sorted(log_folder(folder).glob("*.log"))


def _print(log: Path, line: str) -> None:
    print(f"{log.stem:<11}| {line}", flush=True)
