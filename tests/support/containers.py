"""Containers by testcontainers, for tests on a machine where a Docker daemon answers; its command line is not needed.

Its reaper stays off: the stack removes what a killed run left by itself, and the reaper is one more image to pull and
holds the daemon's socket.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import docker
from docker.errors import DockerException, NotFound
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

from deploy.stack.docker import Image, local_daemon
from deploy.stack.errors import StackError

_REFUSALS = (DockerException, OSError)  # what `requests` raises is an OSError

testcontainers_config.ryuk_disabled = True


class Testcontainers:
    """Runs containers with testcontainers, and finds them again by their names."""

    __test__ = False  # pytest looks for tests in what begins with "Test"

    def answers(self) -> bool:
        """Whether a daemon of this machine answers."""
        socket = local_daemon()
        if socket is None or not Path(socket).is_socket():
            return False
        try:
            return bool(self._client.ping())
        except _REFUSALS:
            return False

    def run(self, name: str, image: Image, *, port: int, environment: Sequence[str]) -> None:
        """A new container, always on the same port of loopback: its URL outlives it."""
        container = DockerContainer(image.name).with_name(name).with_kwargs(hostname=image.kind)
        container.with_envs(**dict(pair.split("=", 1) for pair in environment))
        container.ports[f"{image.port}/tcp"] = ("127.0.0.1", port)  # type: ignore[assignment]  # handed on to `docker`, which takes it
        try:
            container.start()
        except _REFUSALS as refusal:
            raise StackError(f"testcontainers: {image.name}: {refusal}") from refusal

    def start(self, name: str) -> bool:
        """Start the container of that name."""
        return self._with(name, lambda container: container.start())

    def stop(self, name: str) -> None:
        """Stop the container of that name."""
        self._with(name, lambda container: container.stop())

    def kill(self, name: str) -> None:
        """Kill the container of that name."""
        self._with(name, lambda container: container.kill())

    def remove(self, name: str) -> None:
        """Remove the container of that name."""
        self._with(name, lambda container: container.remove(force=True, v=True))

    def succeeds(self, name: str, command: Sequence[str]) -> bool:
        """Run a command in the container of that name."""
        codes: list[int] = []
        self._with(name, lambda container: codes.append(container.exec_run(list(command)).exit_code))
        return codes == [0]

    def _with(self, name: str, work: Callable[[Any], object]) -> bool:
        """Whether there is such a container, and the daemon did `work` with it."""
        try:
            work(self._client.containers.get(name))
        except NotFound:
            return False
        except _REFUSALS:
            return False
        return True

    @cached_property
    def _client(self) -> Any:
        return docker.from_env(timeout=30)
