"""Databases of a module's own, cloned from one that was migrated once."""

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from libs.common.postgres.migrate import migrate

_BE_LATE = """
    CREATE OR REPLACE FUNCTION hookledger.be_late() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_sleep(TG_ARGV[0]::float);
        RETURN NULL;
    END $$;
"""


async def create_template(server_url: str, slow: Mapping[str, float]) -> str:
    """A migrated database on the server, with writes that are late; its name."""
    name = f"hookledger_template_{secrets.token_hex(4)}"
    await _execute(server_url, f'CREATE DATABASE "{name}"')
    url = named(server_url, name)
    await migrate(url, _quiet)
    if slow:
        await slow_down(url, slow)
    return name


async def slow_down(url: str, writes: Mapping[str, float]) -> None:
    """Have each of these writes, such as `UPDATE projection_1.delivery_state`, be late by so many seconds."""
    triggers = []
    for write, seconds in writes.items():
        operation, table = write.split(" ")
        triggers.append(
            f"CREATE OR REPLACE TRIGGER late_{operation} AFTER {operation} ON {table} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION hookledger.be_late({seconds});"
        )
    await _execute(url, _BE_LATE + "".join(triggers))


async def speed_up(url: str) -> None:
    """Have no write be late any more."""
    await _execute(url, "DROP FUNCTION IF EXISTS hookledger.be_late CASCADE")


@asynccontextmanager
async def cloned(server_url: str, template: str) -> AsyncIterator[str]:
    """The URL of a database that is as `template` was; in the end it is dropped, whoever is connected to it."""
    name = f"hookledger_test_{secrets.token_hex(4)}"
    await _execute(server_url, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    url = named(server_url, name)
    try:
        await migrate(url, _quiet)  # opens an epoch: the template's transaction ids are not its own
        yield url
    finally:
        await drop(server_url, name)


async def drop(server_url: str, name: str) -> None:
    """Drop a database, whoever is connected to it."""
    await _execute(server_url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def named(server_url: str, name: str) -> str:
    """The URL of the database `name` on the same server."""
    return urlunsplit(urlsplit(server_url)._replace(path=f"/{name}"))


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        await connection.execute(statement, timeout=60)
    finally:
        await connection.close(timeout=10)


def _quiet(_line: str) -> None:
    pass
