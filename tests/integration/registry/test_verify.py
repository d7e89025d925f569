"""`verify` finds every way in which a projection and its ledger can differ, and no other; `rebuild` mends each."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from uuid import UUID

import asyncpg
import pytest

from libs.common.contracts.registry import ApplicationDocument, Kind, OrganisationDocument
from libs.common.domain.outcome import Failure
from libs.common.postgres import chunks, rebuild, schedule, statistics
from libs.common.postgres.findings import Findings
from libs.common.postgres.pool import Pool, open_pool
from libs.common.postgres.rebuild import RebuildRunningError, rebuild_database
from libs.common.postgres.registry import OPERATOR, changing
from libs.common.postgres.verify import verify_database
from libs.common.runtime.clock import new_id
from tests.integration.registry.history import ABANDONED, SENDING, UNKNOWN, Place, Step, accept, deliver
from tests.support.following import follow_to_the_end
from tests.support.progress import UNHEARD

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
    """Chunks of streams and of lanes, small ones too."""
    monkeypatch.setattr(chunks, "CHUNK_STREAMS", request.param)
    monkeypatch.setattr(schedule, "LANES_AT_ONCE", request.param)
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
        CREATE TEMP TABLE queued AS SELECT * FROM hookledger.queue;
        CREATE TEMP TABLE lanes AS SELECT * FROM hookledger.lane;
        CREATE TEMP TABLE processes AS SELECT * FROM hookledger.process;
    """)
    yield connection
    await connection.execute("""
        DELETE FROM projection_1.delivery_state;
        DELETE FROM projection_1.attempt;
        DELETE FROM hookledger.registry_object;
        TRUNCATE hookledger.queue, hookledger.lane, hookledger.process;
        INSERT INTO projection_1.delivery_state SELECT * FROM deliveries;
        INSERT INTO projection_1.attempt SELECT * FROM attempts;
        INSERT INTO hookledger.registry_object SELECT * FROM objects;
        INSERT INTO hookledger.queue SELECT * FROM queued;
        INSERT INTO hookledger.lane SELECT * FROM lanes;
        INSERT INTO hookledger.process SELECT * FROM processes;
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


SCHEDULE_BROKEN = {
    "queue {waiting}: in the ledger, not in the projection": "DELETE FROM hookledger.queue WHERE delivery = $1",
    "queue {waiting}: owner is": "UPDATE hookledger.queue SET owner = $2 WHERE delivery = $1",
    "queue {waiting}: counted is True": "UPDATE hookledger.queue SET counted = true WHERE delivery = $1",
    "queue {waiting}: lane is": "UPDATE hookledger.queue SET lane = gen_random_uuid() WHERE delivery = $1",
    "queue {waiting}: due_at is": "UPDATE hookledger.queue SET due_at = due_at + interval '1 s' WHERE delivery = $1",
    "queue {over}: in the projection, not in the ledger": """
        INSERT INTO hookledger.queue (delivery, lane, due_at, owner)
        SELECT delivery, endpoint, now(), $2 FROM projection_1.delivery_state WHERE delivery = $3
    """,
    "inflight is 7, the ledger says 0": """
        UPDATE hookledger.lane SET inflight = 7 FROM hookledger.queue q WHERE q.lane = lane.lane AND delivery = $1
    """,
    "nobody would come to what waits in it": """
        UPDATE hookledger.lane SET ready_at = 'infinity' FROM hookledger.queue q
        WHERE q.lane = lane.lane AND delivery = $1
    """,
    "unknown, and owns 1 deliveries in the queue": "DELETE FROM hookledger.process WHERE id = $2",
}


async def damage(
    sql: "asyncpg.Connection[asyncpg.Record]", statement: str, first: UUID, deliveries: list[UUID]
) -> None:
    """Carry a statement out for what it names: `first`, who owns a delivery in flight, and a delivery that is over.

    Postgres takes no parameter that a statement does not use.
    """
    owner = await sql.fetchval("SELECT owner FROM hookledger.queue WHERE delivery = $1", deliveries[7])
    for name, value in (("$1", first), ("$2", owner), ("$3", deliveries[0])):
        statement = statement.replace(name, f"'{value}'")
    await sql.execute(statement)


@pytest.mark.parametrize("said", SCHEDULE_BROKEN)
async def test_a_delivery_that_would_be_forgotten_or_sent_again_is_found(
    pool: Pool, deliveries: list[UUID], sql: "asyncpg.Connection[asyncpg.Record]", said: str
) -> None:
    over, waiting = deliveries[0], deliveries[2]
    await damage(sql, SCHEDULE_BROKEN[said], waiting, deliveries)
    findings, lines = await differences(pool)
    assert findings.differences >= 1
    assert any(said.format(waiting=waiting, over=over) in line for line in lines), lines


STATISTICS_BROKEN = {
    "attempts is 2, the ledger says 1": "UPDATE projection_1.endpoint_hour SET attempts = 2 WHERE endpoint = $1",
    "total_us is 1": "UPDATE projection_1.endpoint_hour SET total_us = 1 WHERE endpoint = $1",
    "not in the projection": "DELETE FROM projection_1.endpoint_hour WHERE endpoint = $1",
    "not in the ledger": "UPDATE projection_1.endpoint_hour SET hour = hour - interval '1 h' WHERE endpoint = $1",
}


@pytest.fixture
async def counted(pool: Pool, database: str, place: Place) -> AsyncIterator[UUID]:
    """An endpoint at which an attempt ended that the statistics have counted, and one that they have not."""
    sql = await asyncpg.connect(database)
    message, endpoint = await accept(sql, place), new_id()
    await deliver(sql, place, message, endpoint, [500])
    async with await open_pool(database, "dispatcher", size=1) as dispatcher, dispatcher.acquire() as connection:
        await follow_to_the_end(connection, statistics.FOLLOWER, new_id(), statistics.count)
    await deliver(sql, place, message, new_id(), [200])
    yield endpoint
    await sql.execute("TRUNCATE projection_1.endpoint_hour, hookledger.checkpoint")
    await sql.close()


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("said", STATISTICS_BROKEN)
async def test_statistics_are_compared_up_to_where_they_have_come(
    pool: Pool, counted: UUID, sql: "asyncpg.Connection[asyncpg.Record]", said: str
) -> None:
    findings, lines = await differences(pool)
    assert (findings.differences, lines) == (0, [])
    assert findings.statistics > 0
    await sql.execute(STATISTICS_BROKEN[said], counted)
    findings, lines = await differences(pool)
    assert findings.differences >= 1
    assert any(line.startswith("statistics ") and str(counted) in line and said in line for line in lines), lines


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


DAMAGES = {**BROKEN, **SCHEDULE_BROKEN, **STATISTICS_BROKEN, **REGISTRY_BROKEN}


@pytest.mark.parametrize("said", DAMAGES)
async def test_what_verify_finds_rebuild_mends(
    *,
    pool: Pool,
    database: str,
    deliveries: list[UUID],
    counted: UUID,
    sql: "asyncpg.Connection[asyncpg.Record]",
    said: str,
) -> None:
    await damage(sql, DAMAGES[said], counted if said in STATISTICS_BROKEN else deliveries[2], deliveries)
    assert (await differences(pool))[0].differences > 0
    rebuilt = await rebuild_database(database, UNHEARD, pytest.fail)
    findings, lines = await differences(pool)
    assert (findings.differences, lines) == (0, [])
    assert rebuilt.mended_objects == (said in REGISTRY_BROKEN)
    again = await rebuild_database(database, UNHEARD, pytest.fail)
    assert (again.mended, again.mended_objects) == (0, 0)


@pytest.mark.usefixtures("deliveries")
async def test_projections_that_were_emptied_are_filled_again(
    pool: Pool, database: str, sql: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await sql.execute("""
        TRUNCATE projection_1.delivery_state, projection_1.attempt, projection_1.endpoint_hour, hookledger.checkpoint,
            hookledger.registry_object, hookledger.queue, hookledger.lane, hookledger.app_turn, hookledger.process
    """)
    await rebuild_database(database, UNHEARD, pytest.fail)
    findings, lines = await differences(pool)
    assert (findings.differences, lines) == (0, [])
    assert findings.statistics > 0
    await sql.execute("TRUNCATE projection_1.endpoint_hour, hookledger.checkpoint")


async def test_a_name_goes_back_to_its_object_though_a_wrong_one_has_it(
    pool: Pool, database: str, place: Place
) -> None:
    async with pool.acquire() as connection, changing(connection, OPERATOR) as changes:
        for uid in ("one", "two"):
            await changes.create(Kind.APPLICATION, new_id(), ApplicationDocument(name="a"), org=place.org, uid=uid)
    await pool.execute("""
        UPDATE hookledger.registry_object SET uid = 'three' WHERE uid = 'one';
        UPDATE hookledger.registry_object SET uid = 'one' WHERE uid = 'two';
        UPDATE hookledger.registry_object SET uid = 'two' WHERE uid = 'three';
    """)
    assert (await rebuild_database(database, UNHEARD, pytest.fail)).mended_objects == 2
    assert (await differences(pool))[1] == []


async def test_of_two_rebuilds_at_once_the_second_says_so(
    database: str, sql: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await sql.execute("SELECT pg_advisory_lock($1)", rebuild._LOCK)
    with pytest.raises(RebuildRunningError):
        await rebuild_database(database, UNHEARD, pytest.fail)


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
    before = await pool.fetchrow("SELECT * FROM projection_1.delivery_state WHERE delivery = $1", stream)
    said: list[str] = []
    await rebuild_database(database, UNHEARD, said.append)
    assert said == [f"delivery {stream}: left as it is, its stream cannot be folded: its versions are not 1, 2, 3, …"]
    assert await pool.fetchrow("SELECT * FROM projection_1.delivery_state WHERE delivery = $1", stream) == before
