"""Operational messages: what becomes of endpoints and deliveries reaches the operational application's endpoints, once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest

from libs.common.contracts.registry import EndpointDocument
from libs.common.domain import ids
from libs.common.domain.facts import Origin
from libs.common.domain.ids import Prefix
from libs.common.postgres.checkpoint import Checkpoint
from libs.common.postgres.pool import Pool, open_pool
from libs.common.postgres.registry import Verb, changing
from libs.common.postgres.snapshot import object_of
from libs.common.runtime.clock import new_id
from services.dispatcher import projecting
from tests.integration.dispatcher.parts import Parts, dispatching
from tests.integration.dispatcher.world import World
from tests.support.receiver import Receiver

OPERATIONAL = "operational"


# Through the pipeline


@pytest.mark.usefixtures("hasty")
async def test_what_becomes_of_an_endpoint_reaches_the_operational_endpoints_in_order(
    world: World, receiver: Receiver
) -> None:
    told = await world.application(OPERATIONAL)
    await world.endpoint(told, receiver.url("/told"))
    app = await world.application("acme")
    async with dispatching(world) as parts, telling_by(parts):
        endpoint = await world.endpoint(app, receiver.url("/hook"))
        await world.change(endpoint, description="new")
        since = await fail(world, endpoint, Verb.FAILING)
        await fail(world, endpoint, Verb.RECOVERED)
        await fail(world, endpoint, Verb.DISABLED)
        await world.delete(endpoint)
        got = await receiver.wait_for(6, path="/told")
    whose = {
        "appId": ids.encode(Prefix.APPLICATION, app),
        "appUid": "acme",
        "endpointId": ids.encode(Prefix.ENDPOINT, endpoint),
    }
    failing = whose | {"failSince": since}
    assert sorted((orjson.loads(request.body) for request in got), key=lambda body: ORDER.index(body["type"])) == [
        {"type": "endpoint.created", "data": whose},
        {"type": "endpoint.updated", "data": whose},
        {"type": "endpoint.failing", "data": failing},
        {"type": "endpoint.recovered", "data": failing},
        {"type": "endpoint.disabled", "data": failing},
        {"type": "endpoint.deleted", "data": whose},
    ]


ORDER = [
    *["endpoint.created", "endpoint.updated", "endpoint.failing", "endpoint.recovered", "endpoint.disabled"],
    "endpoint.deleted",
]


@pytest.mark.usefixtures("hasty")
async def test_failing_exhausted_and_recovered_deliveries_reach_the_operational_endpoints(
    world: World, receiver: Receiver
) -> None:
    told = await world.application(OPERATIONAL)
    await world.endpoint(told, receiver.url("/told"), event_types=("message.attempt.failing",))
    await world.endpoint(
        told, receiver.url("/over"), event_types=("message.attempt.exhausted", "message.attempt.recovered")
    )
    app = await world.application()
    schedule = (0.0,) * 4
    back = await world.endpoint(app, receiver.script("/back", 500, 500, 500, 503), schedule=schedule)
    down = await world.endpoint(app, receiver.script("/down", then=502), schedule=schedule)
    async with dispatching(world) as parts, telling_by(parts):
        parts.start_claiming()
        [message] = await world.accept(app)
        await parts.fan_outs.take([message], path="envelope")
        failing = [body(request) for request in await receiver.wait_for(2, path="/told")]
        over = [body(request) for request in await receiver.wait_for(2, path="/over")]
    own = {"appId": ids.encode(Prefix.APPLICATION, app), "msgId": ids.encode(Prefix.MESSAGE, message.id)}
    assert {each["type"] for each in failing} == {"message.attempt.failing"}
    assert {each["data"]["lastAttempt"]["responseStatusCode"] for each in failing} == {502, 503}
    ended = {each["type"]: each["data"] for each in over}
    exhausted, recovered = ended["message.attempt.exhausted"], ended["message.attempt.recovered"]
    assert exhausted.items() >= (own | {"endpointId": ids.encode(Prefix.ENDPOINT, down)}).items()
    assert recovered.items() >= (own | {"endpointId": ids.encode(Prefix.ENDPOINT, back)}).items()
    [last] = await world.owner.fetch(
        "SELECT attempt, started_at FROM projection_1.attempt WHERE endpoint = $1 ORDER BY number DESC LIMIT 1", back
    )
    assert recovered["lastAttempt"] == {
        "id": ids.encode(Prefix.ATTEMPT, last["attempt"]),
        "responseStatusCode": 200,
        "timestamp": last["started_at"].isoformat().replace("+00:00", "Z"),
    }


async def test_an_operational_message_is_one_like_any_other(world: World, receiver: Receiver) -> None:
    told = await world.application(OPERATIONAL)
    app = await world.application()
    endpoint = await world.endpoint(app, receiver.url("/hook"))
    async with following(world) as pool:
        await tell(pool)
        [row] = await messages(world, told)
        assert await world.facts(row["id"]) == ["MessageAccepted"]
        assert row["origin"] == Origin.OPERATIONAL
        assert row["event_id"] == f"endpoint.created.{ids.encode(Prefix.ENDPOINT, endpoint)}.1"
        assert row["body_bytes"] == len(row["body"])
        assert await world.owner.fetchval("SELECT true FROM hookledger.outbox WHERE message = $1", row["id"])


# Once


async def test_what_is_told_is_told_once_also_where_the_checkpoint_is_set_back(world: World) -> None:
    told = await world.application(OPERATIONAL)
    app = await world.application()
    await world.endpoints(app, ["https://example.com/"] * 3)
    async with following(world) as pool:
        await tell(pool)
        await world.owner.execute("UPDATE hookledger.checkpoint SET epoch = 0")
        await world.endpoint(app, "https://example.com/")
        await tell(pool)
    assert [row["event_type"] for row in await messages(world, told)] == ["endpoint.created"] * 4


async def test_who_publishes_under_such_an_event_id_keeps_nothing_from_being_told(world: World) -> None:
    told, app = await world.application(OPERATIONAL), await world.application()
    endpoint = await world.endpoint(app, "https://example.com/")
    event_id = f"endpoint.created.{ids.encode(Prefix.ENDPOINT, endpoint)}.1"
    await world.accept(told, 2, event_id=event_id)
    async with following(world) as pool:
        await tell(pool)
        await world.owner.execute("UPDATE hookledger.checkpoint SET epoch = 0")
        await tell(pool)
    found = [(row["event_id"], row["origin"]) for row in await messages(world, told)]
    assert sorted(found) == [*[(event_id, Origin.API)] * 2, (event_id, Origin.OPERATIONAL)]


async def test_a_message_is_born_when_it_is_told_however_old_its_news(world: World) -> None:
    """Who reads by id relies on it that ids are made right before they are committed."""
    told = await world.application(OPERATIONAL)
    await world.endpoint(await world.application(), "https://example.com/")
    began: datetime = await world.owner.fetchval("SELECT clock_timestamp()")
    async with following(world) as pool:
        await tell(pool)
    [message] = await messages(world, told)
    assert ids.born_ms(message["id"]) == int(message["accepted_at"].timestamp() * 1000) >= began.timestamp() * 1000 - 1


async def test_a_batch_whose_transaction_fails_is_told_by_whoever_follows_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = await world.application(OPERATIONAL)
    await world.endpoint(await world.application(), "https://example.com/")

    async def dies(*_: object) -> None:
        raise ConnectionResetError

    async with following(world) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(Checkpoint, "move", dies)
            with pytest.raises(ConnectionResetError):
                await tell(pool)
        assert await messages(world, told) == []
        await tell(pool)
    assert len(await messages(world, told)) == 1


async def test_many_facts_are_told_in_batches(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.dispatcher.operational.endpoints.BATCH", 3)
    told = await world.application(OPERATIONAL)
    await world.endpoints(await world.application(), ["https://example.com/"] * 8)
    async with following(world) as pool:
        await tell(pool)
    assert len(await messages(world, told)) == 8


# Whom, and of what


async def test_nothing_is_told_of_the_operational_applications_own_endpoints_and_deliveries(
    world: World, receiver: Receiver
) -> None:
    told = await world.application(OPERATIONAL)
    await world.endpoint(told, receiver.script("/down", then=404))
    async with dispatching(world) as parts, following(world) as pool:
        await parts.fan_outs.take(await world.accept(told), path="envelope")
        await world.until_over(told, 1)
        await tell(pool)
    assert [row["origin"] for row in await messages(world, told)] == [Origin.API]


async def test_another_organisation_is_told_nothing_and_neither_is_one_without_the_application(
    world: World,
) -> None:
    told = await world.application(OPERATIONAL)
    other = World(world.url, world.owner, world.registry, world.epoch)
    await other.found()
    await other.endpoint(await other.application(), "https://example.com/")
    async with following(world) as pool:
        await tell(pool)
    assert await messages(world, told) == []


async def test_what_was_before_the_application_or_long_ago_is_not_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = await world.application()
    await world.endpoint(app, "https://example.com/")
    told = await world.application(OPERATIONAL)
    async with following(world) as pool:
        await tell(pool)
        assert await messages(world, told) == []
        monkeypatch.setattr("services.dispatcher.operational.endpoints.NEWS_FOR", timedelta(0))
        await world.endpoint(app, "https://example.com/")
        await tell(pool)
    assert await messages(world, told) == []


async def test_where_nobody_is_to_be_told_anything_no_fact_is_read(world: World) -> None:
    for row in await world.owner.fetch(
        "SELECT id FROM hookledger.registry_object WHERE uid = 'operational' AND deleted_at IS NULL"
    ):
        await world.delete(row["id"])
    async with following(world) as pool:
        await world.endpoints(await world.application(), ["https://example.com/"] * 3)
        assert await tell(pool) == 0
        await world.application(OPERATIONAL)
        assert await tell(pool) == 1, "its own creation: what was passed over is not read again"


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for what may come another way, or looks only once a second."""
    monkeypatch.setattr("services.dispatcher.fanout.OVERDUE", timedelta(0))
    monkeypatch.setattr("services.dispatcher.fanout.SWEEP_SECONDS", 0.05)
    monkeypatch.setattr("services.dispatcher.projecting.POLL_SECONDS", 0.05)


