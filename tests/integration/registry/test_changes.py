"""Every change is a fact, a row of its fold, a new version and an announcement."""

import asyncio

import aio_pika
import asyncpg
import msgspec
import pytest

from deploy.stack.installation import master_key
from libs.common.contracts.registry import EndpointDocument, Kind
from libs.common.domain import ids
from libs.common.domain.ids import Prefix
from libs.common.domain.signatures import standard
from libs.common.postgres.pool import open_pool
from libs.common.postgres.snapshot import RegistrySnapshot
from libs.common.postgres.verify import verify_database
from libs.common.rabbitmq.topology import Names
from libs.common.runtime.clock import now
from libs.common.runtime.sealing import MasterKeys
from tests.conftest import Amqp
from tests.integration.registry.conftest import Registry
from tests.support.client import Client


async def test_each_change_appends_one_fact_and_raises_the_version_by_one(
    api: Client, sql: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    before = await sql.fetchval("SELECT version FROM hookledger.registry_version")
    app = await api.create_application("history", uid="history")
    await api.patch("/app/history", {"name": "renamed"})
    endpoint = (await api.post(f"/app/{app}/endpoint", {"url": "http://localhost"}))["id"]
    await api.request("POST", f"/api/v1/app/{app}/endpoint/{endpoint}/secret/rotate", json={})
    await api.delete(f"/app/{app}/endpoint/{endpoint}")
    await api.delete(f"/app/{app}")

    rows = await sql.fetch(
        "SELECT * FROM hookledger.registry_fact WHERE registry_version > $1 ORDER BY position", before
    )
    assert [(row["kind"], row["version"], row["registry_version"] - before) for row in rows] == [
        ("ApplicationCreated", 1, 1),
        ("ApplicationUpdated", 2, 2),
        ("EndpointCreated", 1, 3),
        ("EndpointSecretRotated", 2, 4),
        ("EndpointDeleted", 3, 5),
        ("ApplicationDeleted", 3, 6),
    ]
    assert all(row["actor"].startswith("key:") for row in rows)
    assert {row["app"] for row in rows} == {ids.decode(Prefix.APPLICATION, app)}
    assert msgspec.json.decode(rows[1]["data"]) == {"uid": "history", "document": {"name": "renamed"}}


async def test_what_changes_nothing_leaves_no_trace(api: Client, sql: "asyncpg.Connection[asyncpg.Record]") -> None:
    await api.create_application("still", uid="still")
    before = await sql.fetchval("SELECT version FROM hookledger.registry_version")
    await api.post("/app?get_if_exists=true", {"name": "still", "uid": "still"})
    assert (await api.request("POST", "/api/v1/app", json={"name": "still", "uid": "still"})).status == 409
    assert (await api.request("PATCH", "/api/v1/app/unknown", json={})).status == 404
    assert await sql.fetchval("SELECT version FROM hookledger.registry_version") == before


async def test_facts_name_secrets_by_id_and_fingerprint_only(
    api: Client, sql: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    app = await api.create_application()
    given = standard.format_secret(b"a secret of twenty-four!")
    await api.post(f"/app/{app}/endpoint", {"url": "http://localhost", "secret": given})
    await api.create_source(app, "github", "it's a secret to everybody")
    facts = await sql.fetch("SELECT data FROM hookledger.registry_fact")
    sealed = await sql.fetch("SELECT sealed FROM hookledger.secret")
    for written in [row["data"] for row in facts] + [row["sealed"] for row in sealed]:
        assert given.removeprefix("whsec_").encode() not in written
        assert b"a secret of twenty-four!" not in written
        assert b"it's a secret" not in written


async def test_a_snapshot_signs_with_the_secret_that_was_shown(registry: Registry, api: Client, database: str) -> None:
    app = await api.create_application()
    made = await api.post(f"/app/{app}/endpoint", {"url": "http://localhost", "retrySchedule": [0.2, 1]})
    rotated = standard.format_secret(bytes(32))
    await api.post(f"/app/{app}/endpoint/{made['id']}/secret/rotate", {"key": rotated})
    source = await api.create_source(app, "stripe", "whsec_of_stripe")
    pool = await open_pool(database, "dispatcher", size=1)
    try:
        snapshot = RegistrySnapshot(pool, MasterKeys.parse(master_key(registry.installation.folder)))
        await snapshot.catch_up()
    finally:
        await pool.close()
    endpoint = snapshot.endpoint(ids.decode(Prefix.ENDPOINT, made["id"]))
    assert endpoint is not None
    assert [key.secret for key in endpoint.keys] == [rotated, made["secret"]]
    assert [key.expires_at is None for key in endpoint.keys] == [True, False]
    assert [wait.total_seconds() for wait in endpoint.retry.schedule] == [0.2, 1]
    found = snapshot.get(Kind.SOURCE, ids.decode(Prefix.SOURCE, source.id))
    assert found is not None
    assert snapshot.secrets(found, now()) == ["whsec_of_stripe"]


async def test_a_replaced_source_secret_is_the_only_one_and_a_deleted_owner_leaves_none(
    api: Client, sql: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    app = await api.create_application()
    source = await api.post(f"/app/{app}/source", {"name": "s", "provider": "standard-webhooks", "uid": "s"})
    assert standard.parse_secret(source["secret"])
    assert source["url"] == f"/in/{source['id']}"
    owner = ids.decode(Prefix.SOURCE, source["id"])
    changed = await api.patch(f"/app/{app}/source/s", {"secret": standard.format_secret(bytes(24)), "uid": None})
    assert ("secret" in changed, changed["uid"]) == (False, None)
    assert await sql.fetchval("SELECT count(*) FROM hookledger.secret WHERE owner = $1", owner) == 1
    await api.delete(f"/app/{app}/source/{source['id']}")
    assert await sql.fetchval("SELECT count(*) FROM hookledger.secret WHERE owner = $1", owner) == 0


async def test_a_source_keeps_its_provider_and_its_secret_when_it_is_replaced(api: Client) -> None:
    app = await api.create_application()
    source = (await api.create_source(app, "github", "one")).id
    path = f"/api/v1/app/{app}/source/{source}"
    renamed = await api.request("PUT", path, json={"name": "renamed", "provider": "github"})
    assert (renamed.status, renamed.json["name"]) == (200, "renamed")
    refused = await api.request("PUT", path, json={"name": "renamed", "provider": "stripe", "secret": "x"})
    assert refused.status == 422


async def test_a_hundred_changes_at_once_have_a_hundred_versions(
    api: Client, sql: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    before = await sql.fetchval("SELECT version FROM hookledger.registry_version")
    await asyncio.gather(*(api.create_application(f"n{number}") for number in range(100)))
    versions = await sql.fetch(
        "SELECT registry_version FROM hookledger.registry_fact WHERE registry_version > $1 ORDER BY position", before
    )
    assert [row["registry_version"] for row in versions] == list(range(before + 1, before + 101))


async def test_each_change_is_announced(registry: Registry, amqp: Amqp, api: Client) -> None:
    connection = await aio_pika.connect(amqp.url)
    async with connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(Names(amqp.prefix).registry)
        await api.create_application()
        async with asyncio.timeout(10), queue.iterator() as announcements:
            async for message in announcements:
                assert msgspec.json.decode(message.body)["version"] > 0
                break


async def test_the_registry_is_the_fold_of_its_facts(database: str) -> None:
    pool = await open_pool(database, "registry", size=1)
    try:
        findings = await verify_database(pool, pytest.fail)
    finally:
        await pool.close()
    assert findings.registry_objects > 100


def test_a_document_says_what_is_not_the_default() -> None:
    assert msgspec.json.encode(EndpointDocument(url="https://example.com/")) == b'{"url":"https://example.com/"}'
