"""What the stack asks of a server, whichever way it was found."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from deploy.stack.errors import StackError
from deploy.stack.ports import is_listening

Say = Callable[[str], None]
"""Takes a line of progress, without its newline."""


class Server(Protocol):
    """Postgres or RabbitMQ: already running elsewhere, in a container, or a process of ours."""

    @property
    def owned(self) -> bool:
        """Whether we started it, and so may kill, wipe and restart it."""

    @property
    def url(self) -> str:
        """How clients reach it, password included; stays the same over restarts."""

    @property
    def title(self) -> str:
        """What it is and where, without password."""

    @property
    def pid(self) -> int | None:
        """Process id of an owned server that runs as a process of this machine."""

    def start(self) -> None:
        """Start it, or do nothing when it runs; returns when it answers."""

    def stop(self) -> None:
        """End it properly; keeps its data."""

    def kill(self) -> None:
        """End it as a power cut would; keeps its data."""

    def wipe(self) -> None:
        """Remove all its data; it must be stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenServer:
    """A server that somebody else runs, named by a URL in the environment."""

    kind: str
    variable: str
    url: str
    default_port: int
    owned: bool = False
    pid: int | None = None

    @property
    def title(self) -> str:
        """What it is and where, without password."""
        return f"{self.kind} (given by {self.variable}) on {self._address}"

    @property
    def answers(self) -> bool:
        """Whether something accepts connections there (a Unix socket is taken on trust)."""
        return self._host == "/" or is_listening(self._host, self._port, timeout_s=5)

    def start(self) -> None:
        """Check that it answers.

        Raises:
            StackError: nothing accepts connections there.
        """
        if not self.answers:
            raise StackError(f"{self.variable}: nothing answers on {self._address}; start that server or unset it")

    def stop(self) -> None:
        """Nothing: it is not ours."""

    def kill(self) -> None:
        """Refuse: it is not ours."""
        raise StackError(f"the {self.kind} of {self.variable} is not ours to kill: unset it for this test")

    def wipe(self) -> None:
        """Nothing: it is not ours."""

    @property
    def _host(self) -> str:
        return urlsplit(self.url).hostname or "/"  # no host: a Unix socket, named in the query

    @property
    def _port(self) -> int:
        return urlsplit(self.url).port or self.default_port

    @property
    def _address(self) -> str:
        return "a socket" if self._host == "/" else f"{self._host}:{self._port}"


def given(kind: str, variable: str, *, default_port: int, schemes: tuple[str, ...]) -> GivenServer | None:
    """The server that the environment variable `variable` names, if it is set.

    Raises:
        StackError: it is not a URL of that kind.
    """
    url = os.environ.get(variable, "")
    if not url:
        return None
    try:
        parts = urlsplit(url)
        known = parts.scheme in schemes and (parts.port or True)
    except ValueError:
        known = False
    if not known:
        raise StackError(f"{variable} is not a URL such as {schemes[0]}://user:password@host:{default_port}/name")
    return GivenServer(kind=kind, variable=variable, url=url, default_port=default_port)
