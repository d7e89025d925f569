"""Whether others feel an endpoint that hangs, or the backlog of a large application."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Final

from bench import phases
from bench.dispatch.plan import Plan
from bench.report import Measurements, percentile
from bench.run import Say
from bench.world import Application, World

RATE: Final = 200
GOOD: Final = 99
SMALL: Final = 20
_HUNG: Final = 32
"""So many attempts of the endpoint hang: its `max_inflight`."""
_POSTED: Final = 100
_HANG_MS: Final = 30_000
_FAN_OUT_A_SECOND: Final = 1_500
_WARM_SECONDS: Final = 2.0
_WINDOWS: Final = 3
"""At most, before the backlog and beside it: it must last."""


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
    """Windows before, and windows while a large application's deliveries are all due; which one it is."""
    endpoints, messages = plan.backlog
    say(f"fairness: {endpoints:,} endpoints")
    small = await world.applications("small", SMALL, 1)
    big = await world.application("big", [f"/big/{number}" for number in range(endpoints)])
    await phases.arrivals(world, small, rate=RATE, seconds=_WARM_SECONDS)
    alone = [await _p99(world, small, plan.window) for _ in range(min(_WINDOWS, plan.pairs))]
    seconds = endpoints * messages / _FAN_OUT_A_SECOND + 5
    due = datetime.now(UTC) + timedelta(seconds=seconds)
    say(f"fairness: {endpoints * messages:,} deliveries, due in {seconds:.0f} s")
    await world.post(big, count=messages, deliver_at=due.isoformat(timespec="milliseconds"))
    await asyncio.sleep((due - datetime.now(UTC)).total_seconds())
    for before in alone:
        p99 = await _p99(world, small, plan.window)
        measured.ceiling("no_backlog", before)
        measured.figure("dispatch_backlog_p99_ms", p99)
        left = await world.database.fetchval("SELECT count(*) FROM hookledger.queue")
        say(f"fairness: p99 {before:.1f} ms, beside the backlog {p99:.1f} ms; {left:,} are left of it")
    await world.delete(big)
    return big


async def _p99(world: World, application: Application, seconds: float) -> float:
    return percentile(await phases.arrivals(world, application, rate=RATE, seconds=seconds), 0.99)
