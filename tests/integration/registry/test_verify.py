"""`verify` finds every way in which a projection and its ledger can differ, and no other."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from uuid import UUID

import asyncpg
import pytest

from libs.common.contracts.registry import ApplicationDocument, Kind, OrganisationDocument
from libs.common.domain.outcome import Failure
from libs.common.postgres import verify
from libs.common.postgres.pool import Pool, open_pool
from libs.common.postgres.registry import OPERATOR, changing
from libs.common.postgres.verify import Findings, verify_database
from libs.common.runtime.clock import new_id
from tests.integration.registry.history import ABANDONED, SENDING, UNKNOWN, Place, Step, accept, deliver

STORIES: list[list[Step]] = [
    [200],
    [],
    [500],
    [500, 200],
    [500, Failure.TIMEOUT, 500],
    [404],
    [410],
    [SENDING],
    [ABANDONED, 200],
    [UNKNOWN, 200],
    [UNKNOWN] * 5,
    [500, SENDING],
]


@pytest.fixture(scope="module")
async def pool(database: str) -> AsyncIterator[Pool]:
    opened = await open_pool(database, "registry", size=4)
    yield opened
    await opened.close()


@pytest.fixture(scope="module")
async def place(pool: Pool) -> Place:
    org, app = new_id(), new_id()
    async with pool.acquire() as connection, changing(connection, OPERATOR) as changes:
        await changes.create(Kind.ORGANISATION, org, OrganisationDocument(name="o"), org=org)
        made = await changes.create(Kind.APPLICATION, app, ApplicationDocument(name="a"), org=org, uid="a")
        await changes.update(made, ApplicationDocument(name="b", metadata={"k": "v"}), uid=None)
    return Place(org=org, app=app)


@pytest.fixture(scope="module")
async def deliveries(database: str, place: Place) -> list[UUID]:
    """One delivery for each story, in order."""
    sql = await asyncpg.connect(database)
    try:
        message = await accept(sql, place)
        return [await deliver(sql, place, message, new_id(), story) for story in STORIES]
    finally:
        await sql.close()


@pytest.fixture(params=[1, 3, 1000])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Chunks of streams, small ones too."""
    monkeypatch.setattr(verify, "CHUNK_STREAMS", request.param)
    return iter(())


async def differences(pool: Pool) -> tuple[Findings, list[str]]:
    lines: list[str] = []
    return await verify_database(pool, lines.append), lines


@pytest.mark.usefixtures("chunk")
async def test_what_the_core_decided_and_the_shell_wrote_is_verified(pool: Pool, deliveries: list[UUID]) -> None:
    findings, lines = await differences(pool)
    assert lines == []
    assert (findings.deliveries, findings.attempts) == (len(STORIES), 19)
    assert findings.registry_objects == 2


BROKEN = {
    "status is exhausted": "UPDATE projection_1.delivery_state SET status = 'exhausted' WHERE delivery = $1",
    "failures is 7": "UPDATE projection_1.delivery_state SET failures = 7 WHERE delivery = $1",
    "due_at is None": "UPDATE projection_1.delivery_state SET due_at = NULL WHERE delivery = $1",
    "updated_at is": """
        UPDATE projection_1.delivery_state SET updated_at = updated_at - interval '1 microsecond' WHERE delivery = $1
    """,
    "peer is elsewhere": "UPDATE projection_1.attempt SET peer = 'elsewhere' WHERE delivery = $1",
    "total_us is 1": "UPDATE projection_1.attempt SET total_us = 1 WHERE delivery = $1",
    "delivery {}: in the ledger, not in the projection": """
        DELETE FROM projection_1.delivery_state WHERE delivery = $1
    """,
    "attempt {}": "DELETE FROM projection_1.attempt WHERE delivery = $1",
    ": in the projection, not in the ledger": """
        INSERT INTO projection_1.attempt
        SELECT delivery, gen_random_uuid(), app, message, endpoint, run, number, trigger, config_version, signing_key,
            process, result, status, failure, url, peer, sends, total_us, started_at, ended_at
        FROM projection_1.attempt WHERE delivery = $1
    """,
}


