"""Migrations: forward only, once, by one at a time; and services that refuse a schema that is not theirs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from secrets import token_hex

import asyncpg
import pytest

from deploy.stack.servers import Servers
from libs.common.postgres.migrate import SchemaError, epoch, migrate, migrations
from libs.common.postgres.pool import DatabaseUnavailableError, open_pool
from libs.common.runtime.clock import new_id
from tests.support import databases


async def test_an_empty_database_is_migrated_once(servers: Servers) -> None:
    async with empty_database(servers) as url:
        said: list[str] = []
        assert await migrate(url, said.append) == len(migrations())
        assert said[0] == "migrate: 0001 ledger"
        assert said[-1] == "migrate: the ledger's epoch is 1"
        again: list[str] = []
        assert await migrate(url, again.append) == 0
        assert again == []


async def test_of_concurrent_migrators_one_migrates_and_the_others_find_it_done(servers: Servers) -> None:
    async with empty_database(servers) as url:
        taken = await asyncio.gather(*(migrate(url, _quiet) for _ in range(4)))
        assert sorted(taken) == [0, 0, 0, len(migrations())]
        async with asyncpg.create_pool(url, min_size=1, max_size=1) as pool:
            assert await pool.fetchval("SELECT count(*) FROM hookledger.ledger_epoch") == 1


async def test_two_databases_of_one_cluster_are_migrated_at_once(servers: Servers) -> None:
    """The roles are the cluster's, not the database's."""
    async with empty_database(servers) as one, empty_database(servers) as other:
        await asyncio.gather(migrate(one, _quiet), migrate(other, _quiet))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("DELETE FROM hookledger.migration WHERE number > 1", "lacks migration 0002; run `hookledger migrate`"),
        ("UPDATE hookledger.migration SET checksum = 'x' WHERE number = 1", "migration 0001 was changed after"),
        ("INSERT INTO hookledger.migration VALUES (9999, 'later', 'x')", "has migration 9999, which is newer"),
        ("UPDATE hookledger.ledger_epoch SET system_identifier = 1", "was restored into another cluster; run"),
        ("UPDATE hookledger.ledger_epoch SET database_oid = 1", "was restored into another cluster; run"),
    ],
    ids=["older", "changed", "newer", "another-cluster", "another-database"],
)
async def test_a_service_refuses_another_schema_with_one_line(database: str, change: str, reason: str) -> None:
    async with changed(database, change):
        with pytest.raises(DatabaseUnavailableError, match=reason) as refused:
            await open_pool(database, "dispatcher", size=1)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE hookledger.migration SET checksum = 'x' WHERE number = 1",
        "INSERT INTO hookledger.migration VALUES (9999, 'later', 'x')",
    ],
    ids=["changed", "newer"],
)
async def test_the_migrator_refuses_them_too(database: str, change: str) -> None:
    async with changed(database, change):
        with pytest.raises(SchemaError):
            await migrate(database, _quiet)


async def test_a_database_that_was_never_migrated_is_refused_with_one_line(servers: Servers) -> None:
    async with empty_database(servers) as url:
        with pytest.raises(DatabaseUnavailableError, match="run `hookledger migrate`") as refused:
            await open_pool(url, "dispatcher", size=1)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("postgresql://nobody@127.0.0.1:1/nothing", "cannot be reached"),
        ("mysql://nobody@127.0.0.1/nothing", "HOOKLEDGER_DATABASE_URL cannot be used"),
        ("postgresql://127.0.0.1:notaport/nothing", "HOOKLEDGER_DATABASE_URL cannot be used"),
    ],
)
async def test_a_server_that_is_not_there_and_a_url_that_is_none_are_told_in_one_line(url: str, reason: str) -> None:
    with pytest.raises(DatabaseUnavailableError, match=reason) as refused:
        await open_pool(url, "dispatcher", size=1)
    assert "\n" not in str(refused.value)


async def test_a_database_in_another_cluster_gets_a_new_epoch_from_migrate(database: str) -> None:
    async with (
        changed(database, "UPDATE hookledger.ledger_epoch SET system_identifier = 1"),
        asyncpg.create_pool(database, min_size=1, max_size=1) as pool,
        pool.acquire() as connection,
    ):
        before = await connection.fetchval("SELECT max(epoch) FROM hookledger.ledger_epoch")
        assert await epoch(connection) is None
        said: list[str] = []
        assert await migrate(database, said.append) == 0
        assert said == [f"migrate: the ledger's epoch is {before + 1}"]
        assert await epoch(connection) == before + 1
        await (await open_pool(database, "dispatcher", size=1)).close()


async def test_partitions_are_made_four_weeks_ahead_and_only_once(database: str) -> None:
    pool = await open_pool(database, "dispatcher", size=8)
    async with pool:
        assert await pool.fetchval("SELECT hookledger.create_partitions()") == 0
        made = await asyncio.gather(
            *(pool.fetchval("SELECT hookledger.create_partitions(6)") for _ in range(4)),
        )
        assert sorted(made) == [0, 0, 0, 12]  # two weeks more of six tables, by one of the callers
        assert await pool.fetchval("SELECT hookledger.create_partitions(6)") == 0


async def test_the_end_of_a_delivery_has_room_beside_its_beginning(database: str) -> None:
    """Where it has not, each of the table's indexes gets another entry."""
    connection = await asyncpg.connect(database)
    try:
        transaction = connection.transaction()
        await transaction.start()
        ids = [new_id() for _ in range(1000)]
        await connection.execute(
            """
            INSERT INTO projection_1.delivery_state (delivery, app, message, endpoint, attempt, status, version, run,
                attempts, failures, unknowns, process, created_at, updated_at)
            SELECT id, id, id, id, id, 'sending', 2, 1, 1, 0, 0, id, now(), now() FROM unnest($1::uuid[]) AS id
            """,
            ids,
        )
        places = "SELECT delivery, (ctid::text::point)[0] AS page FROM projection_1.delivery_state WHERE app = ANY($1)"
        begun = {row["delivery"]: row["page"] for row in await connection.fetch(places, ids)}
        await connection.execute(
            """
            UPDATE projection_1.delivery_state SET status = 'succeeded', version = 3, last_status = 200,
                attempt = NULL, process = NULL WHERE app = ANY($1)
            """,
            ids,
        )
        assert {row["delivery"]: row["page"] for row in await connection.fetch(places, ids)} == begun
        assert len(begun) == len(ids)
        await transaction.rollback()
    finally:
        await connection.close()


