"""A part of a service that fails begins again, and takes no other with it."""

import asyncio

import pytest

from libs.common.runtime import lasting as keeping
from libs.common.runtime.lasting import lasting


class Part:
    """Fails so many times, then ends."""

    def __init__(self, failures: int) -> None:
        self.left = failures
        self.began = 0

    async def run(self) -> None:
        self.began += 1
        if self.left:
            self.left -= 1
            raise KeyError("broken")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "AGAIN_SECONDS", 0.001)


async def test_it_begins_again_until_it_ends_by_itself() -> None:
    part = Part(3)
    await lasting("tested", part.run, asyncio.Event())
    assert part.began == 4


async def test_it_does_not_begin_again_where_it_is_to_stop() -> None:
    part, stopping = Part(3), asyncio.Event()
    stopping.set()
    await lasting("tested", part.run, stopping)
    assert part.began == 1


async def test_what_fails_within_a_group_of_its_own_begins_again_too() -> None:
    part = Part(1)

    async def run() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(part.run())

    await lasting("tested", run, asyncio.Event())
    assert part.began == 2


async def test_to_be_cancelled_ends_it() -> None:
    began = asyncio.Event()

    async def run() -> None:
        began.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(lasting("tested", run, asyncio.Event()))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
