"""What a page of each list costs in large tables: as much as is on it, or a bounded number of entries to look at."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, get_origin
from uuid import UUID

import asyncpg
import pytest
from aiohttp.test_utils import TestServer
from asyncpg.connection import LoggedQuery

from bench import volume
from libs.common.contracts.operations import Operation
from libs.common.contracts.registry import OrganisationDocument, Scope
from libs.common.domain import ids
from libs.common.domain.addresses import AddressPolicy
from libs.common.domain.ids import Prefix
from libs.common.postgres.key_use import KeyUse
from libs.common.postgres.pool import Pool, open_pool
from libs.common.rabbitmq.broker import Broker
from libs.common.rabbitmq.topology import Names
from libs.common.runtime.settings import parse_master_keys
from services.admin.creation import create_key, create_organisation
from services.registry.announcing import Announcer
from services.registry.app import build
from services.registry.authentication import Authentication
from services.registry.calls import Registry
from services.registry.paging import MOST_EXAMINED, PageOut
from services.registry.routes import ROUTES
from tests.integration.registry.history import SENDING, Place, accept, deliver
from tests.support.client import Client, connected
from tests.support.patience import eventually

pytestmark = pytest.mark.filterwarnings("ignore:It is recommended to use web.RequestKey")
Sql = Any  # a connection of asyncpg
ROWS = 20_000
LISTS = [route.operation for route in ROUTES if get_origin(route.operation.answers.get(200)) is PageOut]
OF_A_PAGE = 1_500
"""Entries that a page of 250 items, and the deliveries in flight beside it, may cost."""
OF_A_FILTER = 2 * MOST_EXAMINED + OF_A_PAGE
"""And so many where a filter lets through little: each entry is examined together with its message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A registry within this process, on one connection, and an application with a long history."""

    api: Client
    pool: Pool
    sql: Sql
    place: Place
    paths: dict[str, str]
    """What stands for the names in paths."""
    asked: dict[str, tuple[str, ...]]
    """For each parameter a value that much has, one that little has, and one that nothing has."""

    def path(self, operation: Operation) -> str:
        return operation.path.format(**self.paths)


@pytest.fixture(scope="module")
async def operator(database: str) -> AsyncIterator[Sql]:
    connection = await asyncpg.connect(database, server_settings={"stats_fetch_consistency": "none"})
    yield connection
    await connection.close()


@pytest.fixture(scope="module")
async def pool(database: str) -> AsyncIterator[Pool]:
    """As the registry opens it."""
    opened = await open_pool(database, "registry", size=1, custom_plans=True)
    yield opened
    await opened.close()


@pytest.fixture(scope="module")
async def world(database: str, pool: Pool, operator: Sql) -> AsyncIterator[World]:
    owner = await open_pool(database, "registry", size=1)
    organisation = await create_organisation(owner, OrganisationDocument(name="large"), None)
    key = await create_key(owner, organisation.id, name="", scopes=(Scope.ADMIN,), expiry=None)
    await owner.close()
    registry = Registry(
        pool=pool,
        master_keys=parse_master_keys("A" * 43 + "="),
        addresses=AddressPolicy(development=True),
        authentication=Authentication(pool, KeyUse(pool)),
        announcer=Announcer(),
        public_url="",
        idempotency=timedelta(hours=24),
        read_seconds=2,
    )
    app = build(registry, Broker("amqp://localhost", Names("none"), "none"))
    async with TestServer(app) as server, connected(str(server.make_url("")).rstrip("/"), key) as api:
        made = await _fill(api, operator, organisation.id, pool)
        yield made


async def _fill(api: Client, sql: Sql, org: Any, pool: Pool) -> World:
    app = await api.create_application(uid="app")
    endpoint = (await api.post(f"/app/{app}/endpoint", {"url": "http://localhost", "uid": "receiver"}))["id"]
    source = (await api.create_source(app, "github", "secret")).id
    await api.post("/event-type", {"name": "order.completed", "description": ""})
    since = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    await api.post(f"/app/{app}/endpoint/{endpoint}/recover", {"since": since})

    place = Place(org=org, app=ids.decode(Prefix.APPLICATION, app))
    receiver = ids.decode(Prefix.ENDPOINT, endpoint)
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    await volume.prepare(sql)
    here = volume.Place(org=org, app=place.app, endpoint=receiver, until_ms=now_ms)
    others = [ids.time_ordered(now_ms, bytes([number] * 10)) for number in range(3)]
    await volume.history(sql, here, 1, ROWS)
    await volume.history(
        sql, volume.Place(org=others[0], app=others[1], endpoint=others[2], until_ms=now_ms), 1, ROWS // 10
    )
    await volume.objects(sql, org, ["endpoint", "event_type"], ROWS)
    await volume.objects(sql, org, ["application", "source", "api_key", "job"], 3 * OF_A_PAGE)
    await sql.execute("""
        UPDATE hookledger.registry_object SET data = data || '{"archived": true}'
        WHERE kind = 'event_type' AND uid > 'order.completed.0010000'
    """)
    await volume.changes(sql, receiver, ROWS)
    await volume.rejected(sql, here, ROWS)
    everywhere = await sql.fetchval("SELECT id FROM hookledger.message WHERE app = $1 ORDER BY id LIMIT 1", place.app)
    await volume.fan_out(sql, here, everywhere)
    last = await deliver(sql, place, await accept(sql, place), receiver, [500, SENDING])
    await sql.execute("ANALYZE")

    message = ids.encode(Prefix.MESSAGE, everywhere)
    deleted = await sql.fetchval("SELECT id FROM hookledger.registry_object WHERE kind = 'source' LIMIT 1")
    (key,) = {
        row["actor"]
        for row in await sql.fetch("SELECT actor FROM hookledger.registry_fact WHERE stream = $1", receiver)
    }
    middle = datetime.fromtimestamp((now_ms - ROWS * volume.EVERY_MS // 2) / 1000, UTC).isoformat()
    long_ago = datetime.fromtimestamp(now_ms / 1000, UTC) - timedelta(days=300)
    return World(
        api=api, pool=pool, sql=sql, place=place,
        paths={
            "app": app, "endpoint": endpoint, "msg": message, "delivery": ids.encode(Prefix.DELIVERY, last),
        },
        asked={
            "limit": ("250", "1"),
            "order": ("ascending", "descending"),
            "with_content": ("true", "false"),
            "include_archived": ("true", "false"),
            "event_types": ("order.completed", "order.rare", "order.none"),
            "channel": ("eu", "rare", "none"),
            "tag": ("paid", "none"),
            "source": (source, ids.encode(Prefix.SOURCE, others[0])),
            "before": (middle, long_ago.isoformat()),
            "after": (middle, datetime.now(UTC).isoformat()),
            "status": ("0", "1", "2", "3"),
            "status_code_class": ("200", "400", "300"),
            "endpoint_id": (endpoint,),
            "endpointId": (endpoint,),
            "messageId": (message, ids.encode(Prefix.MESSAGE, others[0])),
            "object": (endpoint, ids.encode(Prefix.SOURCE, deleted)),
            "app": (app, ids.encode(Prefix.APPLICATION, others[0])),
            "actor": (ids.encode(Prefix.API_KEY, UUID(key.partition(":")[2])), "operator", "system"),
            "kind": ("EndpointUpdated", "ApplicationCreated", "SourceDeleted", "SourceDeleted,ApplicationDeleted"),
        },
    )  # fmt: skip


# What a page costs


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Entries read: of tables from end to end, and of indexes."""

    scanned: int
    by_index: int


