"""Whether others feel an endpoint that hangs, or the backlog of a large application."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from bench import phases
from bench.dispatch.plan import Plan
from bench.report import Measurements, percentile
from bench.run import Say
from bench.world import Application, World
from deploy.stack.errors import StackError
from libs.common.domain import ids
from libs.common.domain.ids import Prefix

RATE: Final = 200
GOOD: Final = 99
SMALL: Final = 20
_HUNG: Final = 32
"""So many attempts of the endpoint hang: its `max_inflight`."""
_POSTED: Final = 100
_HANG_MS: Final = 30_000
_FAN_OUT_A_SECOND: Final = 1_500
_WARM_SECONDS: Final = 2.0
_ALONE_SECONDS: Final = 4.0
_QUIET_SECONDS: Final = 3.0
"""After which dispatchers expect nothing fresh any more."""
_UNDER_WAY_SECONDS: Final = 1.0
"""After which the backlog's attempts are in flight, and after which they are over."""


async def beside_one_that_hangs(world: World, plan: Plan, measured: Measurements, say: Say) -> None:
    """Pairs of windows: without, and with an endpoint that has all that it may have in flight hang."""
    good = await world.applications("good", GOOD, 1)
    hanging = await world.application("hanging", ["/hang/one"], timeoutMs=_HANG_MS)
    await phases.arrivals(world, good, rate=RATE, seconds=_WARM_SECONDS)
    for number in range(plan.pairs):
        measured.ceiling("none_hangs", await _p99(world, good, plan.window))
        await world.sink.hold()
        before = await world.sink.count("hang")
        await world.post(hanging, count=_POSTED)
        await world.sink.until(before + _HUNG, "hang")
        p99 = await _p99(world, good, plan.window)
        await world.sink.let_go()
        await world.settled()
        measured.figure("dispatch_hanging_p99_ms", p99)
        say(f"fairness: pair {number + 1}: p99 {measured.last('none_hangs'):.1f} ms, beside what hangs {p99:.1f} ms")


async def beside_a_backlog(world: World, plan: Plan, measured: Measurements, say: Say) -> Application:
    """Pairs of windows: while a large application's turn is parked, and while all that it has due is sent; which one.

    It must last: what is left of it at the end is taken away.
    """
    endpoints, messages = plan.backlog
    say(f"fairness: {endpoints:,} endpoints")
    small = await world.applications("small", SMALL, 1)
    big = await world.application("big", [f"/big/{number}" for number in range(endpoints)])
    await phases.arrivals(world, small, rate=RATE, seconds=_WARM_SECONDS)
    seconds = endpoints * messages / _FAN_OUT_A_SECOND + 5
    due = datetime.now(UTC) + timedelta(seconds=seconds)
    say(f"fairness: {endpoints * messages:,} deliveries, due in {seconds:.0f} s")
    await world.post(big, count=messages, deliver_at=due.isoformat(timespec="milliseconds"))
    await asyncio.sleep((due - datetime.now(UTC)).total_seconds())
    await _park(world, big, parked=True)
    await asyncio.sleep(_UNDER_WAY_SECONDS)
    for number in range(plan.pairs):
        measured.ceiling("no_backlog", await _p99(world, small, plan.window))
        await _park(world, big, parked=False)
        await phases.arrivals(world, small, rate=RATE, seconds=_UNDER_WAY_SECONDS)
        async with _sent(world) as sent:
            p99 = await _p99(world, small, plan.window)
        await _park(world, big, parked=True)
        await asyncio.sleep(_UNDER_WAY_SECONDS)
        measured.figure("dispatch_backlog_p99_ms", p99)
        measured.figure("dispatch_backlog_beside", sent.per_second)
        say(
            f"fairness: pair {number + 1}: p99 {measured.last('no_backlog'):.1f} ms, beside the backlog {p99:.1f} ms,"
            f" which sends {sent.per_second:,.0f} a second and has {sent.left:,} left"
        )
    await _park(world, big, parked=False)
    await asyncio.sleep(_QUIET_SECONDS)
    async with _sent(world) as sent:
        await asyncio.sleep(_ALONE_SECONDS)
    measured.figure("dispatch_backlog_alone", sent.per_second)
    if not sent.left:
        raise StackError("the backlog did not last: it must be larger")
    await world.delete(big)
    return big


@dataclass(slots=True)
class _Sent:
    """Of a backlog, while somebody looked: deliveries a second, and what is left of it."""

    per_second: float = 0.0
    left: int = 0


@asynccontextmanager
async def _sent(world: World) -> AsyncIterator[_Sent]:
    async def waiting() -> int:
        count: int = await world.database.fetchval("SELECT count(*) FROM hookledger.queue WHERE owner IS NULL")
        return count

    sent = _Sent()
    before, began = await waiting(), time.monotonic()
    yield sent
    seconds = time.monotonic() - began
    sent.left = await waiting()
    sent.per_second = (before - sent.left) / seconds


async def _park(world: World, application: Application, *, parked: bool) -> None:
    """Have an application's turn come no more, or at once."""
    await world.database.execute(
        """
        UPDATE hookledger.app_turn SET not_before = u.at, ready_at = u.at
        FROM (SELECT CASE WHEN $2 THEN 'infinity' ELSE clock_timestamp() END AS at) u WHERE app = $1
        """,
        ids.decode(Prefix.APPLICATION, application.id),
        parked,
    )


async def _p99(world: World, application: Application, seconds: float) -> float:
    return percentile(await phases.arrivals(world, application, rate=RATE, seconds=seconds), 0.99)