@asynccontextmanager
async def telling_by(parts: Parts) -> AsyncIterator[None]:
    """A dispatcher's followers run, and it takes what they put into the outbox."""
    stopping = asyncio.Event()
    parts.start_sweeping()
    await parts.world.owner.execute("UPDATE hookledger.checkpoint SET owner = NULL")
    running = [
        asyncio.create_task(projecting.run(parts.pool, parts.lease.process, each, stopping))
        for each in projecting.OPERATIONAL
    ]
    try:
        yield
    finally:
        stopping.set()
        await asyncio.gather(*running)


@asynccontextmanager
async def following(world: World) -> AsyncIterator[Pool]:
    """Connections of a dispatcher, at the ledgers' end."""
    async with await open_pool(world.url, "dispatcher", size=1) as pool:
        yield pool


async def tell(pool: Pool) -> int:
    """Follow both ledgers to their ends; how many facts were read."""
    process, read = new_id(), 0
    await pool.execute("UPDATE hookledger.checkpoint SET owner = NULL")
    for each in projecting.OPERATIONAL:
        checkpoint = Checkpoint(each.follower, process)
        async with pool.acquire() as connection:
            while facts := await each.count(connection, checkpoint):
                read += facts
    return read


async def messages(world: World, app: UUID) -> list[Any]:
    """An application's, in the order in which they were accepted."""
    rows: list[Any] = await world.owner.fetch(
        """
        SELECT m.*, b.body FROM hookledger.message m JOIN hookledger.message_body b ON b.message = m.id
        JOIN hookledger.fact f ON f.stream = m.id AND f.version = 1
        WHERE m.app = $1 ORDER BY f.position
        """,
        app,
    )
    return rows


async def fail(world: World, endpoint: UUID, verb: Verb) -> str:
    """What the registry makes of an endpoint's failures; since when it fails."""
    async with world.registry.acquire() as connection, changing(connection, "system") as changes:
        [row] = await connection.fetch("SELECT * FROM hookledger.registry_object WHERE id = $1", endpoint)
        found = object_of(row)
        assert isinstance(found.document, EndpointDocument)
        await changes.update(found, found.document, uid=None, verb=verb, fail_since=found.created_at)
    return found.created_at.isoformat().replace("+00:00", "Z")


def body(request: Any) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(request.body)
    return found
