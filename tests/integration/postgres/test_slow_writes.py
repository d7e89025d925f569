"""Writes that are late on purpose, by which tests that race with a commit are found."""

import time

import asyncpg

from deploy.stack.servers import Servers
from tests.support import databases

LATE_S = 0.2


async def test_a_write_is_late_by_what_was_asked(servers: Servers) -> None:
    slow = {"UPDATE hookledger.registry_version": LATE_S, "DELETE hookledger.registry_version": LATE_S}
    template = await databases.create_template(servers.database_url, slow)
    try:
        async with databases.cloned(servers.database_url, template) as url:
            connection = await asyncpg.connect(url)
            began = time.monotonic()
            await connection.execute("UPDATE hookledger.registry_version SET version = version")
            assert time.monotonic() - began >= LATE_S
            await databases.speed_up(url)
            assert await connection.fetchval("SELECT count(*) FROM pg_trigger WHERE tgname ~ '^late_'") == 0
            await connection.close()
    finally:
        await databases.drop(servers.database_url, template)
