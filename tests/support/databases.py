"""Databases of a module's own, cloned from one that was migrated once."""

import secrets
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from libs.common.postgres.migrate import migrate


async def create_template(server_url: str) -> str:
    """A migrated database on the server; its name."""
    name = f"hookledger_template_{secrets.token_hex(4)}"
    await _execute(server_url, f'CREATE DATABASE "{name}"')
    await migrate(named(server_url, name), _quiet)
    return name


async def clone(server_url: str, template: str) -> str:
    """A database that is as `template` was; its name."""
    name = f"hookledger_test_{secrets.token_hex(4)}"
    await _execute(server_url, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    await migrate(named(server_url, name), _quiet)  # opens an epoch: the template's transaction ids are not its own
    return name


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
