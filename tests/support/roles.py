"""A database as an operator prepares it: roles of deploy/roles.sql, each with a password, migrated by its owner."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from deploy.stack.places import CHECKOUT
from libs.common.postgres.migrate import migrate

ROLES_SQL: Final = CHECKOUT / "deploy" / "roles.sql"
OWNER: Final = "hookledger_owner"
NAMES: Final = (OWNER, "hookledger_ingress", "hookledger_dispatcher", "hookledger_registry")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A database and how each role logs in to it.

    Attributes:
        admin: the URL of the server's superuser.
        urls: by role.
    """

    admin: str
    urls: Mapping[str, str]


async def prepare(admin: str, *, migrated: bool = True) -> Prepared:
    """Apply deploy/roles.sql as `admin`, give each role a password, migrate as the owner."""
    connection = await asyncpg.connect(admin, timeout=10)
    try:
        await connection.execute(ROLES_SQL.read_text(encoding="utf-8"))
        urls = {}
        for name in NAMES:
            password = secrets.token_hex(16)
            await connection.execute(f"ALTER ROLE {name} PASSWORD '{password}'")
            parts = urlsplit(admin)
            place = parts.netloc.rpartition("@")[2]
            urls[name] = urlunsplit(parts._replace(netloc=f"{name}:{password}@{place}"))
    finally:
        await connection.close()
    if migrated:
        await migrate(urls[OWNER], lambda _: None)
    return Prepared(admin=admin, urls=urls)
