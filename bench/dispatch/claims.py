"""Claiming with very many due, nearly all of one application: how fast, whether once, and how soon the small ones."""

import asyncio
import time
from pathlib import Path
from typing import Final
from uuid import UUID

import asyncpg
import msgspec

from bench import volume
from bench.children import said
from bench.dispatch.claimer import PLAIN, Claimer, Claims
from bench.dispatch.plan import Plan
from bench.report import Measurements
from bench.run import Say
from deploy.stack.errors import StackError
from deploy.stack.installation import Installation
from deploy.stack.isolation import Isolation, isolated
from deploy.stack.servers import Servers
from libs.common.runtime.clock import new_id

CLAIMERS: Final = 3
BIG_LANES: Final = 1_000
SMALL: Final = 20
_SMALL_SHARE: Final = 100
_START_SECONDS: Final = 3.0
"""Until each claimer is ready."""
_NEVER_FULL: Final = 1_000_000
"""Places in a lane: nothing is sent, and so nothing ends."""


async def measure(plan: Plan, measured: Measurements, servers: Servers, folder: Path, say: Say) -> None:
    """Fill, claim by plain `due_at` order for a while, then all of it in turn.

    Raises:
        StackError: something was claimed twice, or not at all.
    """
    with isolated(servers, label="claims") as corner:
        await asyncio.to_thread(Installation(folder=folder / "claims", corner=corner).migrate)
        sql = await asyncpg.connect(corner.database_url)
        try:
            say(f"claims: {plan.due:,} due deliveries")
            small = await _fill(sql, plan.due)
            of_small = await sql.fetchval("SELECT count(*) FROM hookledger.queue WHERE lane = ANY($1)", small)
            say(f"claims: by `due_at` alone, for {plan.plain_seconds:.0f} s at most")
            begin, found = await _claim(corner, small, plan.plain_seconds, plain=True)
            seconds = max(claims.ended for claims in found) - begin
            measured.ceiling("plain_claims", sum(claims.count for claims in found) / seconds)
            served = sum(claims.small for claims in found) == of_small
            measured.ceiling("plain_small", max(claims.small_at for claims in found) - begin if served else seconds)
            await sql.execute(f"DROP TABLE hookledger.{PLAIN}")
            await sql.execute("CHECKPOINT")
            say(f"claims: in turn, for {plan.claim_seconds:.0f} s at most")
            begin, found = await _claim(corner, small, plan.claim_seconds, plain=False)
            await _once(sql, found)
            seconds = max(claims.ended for claims in found) - begin
            measured.figure("dispatch_claims", sum(claims.count for claims in found) / seconds)
            measured.figure("dispatch_small_s", max(claims.small_at for claims in found) - begin)
            longest = max(claims.longest for claims in found)
            say(f"claims: {sum(claims.claims for claims in found):,} claims, the longest {longest * 1000:.0f} ms")
        finally:
            await sql.close()


async def _fill(sql: volume.Sql, due: int) -> list[UUID]:
    """The same deliveries in the queue and in a table without lanes; the lanes of the small applications."""
    each = due // _SMALL_SHARE // SMALL
    big, *others = (new_id() for _ in range(1 + SMALL))
    await volume.backlog(sql, big, lanes=BIG_LANES, rows=due - SMALL * each, max_inflight=_NEVER_FULL)
    for app in others:
        await volume.backlog(sql, app, lanes=1, rows=each, max_inflight=_NEVER_FULL)
    await sql.execute(
        f"""
        CREATE TABLE hookledger.{PLAIN} (LIKE hookledger.queue INCLUDING STORAGE)
            WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
        INSERT INTO hookledger.{PLAIN} SELECT * FROM hookledger.queue;
        ALTER TABLE hookledger.{PLAIN} ADD PRIMARY KEY (delivery);
        CREATE INDEX plain_due ON hookledger.{PLAIN} (due_at) WHERE owner IS NULL;
        GRANT SELECT, UPDATE ON hookledger.{PLAIN} TO hookledger_dispatcher;
        """,  # noqa: S608  a constant
        timeout=None,
    )
    await sql.execute("VACUUM ANALYZE", timeout=None)
    await sql.execute("CHECKPOINT", timeout=None)
    rows = await sql.fetch("SELECT lane FROM hookledger.lane WHERE app <> $1", big)
    return [row["lane"] for row in rows]


async def _claim(corner: Isolation, small: list[UUID], seconds: float, *, plain: bool) -> tuple[float, list[Claims]]:
    """When they began, and what each of the claimers did."""
    begin = time.monotonic() + _START_SECONDS
    claimers = [
        Claimer(
            database=corner.database_url,
            owner=new_id(),
            plain=plain,
            small=small,
            begin=begin,
            end=begin + seconds,
        )
        for _ in range(CLAIMERS)
    ]
    found = await asyncio.gather(
        *(said(Claims, "bench.dispatch.claimer", msgspec.json.encode(claimer).decode()) for claimer in claimers)
    )
    return begin, found


async def _once(sql: volume.Sql, found: list[Claims]) -> None:
    """Each row has one owner; were one claimed twice, the claimers would count more than there are."""
    rows = await sql.fetch("SELECT owner, count(*) AS n FROM hookledger.queue GROUP BY 1", timeout=None)
    left = sum(row["n"] for row in rows if row["owner"] is None)
    owned = sorted(row["n"] for row in rows if row["owner"] is not None)
    counted = sorted(claims.count for claims in found if claims.count)
    if owned != counted:
        raise StackError(f"claimed twice: the queue has {owned} by owner, and the claimers counted {counted}")
    if left:
        raise StackError(f"{left} deliveries were not claimed in time")
