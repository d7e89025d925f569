"""Least power: each service's role may do with the database what the service's statements do, and no more."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from datetime import timedelta
from urllib.parse import urlsplit

import asyncpg
import pytest

from deploy.stack.isolation import create_database, drop_database
from deploy.stack.places import CHECKOUT
from deploy.stack.postgres import binaries
from deploy.stack.servers import Servers
from libs.common.postgres.retaining import retain
from tests.support.grants import missing, unused
from tests.support.roles import NAMES, OWNER, Prepared, prepare
from tests.support.statements import ROLES


@pytest.fixture(scope="module")
async def prepared(servers: Servers) -> AsyncIterator[Prepared]:
    """A database whose roles deploy/roles.sql made, migrated by their owner."""
    yield await prepare(create_database(servers.database_url, "hookledger_test_roles"))
    drop_database(servers.database_url, "hookledger_test_roles")


@pytest.fixture
async def admin(prepared: Prepared) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A connection of the server's administrator."""
    connection = await asyncpg.connect(prepared.admin)
    if connection.get_server_version().major < 16:
        pytest.skip("Postgres 16 and newer explain statements with placeholders")
    yield connection
    await connection.close()


@pytest.mark.parametrize("role", ROLES)
async def test_no_role_lacks_a_grant(admin: "asyncpg.Connection[asyncpg.Record]", role: str) -> None:
    lines = await missing(admin, role)
    assert not lines, "add to the migration of this change:\n" + "\n".join(lines)


@pytest.mark.parametrize("role", ROLES)
async def test_no_role_has_a_grant_that_no_statement_uses(
    admin: "asyncpg.Connection[asyncpg.Record]", role: str
) -> None:
    lines = await unused(admin, role)
    assert not lines, "add to the migration of this change:\n" + "\n".join(lines)


async def test_a_new_query_without_its_grant_is_told_with_the_line_that_it_needs(
    admin: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    trying = admin.transaction()
    await trying.start()
    await admin.execute("REVOKE SELECT, UPDATE ON hookledger.queue FROM hookledger_dispatcher")
    await admin.execute("REVOKE USAGE ON SEQUENCE hookledger.fact_position FROM hookledger_ingress")
    dispatcher = [line.split("  -- ")[0] for line in await missing(admin, "hookledger_dispatcher")]
    ingress = [line.split("  -- ")[0] for line in await missing(admin, "hookledger_ingress")]
    await trying.rollback()
    assert set(dispatcher) == {
        "GRANT SELECT ON hookledger.queue TO hookledger_dispatcher;",
        "GRANT UPDATE ON hookledger.queue TO hookledger_dispatcher;",
    }
    assert ingress == ["GRANT USAGE ON SEQUENCE hookledger.fact_position TO hookledger_ingress;"]


async def test_a_grant_too_many_is_told_with_the_line_that_takes_it_away(
    admin: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    trying = admin.transaction()
    await trying.start()
    await admin.execute("GRANT DELETE ON hookledger.message TO hookledger_ingress")
    lines = await unused(admin, "hookledger_ingress")
    await trying.rollback()
    assert lines == ["REVOKE DELETE ON TABLE hookledger.message FROM hookledger_ingress;"]


async def test_everybody_else_may_read_which_migrations_there_are_and_nothing_more(
    admin: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    rows = await admin.fetch("""
        SELECT c.relname AS name, a.privilege_type AS privilege FROM pg_class c, aclexplode(c.relacl) a
        WHERE a.grantee = 0 AND c.relnamespace IN ('hookledger'::regnamespace, 'projection_1'::regnamespace)
    """)
    assert [tuple(row) for row in rows] == [("migration", "SELECT")]


async def test_the_owner_has_made_everything_and_has_no_power_beyond_its_database(
    admin: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    owners = await admin.fetch("""
        SELECT DISTINCT relowner::regrole::text AS name FROM pg_class
        WHERE relnamespace IN ('hookledger'::regnamespace, 'projection_1'::regnamespace)
    """)
    assert [row["name"] for row in owners] == [OWNER]
    powers = await admin.fetch(
        """
        SELECT rolname, rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls AS powerful
        FROM pg_roles WHERE rolname = ANY($1)
        """,
        NAMES,
    )
    assert {row["rolname"]: row["powerful"] for row in powers} == dict.fromkeys(NAMES, False)


@pytest.mark.parametrize("role", ROLES)
async def test_a_service_cannot_take_another_role_nor_make_anything(prepared: Prepared, role: str) -> None:
    connection = await asyncpg.connect(prepared.urls[role])
    others = [f"SET ROLE {name}" for name in NAMES if name != role]
    for statement in (*others, "CREATE SCHEMA mine", "CREATE TABLE public.mine (x int)"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    await connection.close()


async def test_the_owner_may_drop_old_weeks(prepared: Prepared) -> None:
    done = await retain(prepared.urls[OWNER], keep=timedelta(0), say=lambda _: None)
    assert (len(done.weeks), done.kept) == (1, None)


async def test_roles_sql_may_run_again(prepared: Prepared) -> None:
    again = await prepare(prepared.admin)
    assert again.urls.keys() == prepared.urls.keys()


async def test_passwords_sql_gives_each_role_its_own_from_the_environment(prepared: Prepared) -> None:
    found = binaries()
    if found is None:
        pytest.skip("there is no psql of the server's version")
    given = {name: f"it's {name}" for name in NAMES}
    await asyncio.to_thread(
        subprocess.run,
        [str(found / "psql"), "--set=ON_ERROR_STOP=1", "--file=deploy/postgres/passwords.sql", prepared.admin],
        cwd=CHECKOUT,
        env={f"{name.upper()}_PASSWORD": password for name, password in given.items()},
        check=True,
        capture_output=True,
    )
    server = urlsplit(prepared.admin)
    for name, password in given.items():
        connection = await asyncpg.connect(
            host=server.hostname, port=server.port, user=name, password=password, database=server.path.strip("/")
        )
        await connection.close()
