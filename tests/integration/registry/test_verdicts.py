"""What follows from an endpoint's health: it is called failing, it recovers, it is disabled; and that can be read."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import msgspec
import pytest
from prometheus_client import REGISTRY

from libs.common.contracts.registry import ApplicationDocument, EndpointDocument, Kind, OrganisationDocument
from libs.common.domain import ids
from libs.common.domain.health import Limits
from libs.common.domain.ids import Prefix
from libs.common.postgres import health
from libs.common.postgres.checkpoint import Checkpoint
from libs.common.postgres.pool import Pool, open_pool
from libs.common.postgres.registry import OPERATOR, Verb, changing
from libs.common.postgres.snapshot import object_of
from libs.common.runtime.clock import new_id
from services.registry.announcing import Announcer
from services.registry.verdicts import NEWS, Verdicts
from tests.integration.registry.conftest import Registry
from tests.integration.registry.history import Place, accept, deliver
from tests.support.client import Client

Sql: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
NOTHING = Limits(failing_after=None, disabled_after=None)


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    async with await open_pool(database, "registry", size=2) as opened:
        yield opened


@pytest.fixture
async def place(pool: Pool) -> Place:
    """An application of an organisation of the test's own."""
    org, app = new_id(), new_id()
    async with pool.acquire() as connection, changing(connection, OPERATOR) as changes:
        await changes.create(Kind.ORGANISATION, org, OrganisationDocument(name="tests"), org=org)
        await changes.create(Kind.APPLICATION, app, ApplicationDocument(name="tests"), org=org)
    return Place(org=org, app=app)


async def test_an_endpoint_is_failing_then_disabled_as_its_failures_go_on(
    pool: Pool, place: Place, database: str, sql: Sql
) -> None:
    endpoint = await create(pool, place)
    await attempt(sql, place, endpoint, [500, 500], database)
    await sweep(pool, Limits(failing_after=timedelta(hours=1), disabled_after=timedelta(hours=2)))
    assert await history(sql, endpoint) == [("EndpointCreated", None)], "they are no hour apart"
    await sweep(pool, Limits(failing_after=timedelta(microseconds=1), disabled_after=None))
    await sweep(pool, Limits(failing_after=timedelta(microseconds=1), disabled_after=None))
    await sweep(pool, Limits(failing_after=None, disabled_after=timedelta(microseconds=1)))
    assert await history(sql, endpoint) == [
        *[("EndpointCreated", None), ("EndpointFailing", None), ("EndpointDisabled", "failing")],
    ]
    since = (await health.read(sql, [endpoint]))[endpoint].health.failing_since
    assert since is not None
    told = await sql.fetch("SELECT data FROM hookledger.registry_fact WHERE stream = $1 ORDER BY version", endpoint)
    assert [fail_since(row["data"]) for row in told] == [None, since, since]


async def test_an_endpoint_that_answers_again_has_recovered(pool: Pool, place: Place, database: str, sql: Sql) -> None:
    endpoint = await create(pool, place)
    await attempt(sql, place, endpoint, [500, 500], database)
    limits = Limits(failing_after=timedelta(microseconds=1), disabled_after=None)
    await sweep(pool, limits)
    await attempt(sql, place, endpoint, [200], database)
    await sweep(pool, limits)
    assert [kind for kind, _ in await history(sql, endpoint)][1:] == ["EndpointFailing", "EndpointRecovered"]


async def test_an_endpoint_that_answers_410_is_disabled_whatever_the_limits(
    pool: Pool, place: Place, database: str, sql: Sql
) -> None:
    endpoint = await create(pool, place)
    await attempt(sql, place, endpoint, [410], database)
    await sweep(pool, NOTHING)
    assert await history(sql, endpoint) == [("EndpointCreated", None), ("EndpointDisabled", "gone")]
    await change(pool, endpoint, disabled=False)
    await sweep(pool, NOTHING)
    assert len(await history(sql, endpoint)) == 3, "enabled again, it begins anew"


async def test_nobody_is_judged_by_what_an_earlier_url_answered(
    pool: Pool, place: Place, database: str, sql: Sql
) -> None:
    gone, failing = await create(pool, place), await create(pool, place)
    await attempt(sql, place, gone, [410], database)
    await attempt(sql, place, failing, [500, 500], database)
    for endpoint in (gone, failing):
        await change(pool, endpoint, url="https://mended.example/")
    await sweep(pool, Limits(failing_after=timedelta(microseconds=1), disabled_after=timedelta(microseconds=1)))
    for endpoint in (gone, failing):
        assert [kind for kind, _ in await history(sql, endpoint)] == ["EndpointCreated", "EndpointUpdated"]