async def test_a_fact_without_a_partition_is_refused_rather_than_put_anywhere(database: str) -> None:
    async with asyncpg.create_pool(database, min_size=1, max_size=1) as pool:
        with pytest.raises(asyncpg.CheckViolationError, match="no partition"):
            await pool.execute("""
                INSERT INTO hookledger.fact (stream, version, epoch, app, kind, schema, at, data)
                VALUES ('00000000-0000-7000-8000-000000000000', 1, 1, gen_random_uuid(), 'x', 1, now(), '')
            """)


@asynccontextmanager
async def empty_database(servers: Servers) -> AsyncIterator[str]:
    """A database in which nothing was made."""
    name = f"hookledger_test_{token_hex(4)}"
    await databases._execute(servers.database_url, f'CREATE DATABASE "{name}"')
    try:
        yield databases.named(servers.database_url, name)
    finally:
        await databases.drop(servers.database_url, name)


@asynccontextmanager
async def changed(database: str, statement: str) -> AsyncIterator[None]:
    """The database after a change by its owner, and afterwards as it was."""
    async with asyncpg.create_pool(database, min_size=1, max_size=1) as pool:
        before = {
            table: [tuple(row.values()) for row in await pool.fetch(f"SELECT * FROM hookledger.{table}")]  # noqa: S608
            for table in ("migration", "ledger_epoch")
        }
        await pool.execute(statement)
        try:
            yield
        finally:
            async with pool.acquire() as connection, connection.transaction():
                for table, rows in before.items():
                    await connection.execute(f"DELETE FROM hookledger.{table}")  # noqa: S608  one of two constants
                    await connection.copy_records_to_table(table, schema_name="hookledger", records=rows)


def _quiet(_line: str) -> None:
    pass
