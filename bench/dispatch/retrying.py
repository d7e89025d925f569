"""A thousand retries due each second: how late each is sent."""

import time
from typing import Final

from bench import phases
from bench.dispatch.plan import Plan
from bench.report import Measurements
from bench.run import Say
from bench.world import World

DUE_A_SECOND: Final = 1_000
_POSTED_A_SECOND: Final = 250
_APPLICATIONS: Final = 100
"""So many, so that no endpoint comes to its `max_inflight`."""
_MADE_SECONDS: Final = 8.0
_PAUSE_SECONDS: Final = 4.0
"""Between the last message and the first retry."""

SETTINGS: Final = {"BREAKER_FAILURES": "0"}
"""To whom every message fails at first, a breaker would let but a probe through."""


async def measure(world: World, plan: Plan, measured: Measurements, say: Say) -> None:
    """Have the receiver refuse each message once, and ask for all of them to come again at this rate."""
    say(f"retries: {plan.retries:,}, {DUE_A_SECOND:,} due each second")
    begin = time.time() + _MADE_SECONDS + plan.retries / _POSTED_A_SECOND + _PAUSE_SECONDS
    application = await world.applications(
        f"due/{begin:.0f}/{DUE_A_SECOND}", _APPLICATIONS, 1, retrySchedule=[1.0, 1.0, 1.0]
    )
    found = await phases.retries(world, application, deliveries=plan.retries, rate=float(_POSTED_A_SECOND))
    measured.figure("dispatch_retries_due", found.per_second)
    phases.note_latencies(measured, "dispatch_retries", found.late_ms)