async def test_whatever_its_owner_changes_of_a_failing_endpoint_it_begins_anew(
    registry: Registry, api: Client, database: str, pool: Pool, sql: Sql
) -> None:
    app = await api.create_application()
    for method, path, body in (
        ("PATCH", "", {"description": "mended"}),
        ("PUT", "", {"url": "http://localhost"}),
        ("POST", "/secret/rotate", None),
        ("PATCH", "/headers", {"headers": {"x-token": "mended"}}),
        ("PATCH", "/transformation", {"expression": "@"}),
    ):
        text = (await api.post(f"/app/{app}/endpoint", {"url": "http://localhost"}))["id"]
        endpoint = f"/app/{app}/endpoint/{text}"
        place = Place.of(registry.organisation, app)
        await attempt(sql, place, ids.decode(Prefix.ENDPOINT, text), [500, 500], database)
        await sweep(pool, Limits(failing_after=timedelta(microseconds=1), disabled_after=None))
        assert (await api.get(f"{endpoint}/health"))["state"] == "failing"
        assert (await api.request(method, f"/api/v1{endpoint}{path}", json=body)).status < 300
        assert (await api.get(f"{endpoint}/health"))["state"] == "healthy", path


async def test_nothing_follows_while_health_is_made_anew(
    pool: Pool, place: Place, database: str, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On its way it comes by what has long been over."""
    endpoint = await create(pool, place)
    await attempt(sql, place, endpoint, [410], database)
    monkeypatch.setattr(health, "BEHIND", timedelta(hours=-1))  # whatever is next, whatever the machine's clock does
    await accept(sql, place, publish=True)
    await sweep(pool, NOTHING)
    assert await history(sql, endpoint) == [("EndpointCreated", None)]


async def test_those_who_fail_are_found_by_indexes_among_many(sql: Sql) -> None:
    await sql.execute("""
        BEGIN;
        INSERT INTO hookledger.registry_object
            (id, kind, org, app, version, registry_version, created_at, updated_at, data)
        SELECT gen_random_uuid(), 'endpoint', gen_random_uuid(), gen_random_uuid(), 1, 1, now(), now(), '{"url": ""}'
        FROM generate_series(1, 20000);
        INSERT INTO projection_1.endpoint_health (endpoint, app, config_version, failures, failing_since,
            last_failure_at, latencies, latencies_before)
        SELECT id, app, 1, 1, now() - interval '1 day', now() - interval '1 day', '{}', '{}'
        FROM hookledger.registry_object WHERE kind = 'endpoint' ON CONFLICT DO NOTHING;
        ANALYZE hookledger.registry_object, projection_1.endpoint_health;
    """)
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    plan = await sql.fetch(f"EXPLAIN (ANALYZE, COSTS OFF) {NEWS}", hour_ago, timedelta(hours=1))
    counted = await sql.fetch("EXPLAIN SELECT FROM hookledger.queue WHERE lane = ANY($1) AND counted", [new_id()])
    await sql.execute("ROLLBACK")
    text = "\n".join(row[0] for row in (*plan, *counted))
    assert "Seq Scan" not in text
    for index in ("endpoint_health_failing", "registry_object_failing", "queue_counted"):
        assert index in text


async def test_health_is_read_of_the_present_configuration(
    registry: Registry, api: Client, database: str, sql: Sql
) -> None:
    app = await api.create_application()
    text = (await api.post(f"/app/{app}/endpoint", {"url": "http://localhost"}))["id"]
    path = f"/app/{app}/endpoint/{text}"
    assert await api.get(f"{path}/health") == {
        "state": "healthy",
        "consecutiveFailures": 0,
        "failingSince": None,
        "lastSuccess": None,
        "lastFailure": None,
        "latency": {"answers": 0, "p50Ms": None, "p95Ms": None},
        "circuit": {"state": "closed", "since": None, "nextProbe": None},
    }
    place = Place.of(registry.organisation, app)
    delivery = await attempt(sql, place, ids.decode(Prefix.ENDPOINT, text), [500, 500], database)
    seen = await api.get(f"{path}/health")
    assert (seen["consecutiveFailures"], seen["failingSince"] < seen["lastFailure"]) == (2, True)
    assert seen["latency"] == {"answers": 2, "p50Ms": pytest.approx(26.909), "p95Ms": pytest.approx(26.909)}
    explained = await api.get(f"/app/{app}/delivery/{ids.encode(Prefix.DELIVERY, delivery)}")
    assert explained["endpointHealth"] == seen
    await api.patch(path, {"disabled": True})
    later = await api.get(f"{path}/health")
    assert (later["state"], later["consecutiveFailures"], later["failingSince"]) == ("disabled", 0, None)
    await api.patch(path, {"disabled": False})
    kinds = [kind for kind, _ in await history(sql, ids.decode(Prefix.ENDPOINT, text))]
    assert kinds == ["EndpointCreated", "EndpointDisabled", "EndpointEnabled"]


async def test_an_endpoint_that_cannot_be_judged_keeps_nobody_else_from_it(
    pool: Pool, place: Place, database: str, sql: Sql
) -> None:
    endpoints = [await create(pool, place) for _ in range(3)]
    for endpoint in endpoints:
        await attempt(sql, place, endpoint, [500, 500], database)
    await sql.execute(
        "UPDATE hookledger.registry_object SET data = data || '{\"url\": 7}' WHERE id = $1", endpoints[1]
    )  # such as no version writes
    limits = Limits(failing_after=timedelta(microseconds=1), disabled_after=None)
    verdicts = Verdicts(pool, Announcer(), limits)
    before = REGISTRY.get_sample_value("hookledger_endpoints_unjudged_total") or 0
    await verdicts.sweep()
    kinds = [[kind for kind, _ in await history(sql, endpoint)] for endpoint in endpoints]
    assert kinds == [
        ["EndpointCreated", "EndpointFailing"],
        ["EndpointCreated"],
        ["EndpointCreated", "EndpointFailing"],
    ]
    assert REGISTRY.get_sample_value("hookledger_endpoints_unjudged_total") == before + 1
    await sql.execute(
        'UPDATE hookledger.registry_object SET data = data || \'{"url": "https://a.example/"}\' WHERE id = $1',
        endpoints[1],
    )
    await verdicts.sweep()
    assert (await history(sql, endpoints[1]))[-1][0] == "EndpointFailing", "it is judged as soon as it can be"


async def test_health_says_what_the_circuit_breaker_is(api: Client, sql: Sql) -> None:
    app = await api.create_application()
    text = (await api.post(f"/app/{app}/endpoint", {"url": "http://localhost"}))["id"]
    path, endpoint = f"/app/{app}/endpoint/{text}", ids.decode(Prefix.ENDPOINT, text)
    await sql.execute(
        """
        INSERT INTO hookledger.breaker (endpoint, app, config_version, openings, opened_at, open_until)
        VALUES ($1, $2, 1, 3, now() - interval '1 minute', now() + interval '1 minute')
        """,
        endpoint,
        ids.decode(Prefix.APPLICATION, app),
    )
    circuit = (await api.get(f"{path}/health"))["circuit"]
    assert circuit["state"] == "open"
    assert circuit["since"] < circuit["nextProbe"]
    await sql.execute("UPDATE hookledger.breaker SET open_until = now() WHERE endpoint = $1", endpoint)
    assert (await api.get(f"{path}/health"))["circuit"]["state"] == "half_open"
    await api.patch(path, {"description": "mended"})
    assert (await api.get(f"{path}/health"))["circuit"]["state"] == "closed", "a new configuration is tried afresh"


async def create(pool: Pool, place: Place) -> UUID:
    """An endpoint of nobody's server."""
    identity = new_id()
    async with pool.acquire() as connection, changing(connection, OPERATOR) as changes:
        document = EndpointDocument(url="https://receiver.example/")
        await changes.create(Kind.ENDPOINT, identity, document, org=place.org, app=place.app)
    return identity


async def change(pool: Pool, endpoint: UUID, **fields: Any) -> None:
    """Change an endpoint as its owner."""
    async with pool.acquire() as connection, changing(connection, OPERATOR) as changes:
        row = await connection.fetchrow("SELECT * FROM hookledger.registry_object WHERE id = $1", endpoint)
        assert row is not None
        found = object_of(row)
        assert isinstance(found.document, EndpointDocument)
        document = msgspec.structs.replace(found.document, failing=None, **fields)
        await changes.update(found, document, uid=None, verb=Verb.UPDATED)


async def attempt(sql: Sql, place: Place, endpoint: UUID, answers: Sequence[int], database: str) -> UUID:
    """A delivery that got these answers, and the health that comes of it."""
    delivery = await deliver(sql, place, await accept(sql, place), endpoint, answers)
    checkpoint = Checkpoint(health.FOLLOWER, new_id())
    async with await open_pool(database, "dispatcher", size=1) as pool, pool.acquire() as connection:
        while await health.count(connection, checkpoint):
            pass
        await checkpoint.leave(connection)
    return delivery


async def sweep(pool: Pool, limits: Limits) -> None:
    """Judge as a registry that has just started."""
    await Verdicts(pool, Announcer(), limits).sweep()


async def history(sql: Sql, endpoint: UUID) -> list[tuple[str, str | None]]:
    """The kinds of an endpoint's facts, and their reasons."""
    rows = await sql.fetch(
        "SELECT kind, data FROM hookledger.registry_fact WHERE stream = $1 ORDER BY version", endpoint
    )
    return [(row["kind"], msgspec.json.decode(row["data"]).get("reason")) for row in rows]


def fail_since(data: bytes) -> datetime | None:
    """What a fact says of the run's beginning."""
    text = msgspec.json.decode(data).get("fail_since")
    return None if text is None else datetime.fromisoformat(text)
