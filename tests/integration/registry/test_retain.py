"""`hookledger retain`: old weeks go whole and when they are over, and the rest is verified and rebuilt as before."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeAlias
from uuid import UUID

import asyncpg
import pytest
from msgspec import Struct

from deploy.stack.servers import Servers
from deploy.stack.services import environment
from libs.common.domain import ids
from libs.common.postgres import health, retaining, statistics
from libs.common.postgres.pool import Pool, open_pool
from libs.common.postgres.rebuild import rebuild_database
from libs.common.postgres.retaining import Retained, RetainingError, retain
from libs.common.postgres.verify import verify_database
from libs.common.runtime.clock import new_id
from libs.common.runtime.failpoints import HIT, Failpoint
from tests.integration.registry.history import SENDING, Place, Step, accept, deliver
from tests.support import databases
from tests.support.following import follow_to_the_end
from tests.support.patience import eventually
from tests.support.progress import UNHEARD

STORIES: list[list[Step]] = [[200], [500, 200], [404], [410], [500, 500, 500]]
TABLES = (
    "hookledger.fact",
    "hookledger.message",
    "hookledger.message_body",
    "hookledger.attempt_content",
    "projection_1.delivery_state",
    "projection_1.attempt",
)
COMMITTED = 3
"""The step before which the week is still there."""
AT_ONCE = """
import asyncio, datetime, sys
from libs.common.postgres.retaining import retain
from libs.common.runtime import failpoints
failpoints.enable(sys.argv[2])
asyncio.run(retain(sys.argv[1], keep=datetime.timedelta(0), say=print))
"""
IN_HAND = """
SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock'
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))
"""
Sql: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


class World(Struct):
    """A database in which deliveries of last week and of this one were made, by the same endpoints.

    `old` are last week's messages. One of them was delivered late: this week.
    """

    url: str
    sql: Sql
    dispatcher: Pool
    registry: Pool
    place: Place
    endpoints: list[UUID]
    began: datetime
    old: list[UUID]

    async def follow(self) -> None:
        """Statistics and health come to the ledger's end, and all others too, as far as their checkpoints say."""
        async with self.dispatcher.acquire() as connection:
            for follower, count in ((statistics.FOLLOWER, statistics.count), (health.FOLLOWER, health.count)):
                await follow_to_the_end(connection, follower, new_id(), count)
        await self.sql.execute("""
            UPDATE hookledger.checkpoint c SET owner = NULL, epoch = h.epoch, xact = h.xact, position = h.position
            FROM hookledger.checkpoint h WHERE h.follower = 'health'
        """)

    async def deliver(self, at: datetime | None = None, *, late: bool = False) -> UUID:
        """One message of that time to all endpoints, each with a story of its own; late: its attempts are of now."""
        message = await accept(self.sql, self.place, at=at)
        for endpoint, story in zip(self.endpoints, STORIES, strict=True):
            await deliver(self.sql, self.place, message, endpoint, story, at=None if late else at, response=b"said")
        return message

    async def end(self, stream: UUID) -> None:
        """As if a delivery were over."""
        await self.sql.execute("DELETE FROM hookledger.queue WHERE delivery = $1", stream)
        await self.sql.execute("UPDATE projection_1.delivery_state SET status = 'gone' WHERE delivery = $1", stream)

    async def retain(self) -> Retained:
        """Let go of what ended before now: last week."""
        return await retain(self.url, keep=timedelta(0), say=lambda _: None)

    async def differences(self) -> list[str]:
        """What `verify` says."""
        said: list[str] = []
        await verify_database(self.registry, said.append)
        return said

    async def projections(self) -> dict[str, list[asyncpg.Record]]:
        """What is folded over many streams."""
        return {
            table: await self.sql.fetch(f"SELECT * FROM projection_1.{table} t ORDER BY t")  # noqa: S608  names below
            for table in ("endpoint_hour", "endpoint_health")
        }

    async def counts(self) -> dict[str, int]:
        """Rows of what is partitioned by week."""
        return {table: await self.sql.fetchval(f"SELECT count(*) FROM {table}") for table in TABLES}  # noqa: S608  names above


@pytest.fixture
async def world(servers: Servers, database_template: str) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(databases.cloned(servers.database_url, database_template))
        sql = await asyncpg.connect(url)
        stack.push_async_callback(sql.close)
        pools = [
            await stack.enter_async_context(await open_pool(url, role, size=2)) for role in ("dispatcher", "registry")
        ]
        now = await sql.fetchval("SELECT clock_timestamp()")
        began = now - timedelta(milliseconds=int(now.timestamp() * 1000) % ids.WEEK_MS)
        world = World(
            url=url,
            sql=sql,
            dispatcher=pools[0],
            registry=pools[1],
            place=Place(org=new_id(), app=new_id()),
            endpoints=[new_id() for _ in STORIES],
            began=began.replace(microsecond=0),
            old=[],
        )
        for days in (3, 2):
            world.old.append(await world.deliver(world.began - timedelta(days=days)))
        world.old.append(await world.deliver(world.began - timedelta(days=1), late=True))
        await world.deliver()
        await world.follow()
        yield world


