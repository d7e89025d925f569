"""A dispatcher that claims and sends nothing: `python -m bench.dispatch.claimer '<a Claimer as JSON>'` prints `Claims`.

It claims as many at once as a dispatcher does, in a dispatcher's transaction, until nothing is left or its time is up.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Final, TypeAlias
from uuid import UUID

import msgspec
import uvloop

from libs.common.postgres.pool import Connection, Pool, open_pool, transaction
from services.dispatcher.claims import MOST_AT_ONCE
from tests.integration.dispatcher.claiming import claim

PLAIN: Final = "plain"
"""The table of those that are claimed by `due_at`; it looks like the queue."""
_AGAIN_SECONDS: Final = 0.005
"""Where others have every turn; as long as a dispatcher sleeps at least."""
_LOOKS: Final = 20
"""So often in a row nothing can be claimed before it is asked whether anything is left."""
_LEFT: Final = "SELECT EXISTS (SELECT FROM hookledger.queue WHERE owner IS NULL)"
_PLAIN_LEFT: Final = f"SELECT EXISTS (SELECT FROM {PLAIN} WHERE owner IS NULL)"  # noqa: S608  a constant

Take: TypeAlias = Callable[[Connection, UUID], Awaitable[list[UUID]]]


class Claimer(msgspec.Struct, frozen=True, kw_only=True):
    """What to claim.

    Attributes:
        database: its URL.
        owner: in whose name.
        plain: by `due_at` alone.
        small: lanes of which it is told when they were claimed.
        begin, end: by the machine's monotonic clock.
    """

    database: str
    owner: UUID
    plain: bool
    small: list[UUID]
    begin: float
    end: float


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """What was claimed; moments by the machine's monotonic clock.

    Attributes:
        small: how many of the small lanes.
        small_at: when the last of these was.
        longest: seconds that a claim took.
        ended: when the last claim was committed.
    """

    count: int
    claims: int
    small: int
    small_at: float
    longest: float
    ended: float


async def in_turn(connection: Connection, owner: UUID) -> list[UUID]:
    """Claim as the product does; the lanes of what was claimed."""
    return [item.lane for item in await claim(connection, most=MOST_AT_ONCE, owner=owner)]


async def by_due_at(connection: Connection, owner: UUID) -> list[UUID]:
    """Claim what is due the longest; the lanes of what was claimed."""
    heads = await connection.fetch(
        f"""
        SELECT delivery FROM {PLAIN} WHERE owner IS NULL AND due_at <= clock_timestamp()
        ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED
        """,  # noqa: S608  a constant
        MOST_AT_ONCE,
    )
    rows = await connection.fetch(
        f"UPDATE {PLAIN} SET owner = $1, counted = true WHERE delivery = ANY($2) RETURNING lane",  # noqa: S608  a constant
        owner,
        [row["delivery"] for row in heads],
    )
    return [row["lane"] for row in rows]


async def work(pool: Pool, claimer: Claimer) -> Claims:
    """Claim until nothing is left, or it is time."""
    take: Take = by_due_at if claimer.plain else in_turn
    left = _PLAIN_LEFT if claimer.plain else _LEFT
    small: Collection[UUID] = set(claimer.small)
    count = claims = of_small = 0
    small_at = last_at = longest = 0.0
    idle = 0
    await asyncio.sleep(max(0.0, claimer.begin - time.monotonic()))
    while (began := time.monotonic()) < claimer.end:
        async with transaction(pool) as connection:
            lanes = await take(connection, claimer.owner)
        now = time.monotonic()
        if not lanes:
            idle += 1
            if idle % _LOOKS == 0 and not await pool.fetchval(left):
                break
            await asyncio.sleep(_AGAIN_SECONDS)
            continue
        idle = 0
        last_at = now
        count, claims, longest = count + len(lanes), claims + 1, max(longest, now - began)
        if found := sum(lane in small for lane in lanes):
            of_small, small_at = of_small + found, now
    return Claims(count=count, claims=claims, small=of_small, small_at=small_at, longest=longest, ended=last_at)


async def main(spec: str) -> None:
    """Claim, print what came of it."""
    claimer = msgspec.json.decode(spec, type=Claimer)
    async with await open_pool(claimer.database, "dispatcher", size=1) as pool:
        print(json.dumps(msgspec.to_builtins(await work(pool, claimer))))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