@pytest.fixture
async def sql(database: str, deliveries: list[UUID]) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A connection with the operator's rights; what it breaks in the projections is mended afterwards."""
    connection = await asyncpg.connect(database)
    await connection.execute("""
        CREATE TEMP TABLE deliveries AS SELECT * FROM projection_1.delivery_state;
        CREATE TEMP TABLE attempts AS SELECT * FROM projection_1.attempt;
        CREATE TEMP TABLE objects AS SELECT * FROM hookledger.registry_object;
    """)
    yield connection
    await connection.execute("""
        DELETE FROM projection_1.delivery_state;
        DELETE FROM projection_1.attempt;
        DELETE FROM hookledger.registry_object;
        INSERT INTO projection_1.delivery_state SELECT * FROM deliveries;
        INSERT INTO projection_1.attempt SELECT * FROM attempts;
        INSERT INTO hookledger.registry_object SELECT * FROM objects;
    """)
    await connection.close()


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("said", BROKEN)
async def test_what_differs_is_said_by_row_and_field(
    pool: Pool, deliveries: list[UUID], sql: "asyncpg.Connection[asyncpg.Record]", said: str
) -> None:
    waiting = deliveries[2]
    await sql.execute(BROKEN[said], waiting)
    findings, (line,) = await differences(pool)
    assert findings.differences == 1
    assert str(waiting) in line
    assert said.format(waiting) in line


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("delivery", [UUID(int=1 << 80 | 1), UUID("ffffffff-ffff-7fff-8fff-ffffffffffff")])
async def test_a_row_without_any_fact_is_found_wherever_its_id_lies(
    pool: Pool, sql: "asyncpg.Connection[asyncpg.Record]", delivery: UUID
) -> None:
    await sql.execute("CREATE TABLE projection_1.rest PARTITION OF projection_1.delivery_state DEFAULT")
    try:
        await sql.execute(
            """
            INSERT INTO projection_1.delivery_state SELECT $1, app, message, endpoint, status, version, run, attempts,
                failures, unknowns, attempt, process, last_status, due_at, created_at, updated_at
            FROM projection_1.delivery_state LIMIT 1
            """,
            delivery,
        )
        findings, lines = await differences(pool)
    finally:
        await sql.execute("DROP TABLE projection_1.rest")
    assert findings.differences == 1
    assert lines == [f"delivery {delivery}: in the projection, not in the ledger"]


REGISTRY_BROKEN = {
    "uid is other": "UPDATE hookledger.registry_object SET uid = 'other' WHERE kind = 'application'",
    "data is": "UPDATE hookledger.registry_object SET data = data || '{\"name\": \"c\"}' WHERE kind = 'application'",
    "version is 3": "UPDATE hookledger.registry_object SET version = 3 WHERE kind = 'application'",
    "deleted_at is": "UPDATE hookledger.registry_object SET deleted_at = now() WHERE kind = 'application'",
    "not in the projection": "DELETE FROM hookledger.registry_object WHERE kind = 'application'",
    "not in the ledger": """
        INSERT INTO hookledger.registry_object
        SELECT gen_random_uuid(), kind, org, app, uid, version, registry_version, created_at, updated_at, deleted_at, data
        FROM hookledger.registry_object WHERE kind = 'application'
    """,
}


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("said", REGISTRY_BROKEN)
async def test_a_registry_object_that_is_not_its_fold_is_found(
    pool: Pool, sql: "asyncpg.Connection[asyncpg.Record]", said: str
) -> None:
    await sql.execute(REGISTRY_BROKEN[said])
    findings, (line,) = await differences(pool)
    assert findings.differences == 1
    assert line.startswith("registry object ")
    assert said in line


@pytest.mark.usefixtures("chunk", "deliveries")
async def test_verifying_is_right_while_the_system_writes(pool: Pool, database: str, place: Place) -> None:
    stopping = asyncio.Event()
    written: list[UUID] = []

    async def write() -> None:
        sql = await asyncpg.connect(database)
        while not stopping.is_set():
            message = await accept(sql, place)
            written.append(await deliver(sql, place, message, new_id(), [500, UNKNOWN, 200]))
        await sql.close()

    async with asyncio.TaskGroup() as group:
        group.create_task(write())
        while len(written) < 30:
            findings, lines = await differences(pool)
            assert lines == []
        stopping.set()
    assert findings.deliveries > len(STORIES)


async def test_a_stream_with_a_hole_is_named(pool: Pool, database: str, place: Place) -> None:
    sql = await asyncpg.connect(database)
    try:
        message = await accept(sql, place)
        stream = await deliver(sql, place, message, new_id(), [200])
        await sql.execute("ALTER TABLE hookledger.fact DISABLE TRIGGER append_only")
        await sql.execute("DELETE FROM hookledger.fact WHERE stream = $1 AND version = 2", stream)
    finally:
        await sql.close()
    findings, lines = await differences(pool)
    assert findings.differences > 0
    assert lines[0].startswith(f"delivery {stream}: its stream cannot be folded: its versions are not 1, 2, 3")