async def test_a_week_that_is_over_goes_with_all_that_belongs_to_it_and_the_rest_stays(world: World) -> None:
    before = await world.counts()
    assert await world.differences() == []
    done = await world.retain()
    assert [begins + timedelta(days=7) for begins in done.weeks] == [world.began]
    assert done.kept is None
    after = await world.counts()
    assert done.facts == before["hookledger.fact"] - after["hookledger.fact"] > 0
    assert {table: before[table] / after[table] for table in TABLES} == dict.fromkeys(TABLES, 4.0), (
        "one message of four"
    )
    assert await world.sql.fetch("SELECT FROM hookledger.message WHERE id = ANY($1)", world.old) == []
    assert await world.differences() == []
    assert (await world.retain()).weeks == [], "there is no more"


async def test_statistics_keep_what_ended_later_than_its_week(world: World) -> None:
    late = await world.sql.fetch(
        "SELECT endpoint, sum(attempts) AS n FROM projection_1.endpoint_hour WHERE hour >= $1 GROUP BY 1 ORDER BY 1",
        world.began,
    )
    await world.retain()
    kept = await world.sql.fetch(
        "SELECT endpoint, sum(attempts) AS n FROM projection_1.endpoint_hour GROUP BY 1 ORDER BY 1"
    )
    assert kept == late
    assert sum(row["n"] for row in kept) == 2 * sum(map(len, STORIES))


async def test_health_goes_on_from_what_it_was(world: World) -> None:
    was = (await world.projections())["endpoint_health"]
    await world.retain()
    assert (await world.projections())["endpoint_health"] == was
    await world.deliver()
    await world.follow()
    assert (await world.projections())["endpoint_health"] != was
    assert await world.differences() == []


async def test_a_rebuild_makes_of_the_rest_what_was_there(world: World) -> None:
    await world.retain()
    await world.deliver()
    await world.follow()
    was = await world.projections()
    await world.sql.execute("TRUNCATE projection_1.endpoint_hour, projection_1.endpoint_health")
    await rebuild_database(world.url, UNHEARD, pytest.fail)
    assert await world.projections() == was
    assert await world.differences() == []


async def test_verify_still_finds_what_is_wrong_after_it(world: World) -> None:
    await world.retain()
    await world.sql.execute("UPDATE projection_1.endpoint_health SET failures = failures + 7")
    await world.sql.execute("UPDATE projection_1.endpoint_hour SET attempts = attempts + 7 WHERE result = 'succeeded'")
    said = await world.differences()
    assert len([line for line in said if line.startswith("health")]) == len(STORIES)
    assert [line for line in said if line.startswith("statistics")]


async def test_a_week_in_which_something_is_open_stays_until_it_is_over(world: World) -> None:
    stream = await deliver(world.sql, world.place, world.old[0], new_id(), [SENDING])
    before = await world.counts()
    done = await world.retain()
    assert done.weeks == []
    assert done.kept is not None
    assert done.kept[1] == "1 of its messages or deliveries are not over"
    assert await world.counts() == before
    await world.sql.execute("DELETE FROM hookledger.queue WHERE delivery = $1", stream)
    assert (await world.retain()).kept is not None, "a rebuild would put it there again"
    await world.end(stream)
    assert len((await world.retain()).weeks) == 1


