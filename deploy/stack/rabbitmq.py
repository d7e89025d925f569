"""A private RabbitMQ: the broker's own binaries, with every listener on free loopback ports."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from deploy.stack.errors import StackError
from deploy.stack.places import last_line, make_folder, read_record, write_private, write_record
from deploy.stack.ports import falls_free, free_port
from deploy.stack.processes import Process, recall, remember, spawn
from deploy.stack.rabbitmq_binaries import RabbitMQBinaries
from deploy.stack.server import Say

_USER = "hookledger"
_START_S = 90.0
_STOP_S = 30.0
_PORTS = ("port", "dist_port", "epmd_port")

_CONFIGURATION = """\
listeners.tcp.1 = 127.0.0.1:{port}
default_user = {user}
default_pass = {password}
default_permissions.configure = .*
default_permissions.read = .*
default_permissions.write = .*
loopback_users = none
log.console = false
log.file.level = info
vm_memory_high_watermark.absolute = 1GiB
disk_free_limit.absolute = 50MB
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRabbitMQ:
    """A broker with a port mapper (epmd) of its own, with its data in `folder`."""

    folder: Path
    binaries: RabbitMQBinaries
    say: Say
    owned: bool = True

    @property
    def url(self) -> str:
        """`amqp://` URL of its only user; empty before the first start."""
        known = read_record(self._record)
        return f"amqp://{_USER}:{known['password']}@127.0.0.1:{known['port']}/" if known else ""

    @property
    def title(self) -> str:
        """What it is and where, without password."""
        known = read_record(self._record)
        return f"rabbitmq {known.get('version', '')} ({known.get('origin', '')}) on 127.0.0.1:{known.get('port', '?')}"

    @property
    def pid(self) -> int | None:
        """Process id of the broker's virtual machine, while it runs."""
        process = recall(self._pid_file)
        return process.pid if process else None

    def start(self) -> None:
        """Start it; nothing when it runs.

        Raises:
            StackError: it cannot start here.
        """
        if recall(self._pid_file):
            return
        for name in ("home", "mnesia", "log"):
            make_folder(self.folder / name)
        for _ in range(3):
            self._take_ports()
            if self._launch():
                return
            self.stop()
        raise StackError(f"rabbitmq did not start: {last_line(self._output)} (logs: {self.folder / 'log'})")

    def stop(self) -> None:
        """Orderly shutdown, then its port mapper."""
        broker = recall(self._pid_file)
        if broker:
            broker.stop(grace_s=_STOP_S)
        mapper = recall(self._mapper_file)
        if mapper:
            mapper.stop(number=signal.SIGKILL, grace_s=5)  # it keeps nothing
        for file in (self._pid_file, self._mapper_file):
            file.unlink(missing_ok=True)

    def kill(self) -> None:
        """SIGKILL the broker; its port mapper stays, as it would."""
        broker = recall(self._pid_file)
        if broker:
            broker.kill()

    def control(self, *words: str, given: str = "") -> str:
        """Run `rabbitmqctl` against it while it runs; what that prints.

        Args:
            words: command and arguments, such as `list_connections`, `name`.
            given: what it may read from standard input.

        Raises:
            StackError: it fails, or takes longer than a minute.
        """
        environment = self._environment(read_record(self._record)) | {
            "RABBITMQ_CTL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }
        command = ["./rabbitmqctl", "--quiet", *words]
        try:
            done = subprocess.run(
                command,
                cwd=self.binaries.sbin,
                env=environment,
                input=given,
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            )
        except (subprocess.SubprocessError, OSError) as failure:
            told = getattr(failure, "stderr", None) or str(failure)
            raise StackError(f"rabbitmqctl {words[0]}: {' '.join(str(told).split())}") from failure
        return done.stdout

    def wipe(self) -> None:
        """Remove its queues and messages; stops it first. Ports and password stay."""
        self.stop()
        shutil.rmtree(self.folder / "mnesia", ignore_errors=True)

    def _take_ports(self) -> None:
        """Choose ports on the first start, and new ones for those that somebody else took."""
        known = read_record(self._record)
        chosen = {
            "password": known.get("password") or secrets.token_hex(16),
            "version": self.binaries.version,
            "origin": self.binaries.origin,
        }
        mapper = recall(self._mapper_file)
        for name in _PORTS:
            usable = name in known and ((name == "epmd_port" and mapper is not None) or falls_free(int(known[name])))
            chosen[name] = known[name] if usable else str(free_port())
            if name in known and not usable:
                self.say(f"rabbitmq: port {known[name]} is taken, moving to {chosen[name]}")
        write_record(self._record, chosen)

    def _launch(self) -> bool:
        """Start the port mapper and the broker; whether the broker answers."""
        known = read_record(self._record)
        write_private(
            self.folder / "rabbitmq.conf",
            _CONFIGURATION.format(port=known["port"], user=_USER, password=known["password"]),
        )
        (self.folder / "enabled_plugins").write_text("[].\n")
        environment = self._environment(known)
        if not recall(self._mapper_file):
            # In the foreground and by our hand: one that the broker starts would be unknown to us.
            remember(spawn([self.binaries.epmd], log=self._output, env=environment), self._mapper_file)
        # By a relative path: the start script stumbles over spaces in an absolute one.
        broker = spawn(["./rabbitmq-server"], log=self._output, env=environment, cwd=self.binaries.sbin)
        remember(broker, self._pid_file)
        return self._wait(broker, int(known["port"]))

    def _wait(self, broker: Process, port: int) -> bool:
        """Wait until the broker greets; False when it ended instead.

        Raises:
            StackError: it took too long.
        """
        deadline = time.monotonic() + _START_S
        while broker.alive:
            if _greets(port):
                return True
            if time.monotonic() > deadline:
                self.stop()
                raise StackError(f"rabbitmq was not ready within {_START_S:.0f} s: see {self.folder / 'log'}")
            time.sleep(0.1)
        return False

    def _environment(self, known: dict[str, str]) -> dict[str, str]:
        """Everything that steers the broker, and nothing of ours that would."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ_", "ERL_"))}
        return {**ours, **self.binaries.environment} | {
            "HOME": str(self.folder / "home"),  # the Erlang cookie is made there
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": known["epmd_port"],
            # The node's name is in the path of its data: it must not change when a port does.
            "RABBITMQ_NODENAME": "hookledger@localhost",
            "RABBITMQ_DIST_PORT": known["dist_port"],
            "RABBITMQ_BASE": str(self.folder),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_PID_FILE": str(self.folder / "rabbit.pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 +sbwt none",
            # The start script becomes the broker, instead of waiting for it: one process, one pid.
            "RUNNING_UNDER_SYSTEMD": "true",
        }  # fmt: skip

    @property
    def _output(self) -> Path:
        return self.folder / "log" / "output"

    @property
    def _pid_file(self) -> Path:
        return self.folder / "pid"

    @property
    def _mapper_file(self) -> Path:
        return self.folder / "epmd.pid"

    @property
    def _record(self) -> Path:
        return self.folder / "server.json"


def _greets(port: int) -> bool:
    """Whether an AMQP 0-9-1 broker answers the protocol header with `connection.start` (a method frame, type 1)."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(1) == b"\x01"
    except OSError:
        return False
