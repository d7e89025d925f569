"""Postgres and RabbitMQ in containers, where a Docker daemon answers."""

import hashlib
import os
import secrets
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from deploy.stack.errors import StackError
from deploy.stack.places import make_folder, read_record, write_record
from deploy.stack.ports import free_port, is_free
from deploy.stack.server import Say

_ROLE = "hookledger"
_ANSWER_S = 5.0
_PULL_S = 300.0
_START_S = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What to run in a container, and how its clients and health are asked."""

    kind: str
    name: str
    port: int
    url: str
    environment: tuple[str, ...]
    ready: tuple[str, ...]


POSTGRES = Image(
    kind="postgres",
    name="postgres:17-alpine",
    port=5432,
    url="postgresql://{role}:{password}@127.0.0.1:{port}/{role}",
    environment=("POSTGRES_USER={role}", "POSTGRES_PASSWORD={password}", "POSTGRES_DB={role}"),
    # Over TCP: while its first start prepares the data, the image's server has only a Unix socket.
    ready=("pg_isready", "-q", "-h", "127.0.0.1", "-U", _ROLE),
)
RABBITMQ = Image(
    kind="rabbitmq",
    name="rabbitmq:4",
    port=5672,
    url="amqp://{role}:{password}@127.0.0.1:{port}/",
    environment=("RABBITMQ_DEFAULT_USER={role}", "RABBITMQ_DEFAULT_PASS={password}"),
    ready=("rabbitmq-diagnostics", "-q", "check_port_connectivity"),
)


def daemon_answers() -> bool:
    """Whether a Docker daemon of this machine answers; a client alone, or a daemon elsewhere, is none."""
    address = os.environ.get("DOCKER_HOST", "unix://")
    if not shutil.which("docker") or not address.startswith("unix://"):
        return False
    try:
        return _docker("version", "--format", "{{.Server.Version}}", timeout_s=_ANSWER_S).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One server in a container of its own, named after the folder of its state."""

    image: Image
    folder: Path
    say: Say
    owned: bool = True
    pid: int | None = None

    @property
    def url(self) -> str:
        """How clients reach it; empty before the first start."""
        known = read_record(self._record)
        return self.image.url.format(role=_ROLE, **known) if known else ""

    @property
    def title(self) -> str:
        """What it is and where, without password."""
        port = read_record(self._record).get("port", "?")
        return f"{self.image.kind} (docker, {self.image.name}) on 127.0.0.1:{port}"

    @property
    def exists(self) -> bool:
        """Whether a start has ever made it."""
        return self._record.exists()

    def start(self) -> None:
        """Start the container, or make it on the first time; nothing when it runs.

        Raises:
            StackError: Docker refused.
        """
        if self.exists and _docker("start", self._name).returncode == 0:
            self._wait()
            return
        make_folder(self.folder)
        known = {"password": secrets.token_hex(16), "port": str(free_port())} | read_record(self._record)
        if not is_free(int(known["port"])):
            known["port"] = str(free_port())
        write_record(self._record, known)
        _docker("rm", "--force", "--volumes", self._name)  # of a start that was cut short
        environment = [word for pair in self.image.environment for word in ("--env", pair.format(role=_ROLE, **known))]
        # RabbitMQ names its data after the host: it must be the same in each run.
        run = ["run", "--detach", "--name", self._name, "--hostname", self.image.kind]
        publish = ["--publish", f"127.0.0.1:{known['port']}:{self.image.port}"]
        done = _docker(*run, *publish, *environment, self.image.name, timeout_s=_PULL_S)
        if done.returncode:
            self.wipe()
            self._record.unlink()
            words = [line for line in done.stderr.splitlines() if line.strip()]
            raise StackError(f"docker run {self.image.name} failed: {words[-1] if words else 'without a word'}")
        self._wait()

    def stop(self) -> None:
        """Stop the container; its data stays in it."""
        if self.exists:
            _docker("stop", self._name)

    def kill(self) -> None:
        """SIGKILL everything in the container."""
        if self.exists:
            _docker("kill", self._name)

    def wipe(self) -> None:
        """Remove the container and its data. Port and password stay."""
        if self.exists:
            _docker("rm", "--force", "--volumes", self._name)

    def _wait(self) -> None:
        """Wait until the server in it answers.

        Raises:
            StackError: it took too long.
        """
        deadline = time.monotonic() + _START_S
        while _docker("exec", self._name, *self.image.ready).returncode:
            if time.monotonic() > deadline:
                raise StackError(f"{self.image.kind} in the container {self._name} did not answer in {_START_S:.0f} s")
            time.sleep(0.3)

    @property
    def _name(self) -> str:
        state = hashlib.sha256(str(self.folder.resolve().parent).encode()).hexdigest()[:10]
        return f"hookledger-{state}-{self.image.kind}"

    @property
    def _record(self) -> Path:
        return self.folder / "container.json"


def _docker(*words: str, timeout_s: float = _START_S) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=False, timeout=timeout_s)
