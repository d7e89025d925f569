"""Who may do what: the ledgers take new facts from the services that write them, and changes from nobody."""

from collections.abc import AsyncIterator
from typing import get_args

import asyncpg
import pytest

from libs.common.postgres.pool import Pool, Service, open_pool

SERVICES: tuple[Service, ...] = get_args(Service)
WRITERS = {"hookledger.fact": {"ingress", "dispatcher", "registry"}, "hookledger.registry_fact": {"registry"}}
READERS = {
    "hookledger.fact": {"dispatcher", "registry"},
    "hookledger.registry_fact": {"dispatcher", "registry"},  # the dispatcher tells of endpoints' changes
}
CHANGES = {
    "UPDATE": "UPDATE {} SET kind = 'Other'",
    "DELETE": "DELETE FROM {}",
    "TRUNCATE": "TRUNCATE {}",
}


@pytest.fixture(scope="module")
async def owner(database: str) -> AsyncIterator[Pool]:
    """Connections of the user who migrated; there is a fact in each ledger."""
    async with asyncpg.create_pool(database, min_size=1, max_size=2) as pool:
        await pool.execute("""
            INSERT INTO hookledger.fact (stream, version, epoch, app, kind, schema, at, data)
            SELECT rpad(lpad(to_hex(floor(extract(epoch FROM now()) * 1000)::bigint), 12, '0'), 32, '0')::uuid, 1, 1,
                gen_random_uuid(), 'MessageAccepted', 1, now(), '{}';
            INSERT INTO hookledger.registry_fact
                (stream, version, epoch, org, kind, schema, at, actor, registry_version, data)
            SELECT gen_random_uuid(), 1, 1, gen_random_uuid(), 'OrganisationCreated', 1, now(), 'test', 1, '{}';
        """)
        yield pool


@pytest.mark.parametrize("service", SERVICES)
async def test_a_pool_has_taken_its_services_role_and_bounds_its_waits(database: str, service: Service) -> None:
    async with await open_pool(database, service, size=2) as pool, pool.acquire() as connection:
        assert await connection.fetchval("SELECT current_user") == f"hookledger_{service}"
        settings = {
            name: await connection.fetchval("SELECT current_setting($1)", name)
            for name in ("search_path", "timezone", "statement_timeout", "idle_in_transaction_session_timeout")
        }
    assert settings == {
        "search_path": "hookledger, projection_1, pg_catalog",
        "timezone": "UTC",
        "statement_timeout": "25s",
        "idle_in_transaction_session_timeout": "30s",
    }


@pytest.mark.parametrize("ledger", WRITERS)
@pytest.mark.parametrize("service", SERVICES)
async def test_each_service_has_on_a_ledger_what_it_needs_and_no_more(
    owner: Pool, ledger: str, service: Service
) -> None:
    granted = {
        privilege
        for privilege in ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
        if await owner.fetchval("SELECT has_table_privilege($1, $2, $3)", f"hookledger_{service}", ledger, privilege)
    }
    assert granted == {
        *({"SELECT"} if service in READERS[ledger] else ()),
        *({"INSERT"} if service in WRITERS[ledger] else ()),
    }


@pytest.mark.parametrize("verb", CHANGES)
@pytest.mark.parametrize("service", SERVICES)
async def test_no_service_may_change_a_ledger_or_a_partition_of_it(
    database: str, owner: Pool, service: Service, verb: str
) -> None:
    async with await open_pool(database, service, size=1) as pool:
        for table in await _ledger_tables(owner):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await pool.execute(CHANGES[verb].format(table))


@pytest.mark.parametrize("verb", CHANGES)
async def test_not_even_the_owner_may(owner: Pool, verb: str) -> None:
    for table in await _ledger_tables(owner):
        if verb != "TRUNCATE" and not await owner.fetchval(f"SELECT count(*) FROM {table}"):  # noqa: S608  its own answer
            continue  # the trigger is on rows, and an empty partition has none
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
            await owner.execute(CHANGES[verb].format(table))


async def test_a_partition_made_later_refuses_changes_as_the_first_ones_do(owner: Pool) -> None:
    before = set(await _ledger_tables(owner))
    await owner.execute("SELECT hookledger.create_partitions(5)")
    [new] = set(await _ledger_tables(owner)) - before
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
        await owner.execute(f"TRUNCATE {new}")
    triggers = await owner.fetch("SELECT tgname FROM pg_trigger WHERE tgrelid = $1::regclass", new)
    assert {row["tgname"] for row in triggers} == {"append_only", "append_only_truncate"}


@pytest.mark.parametrize("service", SERVICES)
async def test_no_service_may_make_or_drop_anything(database: str, service: Service) -> None:
    async with await open_pool(database, service, size=1) as pool:
        for statement in (
            "CREATE TABLE hookledger.mine (x int)",
            "DROP TABLE hookledger.fact",
            "ALTER TABLE hookledger.fact DISABLE TRIGGER ALL",
            "DROP TRIGGER append_only ON hookledger.fact",
            "UPDATE hookledger.migration SET checksum = ''",
            "UPDATE hookledger.ledger_epoch SET epoch = 9",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await pool.execute(statement)


async def _ledger_tables(owner: Pool) -> list[str]:
    """Both ledgers and each of their partitions."""
    rows = await owner.fetch("""
        SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'hookledger.fact'::regclass
    """)
    return ["hookledger.fact", "hookledger.registry_fact", *(row["name"] for row in rows)]
