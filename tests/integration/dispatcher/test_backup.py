"""Backup and restore by the commands of docs/operations.md: stop, restore, rebuild, verify, continue; nothing is lost."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from deploy.stack.isolation import create_database, drop_database
from deploy.stack.places import CHECKOUT
from deploy.stack.postgres import binaries
from deploy.stack.servers import Servers
from libs.common.domain.ids import delivery_id
from libs.common.postgres.pool import DatabaseUnavailableError, open_pool
from services.dispatcher import reclaim
from tests.integration.dispatcher.parts import dispatching
from tests.integration.dispatcher.world import World, until, world_in
from tests.support.receiver import Receiver, Reply
from tests.support.roles import OWNER, Prepared, prepare

pytestmark = pytest.mark.skipif(binaries() is None, reason="there is no pg_dump of the server's version")
HOUR = timedelta(hours=1)
PAGE = (CHECKOUT / "docs" / "operations.md").read_text()
[SECTION] = re.findall(r"^## Backup and restore\n(.*?)^## ", PAGE, flags=re.MULTILINE | re.DOTALL)
[BACKUP, RESTORE] = re.findall(r"^```sh\n(.*?)^```", SECTION, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
async def lived(servers: Servers) -> AsyncIterator[Prepared]:
    """A database with the roles of deploy/roles.sql, migrated."""
    yield await prepare(create_database(servers.database_url, "hookledger_test_lived"))
    drop_database(servers.database_url, "hookledger_test_lived")


@pytest.fixture
def restored(servers: Servers, lived: Prepared) -> Iterator[Prepared]:
    """An empty one on the same server: the roles are the server's, and so are their passwords."""
    admin = create_database(servers.database_url, "hookledger_test_restored")
    yield Prepared(
        admin=admin,
        urls={name: urlunsplit(urlsplit(url)._replace(path=urlsplit(admin).path)) for name, url in lived.urls.items()},
    )
    drop_database(servers.database_url, "hookledger_test_restored")


async def run(script: str, database: Prepared, folder: Path) -> str:
    """Run commands of the page in `folder`; what they print."""
    found = binaries()
    assert found
    programs = [str(found), str(Path(sys.executable).parent)]
    if not (folder / "deploy").exists():
        (folder / "deploy").symlink_to(CHECKOUT / "deploy")
    done = await asyncio.to_thread(
        subprocess.run,
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={
            "PATH": os.pathsep.join([*programs, "/usr/bin", "/bin"]),
            "OWNER_URL": database.urls[OWNER],
            "ADMIN_URL": database.admin,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def test_a_dump_that_was_taken_under_load_is_restored_and_everything_goes_on(
    lived: Prepared, restored: Prepared, receiver: Receiver, tmp_path: Path
) -> None:
    async with world_in(lived.urls[OWNER]) as world:
        app = await world.application()
        steady = await world.endpoint(app, receiver.script("/steady"))
        hanging = await world.endpoint(app, receiver.script("/hanging", Reply(hang=True)))
        retried = await world.waiting(app, steady, 3, due_in=-HOUR)
        async with dispatching(world) as parts:
            [sent] = await world.accept(app)
            await parts.fan_outs.take([sent], path="envelope")
            await world.until_status(delivery_id(sent.id, steady), "succeeded")
            await receiver.wait_for(1, "/hanging")
            left = await world.accept(app, overdue=HOUR)
            facts = await world.owner.fetchval("SELECT count(*) FROM hookledger.fact")
            await run(BACKUP, lived, tmp_path)
            await parts.attempts.drop()
    said = await run(RESTORE, restored, tmp_path)
    assert "epoch is 2" in said
    assert "verified" in said.splitlines()[-1]
    async with world_in(restored.urls[OWNER]) as after:
        after.org, after.keys = world.org, world.keys
        after.apps.append(app)
        receiver.script("/hanging")
        assert await after.owner.fetchval("SELECT count(*) FROM hookledger.fact") == facts
        async with dispatching(after) as parts:

            async def reclaimed() -> bool:
                return await reclaim.reclaim_one(parts.pool, after.epoch, parts.snapshot.holds)

            await until(reclaimed, "the lease passes that the dispatcher had when it was dumped")
            parts.start_claiming()
            parts.start_sweeping()
            counted = await after.until_over(app, 3 + 2 + 2)
        assert counted == {"succeeded": 7}
        assert (await after.facts(delivery_id(sent.id, hanging)))[2] == "AttemptOutcomeUnknown"
        assert {await _status(after, delivery) for delivery in retried} == {"succeeded"}
        for endpoint in (steady, hanging):
            assert await _status(after, delivery_id(left[0].id, endpoint)) == "succeeded"
        await after.assert_verified()


async def _status(world: World, delivery: object) -> str:
    status: str = await world.owner.fetchval(
        "SELECT status FROM projection_1.delivery_state WHERE delivery = $1", delivery
    )
    return status


async def test_a_restored_database_is_refused_until_its_epoch_is_opened(
    lived: Prepared, restored: Prepared, tmp_path: Path
) -> None:
    until_migrate = RESTORE.partition("hookledger migrate")[0]
    await run(BACKUP, lived, tmp_path)
    await run(until_migrate, restored, tmp_path)
    with pytest.raises(DatabaseUnavailableError, match="run `hookledger migrate` to open an epoch"):
        await open_pool(restored.urls["hookledger_ingress"], "ingress", size=1)
    connection = await asyncpg.connect(restored.urls["hookledger_ingress"])
    assert await connection.fetchval("SELECT has_table_privilege('hookledger.message', 'INSERT')")
    assert not await connection.fetchval("SELECT has_table_privilege('hookledger.message', 'DELETE')")
    await connection.close()