async def _read_so_far(world: World) -> Cost:
    await world.sql.execute("SELECT pg_stat_force_next_flush()")  # what this connection has read itself is told before
    row = await world.sql.fetchrow("""
        SELECT (SELECT sum(seq_tup_read) FROM pg_stat_user_tables)::bigint AS scanned,
            (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes)::bigint AS by_index
    """)
    return Cost(scanned=row["scanned"], by_index=row["by_index"])


async def _page(world: World, operation: Operation, **asked: str) -> tuple[Any, Cost, str]:
    """The page, what it cost, and how its statements are planned.

    The counters are the server's: what else reads a table meanwhile, as its own maintenance does, is in them, too. A plan
    reads as much the second time; the others do not.
    """
    page, cost, plans = await _measured(world, operation, **asked)
    return (page, cost, plans) if not plans else await _measured(world, operation, **asked)


async def _measured(world: World, operation: Operation, **asked: str) -> tuple[Any, Cost, str]:
    statements: list[LoggedQuery] = []
    async with world.pool.acquire() as connection:
        await connection.fetch("SELECT pg_stat_force_next_flush()")
        connection.add_query_logger(statements.append)
    before = await _read_so_far(world)
    page = await world.api.get(world.path(operation), **asked)
    async with world.pool.acquire() as connection:
        connection.remove_query_logger(statements.append)
        await connection.fetch("SELECT pg_stat_force_next_flush()")
    after = await _read_so_far(world)
    cost = Cost(scanned=after.scanned - before.scanned, by_index=after.by_index - before.by_index)
    if cost.scanned == 0 and cost.by_index <= OF_A_PAGE:
        return page, cost, ""
    async with world.pool.acquire() as connection:
        plans = [
            await connection.fetch(f"EXPLAIN ANALYZE {each.query}", *each.args) for each in statements if each.args
        ]
    return page, cost, "\n".join(row[0] for plan in plans for row in plan)


