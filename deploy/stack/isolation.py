"""A corner of a running stack for one test or one demo: a database and an AMQP name prefix of its own."""

import asyncio
import contextlib
import secrets
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aio_pika
import asyncpg

from deploy.stack.errors import StackError
from deploy.stack.servers import Servers
from libs.common.rabbitmq.topology import Names

_CONNECT_S = 10.0
_STATEMENT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """What a service needs to know to keep to its corner."""

    database_url: str
    amqp_url: str
    amqp_prefix: str


@contextmanager
def isolated(servers: Servers, *, label: str) -> Iterator[Isolation]:
    """A new, empty database and an unused AMQP prefix; both are removed at the end.

    Args:
        servers: owned or given, it works the same way.
        label: lower-case word that tells people who made these, such as `test`.
    """
    name = f"hookledger_{label}_{secrets.token_hex(4)}"
    database_url = create_database(servers.database_url, name)
    try:
        yield Isolation(database_url=database_url, amqp_url=servers.amqp_url, amqp_prefix=name)
    finally:
        with contextlib.suppress(StackError):  # a test may have left its server dead
            remove_names(servers.amqp_url, name)
        with contextlib.suppress(StackError):
            drop_database(servers.database_url, name)


def create_database(url: str, name: str) -> str:
    """Create the database `name` on the server of `url`; returns the URL of the new one.

    Raises:
        StackError: the server does not answer, or its user may not create databases.
    """
    _in_thread(_execute(url, f'CREATE DATABASE "{name}"'))
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def drop_database(url: str, name: str) -> None:
    """Drop the database `name` on the server of `url`, cutting off whoever is connected to it.

    Raises:
        StackError: the server does not answer, or its user may not drop it.
    """
    _in_thread(_execute(url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))


def remove_names(amqp_url: str, prefix: str) -> None:
    """Delete the exchanges and queues that Hookledger declares under `prefix`, whatever they hold.

    Raises:
        StackError: the broker does not answer.
    """
    names = Names(prefix)
    every = {getattr(names, name) for name, member in vars(Names).items() if isinstance(member, property)}
    _in_thread(_remove_names(amqp_url, sorted(every)))


async def _execute(url: str, statement: str) -> None:
    try:
        connection = await asyncpg.connect(url, timeout=_CONNECT_S)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as refusal:
        raise StackError(f"postgres: cannot connect: {refusal}") from refusal
    try:
        await connection.execute(statement, timeout=_STATEMENT_S)
    except asyncpg.PostgresError as refusal:
        raise StackError(f"postgres: {statement}: {refusal}") from refusal
    finally:
        await connection.close(timeout=_CONNECT_S)


async def _remove_names(amqp_url: str, names: list[str]) -> None:
    try:
        connection = await aio_pika.connect(amqp_url, timeout=_CONNECT_S)
    except (OSError, aio_pika.exceptions.AMQPError) as refusal:
        raise StackError(f"rabbitmq: cannot connect: {refusal}") from refusal
    async with connection:
        channel = await connection.channel()
        for name in names:  # the broker takes the deletion of what does not exist as done
            await channel.queue_delete(name, timeout=_STATEMENT_S)
            await channel.exchange_delete(name, timeout=_STATEMENT_S)


def _in_thread(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end, also where an event loop of the caller's is running."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(work)
        except BaseException as failure:  # noqa: BLE001 - it is raised again in the caller's thread
            failures.append(failure)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
