"""The operator's command and the service's start: one line and an exit code, never a traceback."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import asyncpg
import pytest

from deploy.stack.installation import Installation, master_key
from deploy.stack.isolation import Isolation
from deploy.stack.ports import free_port
from deploy.stack.services import environment
from libs.common.contracts.credentials import KEY_PREFIX, hash_key
from tests.conftest import Amqp

NOBODY = "postgresql://nobody:x@127.0.0.1:1/x"


def run(module: str, *words: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", module, *words],
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def admin(*words: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    return await asyncio.to_thread(run, "services.admin", *words, **settings)


def refused(done: "subprocess.CompletedProcess[str]", *, because: str) -> bool:
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert because in line
    return True


async def test_an_organisation_and_its_key_are_printed_alone(database: str) -> None:
    organisation = await admin("organisation", "create", "Acme", "--amqp-user", "acme", DATABASE_URL=database)
    assert organisation.returncode == 0, organisation.stderr
    assert organisation.stdout.startswith("org_")
    assert organisation.stdout.count("\n") == 1
    key = await admin(
        "key", "create", organisation.stdout.strip(), "--scope", "read", "--scope", "publish", DATABASE_URL=database
    )
    assert key.stdout.startswith(KEY_PREFIX)
    sql = await asyncpg.connect(database)
    row = await sql.fetchrow(
        "SELECT data ->> 'scopes' AS scopes FROM hookledger.registry_object WHERE data ->> 'hash' = $1",
        hash_key(key.stdout.strip()),
    )
    facts = await sql.fetch("SELECT kind, actor, data FROM hookledger.registry_fact ORDER BY position")
    await sql.close()
    assert row is not None
    assert row["scopes"] == '["read", "publish"]'
    assert [(fact["kind"], fact["actor"]) for fact in facts] == [
        ("OrganisationCreated", "operator"),
        ("ApiKeyCreated", "operator"),
    ]
    assert all(key.stdout.strip().encode() not in fact["data"] for fact in facts)

    again = await admin("organisation", "create", "Other", "--amqp-user", "acme", DATABASE_URL=database)
    assert refused(again, because="publishes for another organisation already")


async def test_an_organisation_has_the_settings_that_its_options_name(database: str) -> None:
    options = ("--secret-reveal", "always", "--no-https-only")
    done = await admin("organisation", "create", "Lax", *options, DATABASE_URL=database)
    sql = await asyncpg.connect(database)
    data = await sql.fetchval("SELECT data FROM hookledger.registry_object WHERE data ->> 'name' = 'Lax'")
    await sql.close()
    assert done.returncode == 0, done.stderr
    assert json.loads(data) == {"name": "Lax", "secretReveal": "always", "endpointHttpsOnly": False}


async def test_verify_says_what_it_compared(database: str) -> None:
    done = await admin("verify", DATABASE_URL=database)
    assert (done.returncode, done.stdout) == (
        0,
        "ledger: verified (0 deliveries, 0 attempts, 3 registry objects, 0 lanes, 0 rows of statistics, health of 0 endpoints)\n",
    )
    sql = await asyncpg.connect(database)
    await sql.execute("UPDATE hookledger.registry_object SET version = 9 WHERE kind = 'api_key'")
    found = await admin("verify", DATABASE_URL=database)
    await sql.execute("UPDATE hookledger.registry_object SET version = 1 WHERE kind = 'api_key'")
    await sql.close()
    assert found.returncode == 1
    assert "version is 9, the ledger says 1" in found.stdout


async def test_migrating_again_does_nothing_and_the_url_may_come_from_a_file(database: str, tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text(database + "\n")
    done = await admin("migrate", DATABASE_URL_FILE=str(file))
    assert (done.returncode, done.stdout) == (0, "migrate: nothing to do\n")


@pytest.mark.parametrize(
    ("words", "settings", "because"),
    [
        (("migrate",), {}, "HOOKLEDGER_DATABASE_URL is not set"),
        (("migrate",), {"DATABASE_URL": NOBODY}, "Postgres cannot be reached"),
        (("migrate",), {"DATABASE_URL": "mysql://x"}, "HOOKLEDGER_DATABASE_URL cannot be used"),
        (("rebuild",), {"DATABASE_URL": NOBODY}, "Postgres cannot be reached"),
        (("verify",), {"DATABASE_URL": NOBODY, "TYPO": "1"}, "HOOKLEDGER_TYPO is not a setting"),
        (("organisation", "create", "x"), {"DATABASE_URL": NOBODY}, "Postgres cannot be reached"),
        (("key", "create", "nonsense"), {"DATABASE_URL": NOBODY}, "not an id that begins with org_"),
    ],
)
async def test_what_the_operator_has_to_mend_is_one_line(
    words: tuple[str, ...], settings: Mapping[str, str], because: str
) -> None:
    assert refused(await admin(*words, **settings), because=because)


async def test_an_organisation_that_is_not_there_has_no_key(database: str) -> None:
    done = await admin("key", "create", "org_0000000000000000000001", DATABASE_URL=database)
    assert refused(done, because="there is no organisation")
    nameless = await admin("organisation", "create", "", DATABASE_URL=database)
    assert refused(nameless, because="the name is 1 to 256 characters")


@pytest.mark.parametrize(
    ("changed", "because"),
    [
        ({"DATABASE_URL": NOBODY}, "Postgres cannot be reached"),
        ({"AMQP_URL": "amqp://guest:guest@127.0.0.1:1/"}, "RabbitMQ cannot be reached"),
        ({"MASTER_KEY": "short"}, "HOOKLEDGER_MASTER_KEY"),
        ({"PORT": "many"}, "HOOKLEDGER_PORT"),
        ({"DEV": "perhaps"}, "HOOKLEDGER_DEV"),
        ({"ALLOW_NETWORKS": "10.0.0.1/8"}, "HOOKLEDGER_ALLOW_NETWORKS"),
        ({"UNHEARD_OF": "1"}, "HOOKLEDGER_UNHEARD_OF"),
    ],
)
async def test_the_registry_refuses_to_start_with_one_line(
    database: str, amqp: Amqp, tmp_path: Path, changed: Mapping[str, str], because: str
) -> None:
    settings = {
        "DATABASE_URL": database,
        "AMQP_URL": amqp.url,
        "AMQP_PREFIX": amqp.prefix,
        "MASTER_KEY": master_key(tmp_path),
        "HOST": "127.0.0.1",
        "PORT": str(free_port()),
    }
    done = await asyncio.to_thread(run, "services.registry", **{**settings, **changed})
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("hookledger-registry: ")
    assert because in line


async def test_a_port_that_is_taken_is_one_line(database: str, amqp: Amqp, tmp_path: Path) -> None:
    corner = Isolation(database_url=database, amqp_url=amqp.url, amqp_prefix=amqp.prefix)
    first = Installation(folder=tmp_path, corner=corner).service("registry")
    await asyncio.to_thread(first.start)
    try:
        await asyncio.to_thread(first.wait_ready)
        settings = dict(first.settings) | {"HOST": "127.0.0.1", "PORT": str(first.port)}
        done = await asyncio.to_thread(run, "services.registry", **settings)
    finally:
        await asyncio.to_thread(first.stop)
    assert done.returncode == 2
    assert "cannot listen on" in done.stderr


def test_help_lists_the_settings() -> None:
    done = run("services.registry", "--help")
    assert done.returncode == 0
    for name in ("DATABASE_URL", "AMQP_URL", "MASTER_KEY", "PORT", "DEV", "ALLOW_NETWORKS"):
        assert f"HOOKLEDGER_{name}" in done.stdout