@pytest.mark.parametrize("operation", LISTS, ids=lambda operation: operation.id)
async def test_a_page_costs_what_is_on_it(world: World, operation: Operation) -> None:
    page, cost, plans = await _page(world, operation)
    whole = not operation.query
    assert len(page["data"]) == (5 if whole else 50), "each list has more here than a page of it holds"
    assert page["done"] is whole
    assert cost.scanned == 0, plans
    assert cost.by_index <= OF_A_PAGE, plans


@pytest.mark.parametrize(
    ("operation", "name"),
    [(operation, parameter.name) for operation in LISTS for parameter in operation.query],
    ids=lambda value: value if isinstance(value, str) else value.id,
)
async def test_a_filter_costs_a_bounded_number_of_entries(world: World, operation: Operation, name: str) -> None:
    values = world.asked[name] if name != "iterator" else await _iterators(world, operation)
    if (operation.id, name) == ("v1.delivery.list", "status"):
        values = ("succeeded", "gone", "expired", "expired,waiting")
    for value in values:
        _, cost, plans = await _page(world, operation, **{name: value})
        assert cost.scanned == 0, f"{name}={value}\n{plans}"
        assert cost.by_index <= OF_A_FILTER, f"{name}={value}\n{plans}"


async def _iterators(world: World, operation: Operation) -> tuple[str, ...]:
    page = await world.api.get(world.path(operation))
    return page["iterator"], f"-{page['iterator']}", page["prevIterator"]


# The order of the whole list

PAGED = [operation for operation in LISTS if operation.query]


@pytest.mark.parametrize("operation", PAGED, ids=lambda operation: operation.id)
async def test_order_turns_a_list_round_and_its_iterators_with_it(world: World, operation: Operation) -> None:
    path = world.path(operation)
    first, cost, plans = await _page(world, operation, order="ascending")
    assert (cost.scanned, cost.by_index <= OF_A_PAGE) == (0, True), plans
    second = await world.api.get(path, order="ascending", iterator=first["iterator"])
    rising = [*first["data"], *second["data"]]
    assert len(rising) == 100
    assert await world.api.get(path, order="ascending", iterator=second["prevIterator"]) == first | {"done": True}
    falling = await world.api.get(path, order="descending", limit="250", iterator=second["iterator"])
    assert (falling["data"], falling["done"]) == (rising[-2::-1], True)
    by_default = await world.api.get(path)
    assert by_default in (first, await world.api.get(path, order="descending"))


@pytest.mark.parametrize("operation", PAGED, ids=lambda operation: operation.id)
async def test_an_order_that_is_none_is_refused(world: World, operation: Operation) -> None:
    answer = await world.api.request("GET", f"/api/v1{world.path(operation)}", params={"order": "zz"})
    assert (answer.status, answer.json["detail"][0]["loc"]) == (422, ["query", "order"])


async def test_in_rising_order_the_attempt_in_flight_comes_last(world: World) -> None:
    """It is the newest, and has an id before it has ended."""
    sent = await world.api.get("/app/{app}/delivery/{delivery}".format(**world.paths))
    path = f"/app/{world.paths['app']}/attempt/msg/{sent['messageId']}"
    rising = await world.api.get(path, order="ascending")
    assert [item["result"] for item in rising["data"]] == ["retryable", "sending"]
    assert (await world.api.get(path))["data"] == rising["data"][::-1]
    rest = await world.api.get(path, order="ascending", iterator=rising["data"][0]["id"])
    assert rest["data"] == rising["data"][1:]


async def test_in_rising_order_a_list_begins_after_the_time_asked_for(world: World) -> None:
    path, after = f"/app/{world.paths['app']}/msg", world.asked["after"][0]
    rising = await world.api.get(path, after=after, order="ascending")
    before = await world.api.get(path, iterator=rising["data"][0]["id"], limit="1")
    around = [datetime.fromisoformat(page["data"][0]["timestamp"]) for page in (before, rising)]
    assert around[0] <= datetime.fromisoformat(after) < around[1]


# What is on the pages, when a filter lets through little


async def _walk(world: World, path: str, asked: dict[str, str], turn: str = "iterator") -> tuple[list[str], str, int]:
    """Every item from page to page, where the last page began, and how many pages had none."""
    found: list[str] = []
    empty = 0
    asked = {"limit": "50", **asked}
    while True:
        page = await world.api.get(path, **asked)
        shown = [item["id"] for item in page["data"]]
        found += shown if turn == "iterator" else shown[::-1]
        empty += not shown
        if page["done"]:
            return found, asked.get("iterator", ""), empty
        asked["iterator"] = page[turn]


