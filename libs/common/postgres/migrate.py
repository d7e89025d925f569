"""Migrations: plain `.sql` files, forward only, applied by one command under an advisory lock.

The lock is polled: two migrators that both wait inside Postgres hold snapshots, and a concurrent index build of the one
would wait for the other for ever.
"""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncpg

if TYPE_CHECKING:
    from libs.common.postgres.pool import Connection

_FOLDER: Final = Path(__file__).parent / "migrations"
_LOCK: Final = 0x686F6F6B  # "hook"
_POLL_SECONDS: Final = 0.2


class SchemaError(Exception):
    """The database's schema is not the one that this version works with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One file. Its number is its place; its checksum tells whether it was changed after it was applied."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, in hex."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations() -> list[Migration]:
    """All migrations of this version, in order."""
    found = []
    for path in sorted(_FOLDER.glob("*.sql")):
        number, _, name = path.stem.partition("_")
        found.append(Migration(number=int(number), name=name, sql=path.read_text(encoding="utf-8")))
    return found


async def migrate(url: str, say: Callable[[str], None]) -> int:
    """Bring the database at `url` to this version's schema; how many migrations it took.

    Raises:
        SchemaError: the database is newer than this version, or an applied migration was changed.
    """
    connection = await asyncpg.connect(url, timeout=10)
    try:
        while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):  # noqa: ASYNC110  see above
            await asyncio.sleep(_POLL_SECONDS)
        await connection.execute("""
            CREATE SCHEMA IF NOT EXISTS hookledger;
            CREATE TABLE IF NOT EXISTS hookledger.migration (
                number     integer PRIMARY KEY,
                name       text NOT NULL,
                checksum   text NOT NULL,
                applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
            );
            GRANT USAGE ON SCHEMA hookledger TO PUBLIC;
            GRANT SELECT ON hookledger.migration TO PUBLIC;
        """)
        applied = await _applied(connection)
        _compare(applied)
        wanted = [migration for migration in migrations() if migration.number not in applied]
        for migration in wanted:
            say(f"migrate: {migration.number:04d} {migration.name}")
            async with connection.transaction():
                await connection.execute(migration.sql)
                await connection.execute(
                    "INSERT INTO hookledger.migration (number, name, checksum) VALUES ($1, $2, $3)",
                    migration.number,
                    migration.name,
                    migration.checksum,
                )
        await connection.execute("SELECT hookledger.create_partitions()")
        await _open_epoch(connection, say)
        return len(wanted)
    finally:
        await connection.close()


async def check_schema(connection: "Connection") -> None:
    """Make sure that the database has exactly this version's migrations, and is in the cluster it was in.

    Raises:
        SchemaError: it is older, newer, changed, or was restored into another cluster.
    """
    applied = await _applied(connection)
    _compare(applied)
    missing = [migration for migration in migrations() if migration.number not in applied]
    if missing:
        raise SchemaError(f"the database lacks migration {missing[0].number:04d}; run `hookledger migrate`")
    if await epoch(connection) is None:
        raise SchemaError("the database was restored into another cluster; run `hookledger migrate` to open an epoch")


async def epoch(connection: "Connection") -> int | None:
    """The ledger's epoch, or None where the database has moved to another cluster since it was opened."""
    found: int | None = await connection.fetchval("""
        SELECT e.epoch
        FROM (SELECT * FROM hookledger.ledger_epoch ORDER BY epoch DESC LIMIT 1) e, pg_control_system() s, pg_database d
        WHERE e.system_identifier = s.system_identifier
          AND d.datname = current_database() AND d.oid = e.database_oid
    """)
    return found


async def _applied(connection: "Connection") -> dict[int, str]:
    rows = await connection.fetch("SELECT number, checksum FROM hookledger.migration")
    return {row["number"]: row["checksum"] for row in rows}


def _compare(applied: dict[int, str]) -> None:
    known = {migration.number: migration for migration in migrations()}
    for number, checksum in sorted(applied.items()):
        if number not in known:
            raise SchemaError(
                f"the database has migration {number:04d}, which is newer than this version of Hookledger"
            )
        if known[number].checksum != checksum:
            raise SchemaError(f"migration {number:04d} was changed after it was applied to this database")


async def _open_epoch(connection: "Connection", say: Callable[[str], None]) -> None:
    if await epoch(connection) is not None:
        return
    opened = await connection.fetchval("""
        INSERT INTO hookledger.ledger_epoch (epoch, system_identifier, database_oid)
        SELECT coalesce((SELECT max(epoch) FROM hookledger.ledger_epoch), 0) + 1, s.system_identifier, d.oid
        FROM pg_control_system() s, pg_database d WHERE d.datname = current_database()
        RETURNING epoch
    """)
    # What waits for its fan-out is older than whatever gets one of this cluster's transaction ids.
    await connection.execute("UPDATE hookledger.outbox SET xact = '0'")
    say(f"migrate: the ledger's epoch is {opened}")