async def test_what_is_begun_in_the_last_moment_is_not_let_go_of(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_baseline = health.keep_baseline

    async def and_begin(connection: Sql) -> None:
        await keep_baseline(connection)
        await deliver(world.sql, world.place, world.old[0], new_id(), [SENDING])

    before = await world.counts()
    with monkeypatch.context() as patched:
        patched.setattr(health, "keep_baseline", and_begin)
        done = await world.retain()
    assert done.kept is not None
    assert done.kept[1] == "1 of its messages or deliveries are not over"
    assert (await world.counts())["projection_1.attempt"] == before["projection_1.attempt"]
    assert await world.differences() == []


async def test_what_ends_in_the_last_moment_is_counted_before_it_goes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_baseline, other = health.keep_baseline, new_id()

    async def and_deliver(connection: Sql) -> None:
        await keep_baseline(connection)
        await deliver(world.sql, world.place, world.old[0], other, [500, 200])

    with monkeypatch.context() as patched:
        patched.setattr(health, "keep_baseline", and_deliver)
        done = await world.retain()
    assert done.kept is not None
    assert done.kept[1] == "something was added to it just now"
    assert await world.differences() == []
    assert (await world.retain()).kept is not None, "nobody has read it yet"
    await world.follow()
    assert len((await world.retain()).weeks) == 1
    assert await world.differences() == []
    counted = "SELECT sum(attempts) FROM projection_1.endpoint_hour WHERE endpoint = $1"
    assert await world.sql.fetchval(counted, other) == 2


async def test_a_week_stays_until_all_who_follow_have_read_it(world: World) -> None:
    await world.deliver(world.began - timedelta(hours=1))
    done = await world.retain()
    assert done.kept is not None
    assert (
        done.kept[1]
        == "not all of it is read yet by: health, operational_deliveries, operational_endpoints, statistics"
    )
    await world.follow()
    assert len((await world.retain()).weeks) == 1


@pytest.mark.parametrize("step", [1, 2, 3])
async def test_killed_at_any_step_all_is_as_before_or_as_after(world: World, tmp_path: Path, step: int) -> None:
    before = await world.counts()
    (tmp_path / Failpoint.RETAIN_STEP).write_text(f"kill {step}")
    killed = await asyncio.to_thread(_python, "-c", AT_ONCE, world.url, str(tmp_path))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (tmp_path / f"{Failpoint.RETAIN_STEP}{HIT}").exists()
    await eventually(lambda: world.sql.fetchval(IN_HAND), lambda held: not held)  # until its server has noticed
    assert (await world.counts() == before) == (step < COMMITTED)
    assert await world.differences() == []
    await world.deliver()
    await world.follow()
    assert await world.differences() == []
    assert len((await world.retain()).weeks) == (step < COMMITTED)
    assert await world.differences() == []
    assert await world.sql.fetch("SELECT FROM projection_1.endpoint_hour WHERE hour < $1", world.began) == []


async def test_who_keeps_the_tables_busy_is_named_and_nothing_is_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retaining, "TRIES", 2)
    monkeypatch.setattr(retaining, "PAUSE_SECONDS", 0.01)
    before = await world.counts()
    async with world.sql.transaction():
        dumping = await world.sql.fetchval("SELECT pg_backend_pid() FROM hookledger.message LIMIT 1")
        with pytest.raises(RetainingError, match=f"process {dumping}"):
            await world.retain()
    assert await world.counts() == before
    assert await world.differences() == []
    assert len((await world.retain()).weeks) == 1


async def test_a_clock_that_was_behind_at_the_weeks_end_makes_no_difference(world: World) -> None:
    message = await accept(world.sql, world.place, at=world.began + timedelta(milliseconds=2))
    await deliver(
        world.sql, world.place, message, world.endpoints[0], [200], at=world.began - timedelta(milliseconds=60)
    )
    await world.follow()
    assert await world.differences() == []
    await world.retain()
    assert await world.differences() == []
    await rebuild_database(world.url, UNHEARD, pytest.fail)
    assert await world.differences() == []


async def test_it_waits_for_nobody_who_compares_and_is_not_compared_with(world: World) -> None:
    async with world.registry.acquire() as connection, retaining.whole_ledger(connection):
        with pytest.raises(RetainingError, match="try again when that is over"):
            await world.retain()
        assert await world.differences() == [], "but several may compare"
    assert len((await world.retain()).weeks) == 1


async def test_the_command_says_what_went_and_what_stays_and_why(world: World) -> None:
    command = ("-m", "services.admin", "retain", "--days")
    young = await asyncio.to_thread(_python, *command, "91", DATABASE_URL=world.url)
    assert (young.returncode, young.stdout) == (0, "retain: no week of the ledger ended more than 91 days ago\n")
    few = await asyncio.to_thread(_python, *command, "7", DATABASE_URL=world.url)
    assert few.returncode == 2
    assert "91" in few.stderr
    week = await _age(world, weeks=60)
    open_one = await deliver(world.sql, world.place, week[0], new_id(), [SENDING])
    stays = await asyncio.to_thread(_python, *command, "400", DATABASE_URL=world.url)
    assert stays.returncode == 1
    begins = world.began - timedelta(weeks=60)
    assert stays.stdout == (
        f"retain: the week of {begins:%Y-%m-%d} stays, and with it all that follow: 1 of its messages or deliveries are not over\n"
    )
    await world.end(open_one)
    facts = await world.sql.fetchval(f"SELECT count(*) FROM hookledger.fact_{begins:%Y%m%d}")  # noqa: S608  a name of ours
    goes = await asyncio.to_thread(_python, *command, "400", DATABASE_URL=world.url)
    assert goes.returncode == 0, goes.stderr
    assert goes.stdout.splitlines() == [
        f"retain: the week of {begins:%Y-%m-%d} is dropped: {facts} ledger events",
        f"retain: done, {facts} ledger events dropped",
    ]


async def _age(world: World, *, weeks: int) -> list[UUID]:
    """One message with its deliveries, in a week long ago."""
    begins = world.began - timedelta(weeks=weeks)
    low, high = (ids.lowest(int(at.timestamp() * 1000)) for at in (begins, begins + timedelta(weeks=1)))
    for table in TABLES:
        name = f"{table}_{begins:%Y%m%d}"
        await world.sql.execute(f"CREATE TABLE {name} PARTITION OF {table} FOR VALUES FROM ('{low}') TO ('{high}')")
    message = await world.deliver(begins + timedelta(days=1))
    await world.follow()
    return [message]


def _python(*words: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *words], env=environment(settings), capture_output=True, text=True, timeout=60, check=False
    )
