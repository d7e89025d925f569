"""What Postgres has committed outlives a crash, by its settings and by ours; where they do not see to that, we say so."""

from typing import get_args

import asyncpg
import pytest
from structlog.testing import capture_logs

from deploy.stack.servers import Servers
from libs.common.postgres.pool import DURABLE_SETTINGS, Service, open_pool
from tests.support import databases

SERVICES: tuple[Service, ...] = get_args(Service)


@pytest.mark.parametrize("service", SERVICES)
async def test_a_commit_of_a_service_is_on_disk_before_it_is_answered(database: str, service: Service) -> None:
    with capture_logs() as logs:
        async with await open_pool(database, service, size=1) as pool:
            settings = {name: await pool.fetchval("SELECT current_setting($1)", name) for name in DURABLE_SETTINGS}
    assert settings == {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}
    assert not logs


MAY_BE_EMPTIED = ["hookledger.allowance", "hookledger.breaker"]
"""Tokens that limits are kept by, which fill again in a second; and which endpoints are down, as is soon found again."""


async def test_a_crash_empties_no_table_but_those_of_which_nothing_is_lost(database: str) -> None:
    connection = await asyncpg.connect(database)
    rows = await connection.fetch("""
        SELECT n.nspname || '.' || c.relname AS name, c.relpersistence AS persistence
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE (n.nspname = 'hookledger' OR n.nspname LIKE 'projection%') AND c.relkind IN ('r', 'p')
    """)
    await connection.close()
    assert {"hookledger.fact", "hookledger.outbox", "hookledger.message"} <= {row["name"] for row in rows}
    assert sorted(row["name"] for row in rows if row["persistence"] != b"p") == MAY_BE_EMPTIED


async def test_a_service_that_starts_on_a_server_that_may_lose_commits_says_so(
    servers: Servers, database_template: str
) -> None:
    async with databases.cloned(servers.database_url, database_template) as url:
        connection = await asyncpg.connect(url)
        name = await connection.fetchval("SELECT current_database()")
        await connection.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
        await connection.close()
        with capture_logs() as logs:
            await (await open_pool(url, "ingress", size=1)).close()
    [warning] = logs
    assert (warning["event"], warning["log_level"]) == ("durability.off", "warning")
    assert warning["settings"] == ["synchronous_commit"]
