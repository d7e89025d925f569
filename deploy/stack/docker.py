"""Postgres and RabbitMQ in containers, where a Docker daemon answers."""

import hashlib
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from deploy.stack.errors import StackError
from deploy.stack.places import make_folder, read_record, write_record
from deploy.stack.ports import free_port, is_free
from deploy.stack.server import Say

_ROLE = "hookledger"
_SOCKET = "unix:///var/run/docker.sock"
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
    name="postgres:17.6-alpine3.22",
    port=5432,
    url="postgresql://{role}:{password}@127.0.0.1:{port}/{role}",
    environment=("POSTGRES_USER={role}", "POSTGRES_PASSWORD={password}", "POSTGRES_DB={role}"),
    # Over TCP: while its first start prepares the data, the image's server has only a Unix socket.
    ready=("pg_isready", "-q", "-h", "127.0.0.1", "-U", _ROLE),
)
RABBITMQ = Image(
    kind="rabbitmq",
    name="rabbitmq:4.1",
    port=5672,
    url="amqp://{role}:{password}@127.0.0.1:{port}/",
    environment=("RABBITMQ_DEFAULT_USER={role}", "RABBITMQ_DEFAULT_PASS={password}"),
    ready=("rabbitmq-diagnostics", "-q", "check_port_connectivity"),
)


class Engine(Protocol):
    """Whoever runs containers for us; they are called by name."""

    def answers(self) -> bool:
        """Whether a daemon of this machine answers; a client alone, or a daemon elsewhere, is none."""

    def run(self, name: str, image: Image, *, port: int, environment: Sequence[str]) -> None:
        """Make and start a container whose port is `port` on loopback, pulling its image if need be.

        Raises:
            StackError: the daemon refused.
        """

    def start(self, name: str) -> bool:
        """Start a container that was made before; False if there is none."""

    def stop(self, name: str) -> None:
        """End a container properly, if there is one."""

    def kill(self, name: str) -> None:
        """SIGKILL everything in a container, if there is one."""

    def remove(self, name: str) -> None:
        """Remove a container with its data, if there is one."""

    def succeeds(self, name: str, command: Sequence[str]) -> bool:
        """Whether a command in the container ends with 0."""


def local_daemon() -> str | None:
    """The Unix socket of this machine's daemon, whether or not it answers; None where another machine's is named."""
    kind, _, path = os.environ.get("DOCKER_HOST", _SOCKET).partition("://")
    return (path or _SOCKET.partition("://")[2]) if kind == "unix" else None


class CommandLine:
    """Docker by its command line, which is all that a user who starts the stack needs to have."""

    def answers(self) -> bool:
        """Whether a daemon of this machine answers."""
        if not shutil.which("docker") or local_daemon() is None:
            return False
        try:
            return self._docker("version", "--format", "{{.Server.Version}}", timeout_s=_ANSWER_S).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def run(self, name: str, image: Image, *, port: int, environment: Sequence[str]) -> None:
        """`docker run`."""
        # RabbitMQ names its data after the host: it must be the same in each run.
        run = ["run", "--detach", "--name", name, "--hostname", image.kind]
        publish = ["--publish", f"127.0.0.1:{port}:{image.port}"]
        settings = [word for pair in environment for word in ("--env", pair)]
        done = self._docker(*run, *publish, *settings, image.name, timeout_s=_PULL_S)
        if done.returncode:
            words = [line for line in done.stderr.splitlines() if line.strip()]
            raise StackError(f"docker run {image.name} failed: {words[-1] if words else 'without a word'}")

    def start(self, name: str) -> bool:
        """`docker start`."""
        return self._docker("start", name).returncode == 0

    def stop(self, name: str) -> None:
        """`docker stop`."""
        self._docker("stop", name)

    def kill(self, name: str) -> None:
        """`docker kill`."""
        self._docker("kill", name)

    def remove(self, name: str) -> None:
        """`docker rm`."""
        self._docker("rm", "--force", "--volumes", name)

    def succeeds(self, name: str, command: Sequence[str]) -> bool:
        """`docker exec`."""
        return self._docker("exec", name, *command).returncode == 0

    def _docker(self, *words: str, timeout_s: float = _START_S) -> subprocess.CompletedProcess[str]:
        argv = ["docker", *words]
        try:
            return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=timeout_s)
        except OSError as refusal:  # it is not, or no longer, installed
            return subprocess.CompletedProcess(argv, returncode=127, stdout="", stderr=str(refusal))


COMMAND_LINE = CommandLine()


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One server in a container of its own, named after the folder of its state."""

    image: Image
    folder: Path
    say: Say
    engine: Engine = COMMAND_LINE
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
        if self.exists and self.engine.start(self._name):
            self._wait()
            return
        make_folder(self.folder)
        known = {"password": secrets.token_hex(16), "port": str(free_port())} | read_record(self._record)
        if not is_free(int(known["port"])):
            known["port"] = str(free_port())
        write_record(self._record, known)
        self.engine.remove(self._name)  # of a start that was cut short
        environment = [pair.format(role=_ROLE, **known) for pair in self.image.environment]
        try:
            self.engine.run(self._name, self.image, port=int(known["port"]), environment=environment)
        except StackError:
            self.wipe()
            self._record.unlink()
            raise
        self._wait()

    def stop(self) -> None:
        """Stop the container; its data stays in it."""
        if self.exists:
            self.engine.stop(self._name)

    def kill(self) -> None:
        """SIGKILL everything in the container."""
        if self.exists:
            self.engine.kill(self._name)

    def wipe(self) -> None:
        """Remove the container and its data. Port and password stay."""
        if self.exists:
            self.engine.remove(self._name)

    def _wait(self) -> None:
        """Wait until the server in it answers.

        Raises:
            StackError: it took too long.
        """
        deadline = time.monotonic() + _START_S
        while not self.engine.succeeds(self._name, self.image.ready):
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
