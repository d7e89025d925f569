"""Where the stack keeps things: one folder per state, all inside the checkout's `.hookledger/`."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from deploy.stack.errors import StackError

CHECKOUT = Path(__file__).resolve().parents[2]
HOME = CHECKOUT / ".hookledger"


def cache_folder() -> Path:
    """Where unpacked servers are kept: `HOOKLEDGER_CACHE_DIR`, or the checkout's own folder."""
    chosen = os.environ.get("HOOKLEDGER_CACHE_DIR")
    return Path(chosen).expanduser().resolve() if chosen else HOME


def make_folder(path: Path) -> Path:
    """Create `path`, passable for other users: a server that root started runs as somebody else."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
    return path


def write_private(path: Path, text: str) -> None:
    """Replace `path` by `text` in one step, readable by its owner alone."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)


def read_record(path: Path) -> dict[str, str]:
    """The names and values kept in `path`; empty when there is no such file or it was cut short."""
    try:
        record = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return {str(name): str(value) for name, value in record.items()} if isinstance(record, dict) else {}


def write_record(path: Path, record: Mapping[str, str]) -> None:
    """Keep names and values in `path` (they may hold passwords)."""
    write_private(path, json.dumps(dict(record), indent=1) + "\n")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` exclusively, waiting for whoever has it; the kernel frees it when we die.

    Raises:
        StackError: its folder is somebody else's.
    """
    with _open(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def try_lock(path: Path) -> IO[str] | None:
    """Take the lock file `path` for as long as the returned file stays open; None when it is taken.

    Raises:
        StackError: its folder is somebody else's.
    """
    file = _open(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _open(lock: Path) -> IO[str]:
    try:
        return (make_folder(lock.parent) / lock.name).open("a")
    except OSError as refusal:
        reason = (refusal.strerror or "refused").lower()
        raise StackError(f"cannot write in {lock.parent} ({reason}): run this as its owner, or remove it") from refusal


def last_line(log: Path) -> str:
    """The last line that says something in a log; a remark when there is none."""
    return next(iter(reversed(tail(log, lines=1))), "it left no log")


def tail(log: Path, *, lines: int, start: int = 0) -> list[str]:
    """The last `lines` lines of a log that are not empty, of those after its first `start` bytes."""
    try:
        text = log.read_bytes()[start:].decode(errors="replace")
    except FileNotFoundError:
        return []
    return [line for line in text.splitlines() if line.strip()][-lines:]
