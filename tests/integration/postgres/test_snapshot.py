"""The registry's snapshot: whatever was committed at a version is in every snapshot of that version or a later one."""

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from structlog.testing import capture_logs

from libs.common.contracts.registry import (
    ApiKeyDocument,
    ApplicationDocument,
    EndpointDocument,
    KeyReference,
    Kind,
    OrganisationDocument,
    RegistryObject,
    SourceDocument,
)
from libs.common.postgres.pool import Pool, open_pool
from libs.common.postgres.registry import changing
from libs.common.postgres.snapshot import RegistrySnapshot, object_of
from libs.common.runtime.clock import new_id
from libs.common.runtime.sealing import MasterKeys

KEYS = MasterKeys([os.urandom(32)])
OTHER_KEYS = MasterKeys([os.urandom(32)])


@pytest.fixture(scope="module")
async def registry(database: str) -> AsyncIterator[Pool]:
    """Connections of the registry."""
    async with await open_pool(database, "registry", size=8) as pool:
        yield pool


@pytest.fixture
async def snapshot(database: str) -> AsyncIterator[RegistrySnapshot]:
    """A dispatcher's snapshot, not read yet."""
    async with await open_pool(database, "dispatcher", size=2) as pool:
        yield RegistrySnapshot(pool, KEYS)


async def test_what_is_created_updated_and_deleted_is_seen_after_catching_up(
    registry: Pool, snapshot: RegistrySnapshot
) -> None:
    org, app = await _tenant(registry)
    endpoint = await _endpoint(registry, org, app)
    await snapshot.catch_up()
    found = snapshot.endpoint(endpoint.id)
    assert found is not None
    assert (found.url, found.enabled, found.version) == ("https://a.example/", True, 1)
    assert list(snapshot.endpoints(app)) == [endpoint.id]

    updated = await _change(registry, endpoint, EndpointDocument(url="https://b.example/", disabled=True))
    assert snapshot.endpoint(endpoint.id) == found  # it has not looked
    await snapshot.catch_up()
    found = snapshot.endpoint(endpoint.id)
    assert found is not None
    assert (found.url, found.enabled, found.version) == ("https://b.example/", False, 2)

    await _delete(registry, updated)
    await snapshot.catch_up()
    assert snapshot.endpoint(endpoint.id) is None
    assert snapshot.endpoints(app) == {}
    assert snapshot.get(Kind.ENDPOINT, endpoint.id) is None


async def test_with_its_application_an_endpoint_goes(registry: Pool, snapshot: RegistrySnapshot) -> None:
    org, app = await _tenant(registry)
    endpoint = await _endpoint(registry, org, app)
    await snapshot.catch_up()
    application = snapshot.get(Kind.APPLICATION, app)
    assert application is not None
    await _delete(registry, application)
    await snapshot.catch_up()
    assert snapshot.endpoint(endpoint.id) is None
    assert snapshot.endpoints(app) == {}


async def test_an_organisations_settings_reach_its_endpoints(registry: Pool, snapshot: RegistrySnapshot) -> None:
    org, app = await _tenant(registry)
    plain = await _endpoint(registry, org, app)
    own = await _endpoint(registry, org, app, retry_schedule=(7.0,), retry_client_errors=False)
    await snapshot.catch_up()
    organisation = snapshot.get(Kind.ORGANISATION, org)
    assert organisation is not None
    settings = OrganisationDocument(name="o", retry_schedule=(1.0, 2.0), retry_client_errors=True, compat_headers=True)
    await _change(registry, organisation, settings)
    await snapshot.catch_up()
    schedules = {
        endpoint.id: [wait.total_seconds() for wait in endpoint.retry.schedule]
        for endpoint in snapshot.endpoints(app).values()
    }
    assert schedules == {plain.id: [1.0, 2.0], own.id: [7.0]}
    retried = {endpoint.id: endpoint.retry.retry_client_errors for endpoint in snapshot.endpoints(app).values()}
    assert retried == {plain.id: True, own.id: False}
    assert all(endpoint.compat_headers for endpoint in snapshot.endpoints(app).values())


