"""Statistics of an endpoint: deliveries by status with the official SDK, attempts by hour in a field of our own."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from time import monotonic

import aiohttp
import asyncpg
import pytest
from svix.api import EndpointGetStatsOptions, EndpointIn, SvixAsync

from libs.common.domain import ids
from libs.common.domain.ids import Prefix
from libs.common.postgres import statistics
from libs.common.postgres.pool import Pool, open_pool
from libs.common.runtime.clock import new_id
from services.registry.endpoint_stats import COUNT_SECONDS
from tests.integration.registry.conftest import Registry
from tests.integration.registry.history import ABANDONED, SENDING, UNKNOWN, Place, Step, accept, deliver
from tests.support.client import Client, connected
from tests.support.following import follow_to_the_end

PROCESS = new_id()
CANCEL = "UPDATE projection_1.delivery_state SET status = 'cancelled' WHERE delivery = $1"


@pytest.fixture(scope="module")
async def dispatcher(database: str) -> AsyncIterator[Pool]:
    async with await open_pool(database, "dispatcher", size=1) as pool:
        yield pool


@pytest.fixture
async def told(
    registry: Registry, api: Client, svix: SvixAsync, sql: "asyncpg.Connection[asyncpg.Record]", dispatcher: Pool
) -> tuple[str, str]:
    """An application and its endpoint, where deliveries went every way."""
    app = await api.create_application()
    place = Place.of(registry.organisation, app)
    endpoint = (await svix.endpoint.create(app, EndpointIn(url="http://localhost/now"))).id
    receiver = ids.decode(Prefix.ENDPOINT, endpoint)
    stories: list[list[Step]] = [[200], [500, 200], [], [500], [SENDING], [404], [410], [ABANDONED, 200], [UNKNOWN] * 5]
    for story in stories:
        await deliver(sql, place, await accept(sql, place), receiver, story)
    await sql.execute(CANCEL, await deliver(sql, place, await accept(sql, place), receiver, []))
    await deliver(sql, place, await accept(sql, place), new_id(), [200])  # another endpoint's
    async with dispatcher.acquire() as connection:
        await follow_to_the_end(connection, statistics.FOLLOWER, PROCESS, statistics.count)
    return app, endpoint


async def test_deliveries_are_counted_by_their_status(svix: SvixAsync, told: tuple[str, str]) -> None:
    found = await svix.endpoint.get_stats(*told)
    assert (found.success, found.pending, found.sending, found.fail, found.canceled) == (3, 1, 2, 3, 1)


async def test_attempts_are_counted_by_hour_with_their_average_time(api: Client, told: tuple[str, str]) -> None:
    app, endpoint = told
    hours = (await api.get(f"/app/{app}/endpoint/{endpoint}/stats"))["hours"]
    assert [datetime.fromisoformat(hour["hour"]).minute for hour in hours] == [0] * len(hours)
    assert sum(hour["attempts"] for hour in hours) == 13
    assert sum(hour["succeeded"] for hour in hours) == 3
    assert sum(hour["failed"] for hour in hours) == 10
    # Each answer of these stories took 25 ms; what nobody knows the outcome of has no time.
    assert {hour["averageMs"] for hour in hours} == {25.0}


async def test_only_what_was_accepted_in_the_range_counts(api: Client, svix: SvixAsync, told: tuple[str, str]) -> None:
    app, endpoint = told
    later = datetime.now(UTC) + timedelta(hours=2)
    options = EndpointGetStatsOptions(since=later, until=later + timedelta(hours=1))
    found = await svix.endpoint.get_stats(app, endpoint, options)
    assert (found.success, found.pending, found.sending, found.fail, found.canceled) == (0, 0, 0, 0, 0)
    past = await api.get(f"/app/{app}/endpoint/{endpoint}/stats?until=1960-01-01T00:00:00Z")
    assert (past["success"], past["hours"]) == (0, [])


@pytest.mark.parametrize(("days", "status"), [(28, 200), (28.01, 400), (-1, 400)])
async def test_a_range_is_28_days_at_most_and_runs_forward(
    api: Client, told: tuple[str, str], days: float, status: int
) -> None:
    app, endpoint = told
    until = datetime.now(UTC)
    since = until - timedelta(days=days)
    query = f"since={since:%Y-%m-%dT%H:%M:%SZ}&until={until:%Y-%m-%dT%H:%M:%SZ}"
    answer = await api.request("GET", f"/api/v1/app/{app}/endpoint/{endpoint}/stats?{query}")
    assert answer.status == status
    assert answer.json.get("code") == (None if status == 200 else "invalid_range")


async def test_another_organisation_finds_no_endpoint(registry: Registry, told: tuple[str, str]) -> None:
    app, endpoint = told
    async with connected(registry.url, registry.tenant()) as client:
        answer = await client.request("GET", f"/api/v1/app/{app}/endpoint/{endpoint}/stats")
    assert answer.status == 404


async def test_a_range_that_takes_too_long_to_count_is_refused_for_now_and_holds_nobody_up(
    registry: Registry, told: tuple[str, str], sql: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    app, endpoint = told
    path = f"{registry.url}/api/v1/app/{app}/endpoint/{endpoint}/stats"
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {registry.key}"}) as session:
        async with sql.transaction():
            await sql.execute("LOCK TABLE projection_1.delivery_state")
            began = monotonic()
            async with session.get(path) as response:
                refusal = await response.json()
            took = monotonic() - began
        assert (response.status, refusal["code"], response.headers["Retry-After"]) == (503, "unavailable", "1")
        assert "shorter" in refusal["detail"]
        assert COUNT_SECONDS <= took < COUNT_SECONDS + 5
        async with session.get(path) as response:
            assert response.status == 200