@pytest.mark.parametrize(
    ("path", "asked", "rare"),
    [
        ("/app/{app}/msg", {"event_types": "order.rare"},
         "SELECT id FROM hookledger.message WHERE event_type = 'order.rare' AND app = $1"),
        ("/app/{app}/attempt/endpoint/{endpoint}", {"status_code_class": "400"},
         "SELECT attempt FROM projection_1.attempt WHERE status = 410 AND endpoint = $2 AND app = $1"),
        ("/app/{app}/attempt/endpoint/{endpoint}", {"channel": "rare"},
         """SELECT attempt FROM projection_1.attempt a JOIN hookledger.message m ON m.id = a.message
         WHERE 'rare' = ANY(m.channels) AND a.endpoint = $2 AND a.app = $1"""),
        ("/app/{app}/endpoint/{endpoint}/msg", {"channel": "rare"},
         "SELECT id FROM hookledger.message WHERE 'rare' = ANY(channels) AND app = $1"),
        ("/app/{app}/delivery", {"status": "gone"},
         "SELECT delivery FROM projection_1.delivery_state WHERE status = 'gone' AND app = $1"),
    ],
    ids=["messages", "attempts by status", "attempts by channel", "messages of an endpoint", "deliveries"],
)  # fmt: skip
async def test_what_is_rare_is_found_in_both_directions_past_pages_without_items(
    world: World, path: str, asked: dict[str, str], rare: str
) -> None:
    endpoint = ids.decode(Prefix.ENDPOINT, world.paths["endpoint"])
    values = (world.place.app, endpoint) if "$2" in rare else (world.place.app,)
    expected = [row[0] for row in await world.sql.fetch(f"{rare} ORDER BY 1 DESC", *values)]
    there, last, empty = await _walk(world, path.format(**world.paths), asked)
    prefix = Prefix(there[0].partition("_")[0])
    assert [ids.decode(prefix, item) for item in there] == expected
    assert empty > 0
    back, _, _ = await _walk(world, path.format(**world.paths), {**asked, "iterator": f"-{last}"}, "prevIterator")
    assert back[::-1] == [item for item in there if item > last]
    rising, _, empty = await _walk(world, path.format(**world.paths), {**asked, "order": "ascending"})
    assert rising == there[::-1]
    assert empty > 0


async def test_times_are_for_the_first_page_and_ignored_beside_an_iterator(world: World) -> None:
    path, after = f"/app/{world.paths['app']}/msg", world.asked["after"][0]
    first = await world.api.get(path, limit="1", after=after, before=after)
    assert first["data"] == []
    newest = await world.api.get(path, limit="1")
    beside = await world.api.get(path, limit="250", before=after, iterator=newest["iterator"])
    assert beside == await world.api.get(path, limit="250", iterator=newest["iterator"])
    assert beside["data"][0]["timestamp"] > after


async def test_what_comes_meanwhile_moves_no_page(world: World) -> None:
    path = f"/app/{world.paths['app']}/msg"
    first = await world.api.get(path, channel="rare")
    await accept(world.sql, world.place, channels=["rare"])
    second = await world.api.get(path, channel="rare", iterator=first["iterator"])
    third = await world.api.get(path, channel="rare", iterator=second["iterator"])
    assert [len(page["data"]) for page in (first, second, third)] == [0, 1, 0]
    back = await world.api.get(path, channel="rare", iterator=third["prevIterator"])
    assert (back["data"], back["done"]) == ([], False)
    back = await world.api.get(path, channel="rare", iterator=back["prevIterator"])
    assert back["data"] == second["data"]


# What takes too long


async def test_a_list_that_takes_too_long_is_given_up_and_can_be_asked_for_again(world: World, database: str) -> None:
    path = f"/api/v1/app/{world.paths['app']}/msg"
    other = await asyncpg.connect(database)
    try:
        async with other.transaction():
            await other.execute("LOCK TABLE hookledger.message IN ACCESS EXCLUSIVE MODE")
            given_up = await world.api.request("GET", path)
    finally:
        await other.close()
    assert (given_up.status, given_up.headers["Retry-After"]) == (503, "1")
    assert "in time" in given_up.json["detail"]
    assert (await world.api.request("GET", path)).status == 200


async def test_a_list_whose_statement_the_server_cancels_can_be_asked_for_again(world: World, database: str) -> None:
    other = await asyncpg.connect(database)
    try:
        async with other.transaction(), asyncio.TaskGroup() as group:
            await other.execute("LOCK TABLE hookledger.message IN ACCESS EXCLUSIVE MODE")
            asked = group.create_task(world.api.request("GET", f"/api/v1/app/{world.paths['app']}/msg"))
            cancel = """
                SELECT pg_cancel_backend(pid) FROM pg_locks
                WHERE NOT granted AND relation = 'hookledger.message'::regclass
            """
            await eventually(lambda: world.sql.fetchval(cancel), bool)
            answer = await asked
    finally:
        await other.close()
    assert answer.status == 503
    assert "in time" in answer.json["detail"]