async def test_a_snapshot_from_nothing_and_one_that_caught_up_are_the_same(
    database: str, registry: Pool, snapshot: RegistrySnapshot
) -> None:
    org, app = await _tenant(registry)
    endpoints = [await _endpoint(registry, org, app) for _ in range(3)]
    await snapshot.catch_up()
    await _change(registry, endpoints[0], EndpointDocument(url="https://c.example/"))
    await _delete(registry, endpoints[1])
    await snapshot.catch_up()
    async with await open_pool(database, "dispatcher", size=1) as pool:
        fresh = RegistrySnapshot(pool, KEYS)
        await fresh.catch_up()
    assert fresh.version == snapshot.version
    assert fresh.endpoints(app) == snapshot.endpoints(app)


async def test_names_keys_and_secrets_are_found(registry: Pool, snapshot: RegistrySnapshot) -> None:
    org, app = await _tenant(registry, uid="customer-1", user="producer-1")
    source, key, old = new_id(), new_id(), new_id()
    async with registry.acquire() as connection, changing(connection, "operator") as changes:
        await _seal(connection, key, owner=source, org=org, secret=b"whsec_stripe")
        await _seal(connection, old, owner=source, org=org, secret=b"whsec_old")
        until = datetime(2026, 8, 21, 10, tzinfo=UTC)
        keys = (KeyReference(id=key, fingerprint="x"), KeyReference(id=old, fingerprint="y", expires_at=until))
        document = SourceDocument(name="s", provider="stripe", keys=keys)
        await changes.create(Kind.SOURCE, source, document, org=org, app=app)
        api_key = await changes.create(Kind.API_KEY, new_id(), ApiKeyDocument(hash=f"hash-{org}"), org=org)
    await snapshot.catch_up()
    named = snapshot.find(Kind.APPLICATION, org, "customer-1")
    assert named is not None
    assert named.id == app
    publisher = snapshot.organisation_of("producer-1")
    assert publisher is not None
    assert publisher.id == org
    assert snapshot.api_key(f"hash-{org}") == api_key
    found = snapshot.get(Kind.SOURCE, source)
    assert found is not None
    assert snapshot.secrets(found, until - timedelta(microseconds=1)) == ["whsec_stripe", "whsec_old"]
    assert snapshot.secrets(found, until) == ["whsec_stripe"]
    assert snapshot.get(Kind.ENDPOINT, source) is None  # another kind


async def test_a_secret_that_does_not_open_is_logged_and_does_not_keep_the_others_away(
    registry: Pool, snapshot: RegistrySnapshot
) -> None:
    org, app = await _tenant(registry)
    closed, open_ = new_id(), new_id()
    for endpoint, keys in ((closed, OTHER_KEYS), (open_, KEYS)):
        key = new_id()
        async with registry.acquire() as connection, changing(connection, "operator") as changes:
            await _seal(connection, key, owner=endpoint, org=org, secret=b"whsec_" + b"A" * 32, keys=keys)
            document = EndpointDocument(url="https://a.example/", keys=(KeyReference(id=key, fingerprint="x"),))
            await changes.create(Kind.ENDPOINT, endpoint, document, org=org, app=app)
    with capture_logs() as logs:
        await snapshot.catch_up()
    signing = {endpoint.id: len(endpoint.keys) for endpoint in snapshot.endpoints(app).values()}
    assert signing == {closed: 0, open_: 1}
    errors = [entry for entry in logs if entry["log_level"] == "error"]
    assert [(entry["event"], entry["owner"]) for entry in errors] == [("snapshot.secret_sealed", str(closed))]
    assert "whsec_" not in str(logs)


async def test_of_400_concurrent_changes_none_is_missed_by_a_snapshot_that_knows_its_version(
    registry: Pool, snapshot: RegistrySnapshot
) -> None:
    """The fence: an endpoint that was acknowledged at version N is in every snapshot that says it is at N or later."""
    org, app = await _tenant(registry)
    acknowledged: list[RegistryObject] = []
    missed: list[tuple[int, int]] = []
    done = asyncio.Event()

    async def change(count: int) -> None:
        for _ in range(count):
            created = await _endpoint(registry, org, app)
            acknowledged.append(created)

    async def watch() -> None:
        while not done.is_set():
            expected = list(acknowledged)
            await snapshot.catch_up(max((item.registry_version for item in expected), default=0))
            missed.extend(
                (item.registry_version, snapshot.version)
                for item in acknowledged
                if item.registry_version <= snapshot.version and snapshot.endpoint(item.id) is None
            )
            await asyncio.sleep(0)  # a version that is known costs no wait

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(change(50) for _ in range(8)))
    done.set()
    await watching
    await snapshot.catch_up()
    assert missed == []
    assert len(acknowledged) == 400
    assert len(snapshot.endpoints(app)) == 400
    assert len({item.registry_version for item in acknowledged}) == 400


