"""Fixtures of the dispatcher's tests: the sender on both event loops, and the parts of a dispatcher in this process."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from services.dispatcher.senders import SENDERS
from tests.integration.dispatcher.sending import SenderOf
from tests.integration.dispatcher.world import World, world_in
from tests.support.certificates import write_certificate

OnLoop = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def on_loop(request: pytest.FixtureRequest) -> OnLoop:
    """Runs a scenario on a loop of its own: the standard one, and the one that the services run on."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def run(scenario: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(scenario)

    return run


@pytest.fixture(params=sorted(SENDERS))
def sender(request: pytest.FixtureRequest) -> SenderOf:
    """Makes the sender that a scenario is run with: each of them has to pass."""
    return SenderOf(request.param)


@pytest.fixture
async def world(database: str) -> AsyncIterator[World]:
    """An organisation of this test's own; when the test is over, the projections must equal the fold of the ledger."""
    async with world_in(database) as world:
        yield world
        await world.assert_verified()
        await world.clear()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key."""
    file = tmp_path_factory.mktemp("tls") / "receiver.pem"
    write_certificate(file)
    return file
