"""Fixtures of the dispatcher's tests: the sender on both event loops, and the parts of a dispatcher in this process."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
import uvloop

from tests.integration.dispatcher.world import World, world_in

OnLoop = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def on_loop(request: pytest.FixtureRequest) -> OnLoop:
    """Runs a scenario on a loop of its own: the standard one, and the one that the services run on."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def run(scenario: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(scenario)

    return run


@pytest.fixture
async def world(database: str) -> AsyncIterator[World]:
    """An organisation of this test's own; when the test is over, the projections must equal the fold of the ledger."""
    async with world_in(database) as world:
        yield world
        await world.assert_verified()
        await world.clear()