async def test_a_version_that_is_known_is_not_read_again_and_many_who_wait_for_one_read_once(
    registry: Pool, snapshot: RegistrySnapshot
) -> None:
    await _tenant(registry)
    version = await registry.fetchval("SELECT version FROM hookledger.registry_version")
    with capture_logs() as logs:
        await asyncio.gather(*(snapshot.catch_up(version) for _ in range(20)))
        await snapshot.catch_up(version - 1)
    assert [entry["event"] for entry in logs].count("snapshot.read") == 1


async def test_two_live_objects_of_a_kind_never_share_a_name(registry: Pool) -> None:
    org, app = await _tenant(registry, uid="twice")
    with pytest.raises(asyncpg.UniqueViolationError):
        async with registry.acquire() as connection, changing(connection, "operator") as changes:
            await changes.create(Kind.APPLICATION, new_id(), ApplicationDocument(name="b"), org=org, uid="twice")
    async with registry.acquire() as connection, changing(connection, "operator") as changes:
        first = await connection.fetchrow("SELECT * FROM hookledger.registry_object WHERE id = $1", app)
        assert first is not None
        await changes.delete(object_of(first))
        await changes.create(Kind.APPLICATION, new_id(), ApplicationDocument(name="b"), org=org, uid="twice")


async def test_two_objects_that_swap_their_names_between_two_looks_are_found_by_the_new_ones(
    registry: Pool, snapshot: RegistrySnapshot
) -> None:
    org, app = await _tenant(registry, uid="blue")
    async with registry.acquire() as connection, changing(connection, "operator") as changes:
        green = await changes.create(Kind.APPLICATION, new_id(), ApplicationDocument(name="b"), org=org, uid="green")
    await snapshot.catch_up()
    blue = snapshot.get(Kind.APPLICATION, app)
    assert blue is not None
    blue = await _rename(registry, blue, "aside")
    await _rename(registry, green, "blue")
    await _rename(registry, blue, "green")
    await snapshot.catch_up()
    assert _ids(snapshot, org, "blue", "green", "aside") == [green.id, app, None]


async def _tenant(registry: Pool, *, uid: str | None = None, user: str | None = None) -> tuple[UUID, UUID]:
    """A new organisation with one application."""
    org, app = new_id(), new_id()
    async with registry.acquire() as connection, changing(connection, "operator") as changes:
        await changes.create(Kind.ORGANISATION, org, OrganisationDocument(name="o"), org=org, uid=user)
        await changes.create(Kind.APPLICATION, app, ApplicationDocument(name="a"), org=org, uid=uid)
    return org, app


async def _endpoint(registry: Pool, org: UUID, app: UUID, **fields: Any) -> RegistryObject:
    async with registry.acquire() as connection, changing(connection, "operator") as changes:
        document = EndpointDocument(url="https://a.example/", **fields)
        return await changes.create(Kind.ENDPOINT, new_id(), document, org=org, app=app)


async def _change(registry: Pool, old: RegistryObject, document: Any) -> RegistryObject:
    async with registry.acquire() as connection, changing(connection, "operator") as changes:
        return await changes.update(old, document, uid=old.uid)


async def _rename(registry: Pool, old: RegistryObject, uid: str) -> RegistryObject:
    async with registry.acquire() as connection, changing(connection, "operator") as changes:
        return await changes.update(old, old.document, uid=uid)


def _ids(snapshot: RegistrySnapshot, org: UUID, *uids: str) -> list[UUID | None]:
    found = [snapshot.find(Kind.APPLICATION, org, uid) for uid in uids]
    return [None if item is None else item.id for item in found]


async def _delete(registry: Pool, old: RegistryObject) -> None:
    async with registry.acquire() as connection, changing(connection, "operator") as changes:
        await changes.delete(old)


async def _seal(connection: Any, key: UUID, *, owner: UUID, org: UUID, secret: bytes, keys: MasterKeys = KEYS) -> None:
    await connection.execute(
        "INSERT INTO hookledger.secret (id, owner, org, sealed, created_at) VALUES ($1, $2, $3, $4, now())",
        key,
        owner,
        org,
        keys.seal(secret, owner=owner, org=org),
    )
