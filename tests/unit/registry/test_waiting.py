"""Who waits, and for how long."""

import asyncio
from contextlib import ExitStack

from libs.common.runtime import clock
from services.registry.waiting import LOOK_SECONDS, MOST_WAITING, Waiting


async def test_beyond_so_many_nobody_waits_until_one_has_been_answered() -> None:
    waiting = Waiting()
    with ExitStack() as others:
        for _ in range(MOST_WAITING - 1):
            others.enter_context(waiting.place())
        with waiting.place(), waiting.place() as one_too_many:
            assert not await one_too_many()
        with waiting.place() as again:
            assert await again()


async def test_all_are_answered_at_once_when_the_registry_stops() -> None:
    waiting = Waiting()
    with waiting.place() as pause:
        began = clock.monotonic()
        looking = asyncio.ensure_future(pause())
        await asyncio.sleep(0)
        waiting.stop()
        assert not await looking
        assert clock.monotonic() - began < LOOK_SECONDS
