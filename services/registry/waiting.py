"""Requests that wait for what is not there yet."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

from libs.common.runtime import clock
from libs.common.runtime.waiting import set_within

WAIT_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 0.5
MOST_WAITING: Final = 64


class Waiting:
    """Those who wait for an answer, holding no connection to the database while they do.

    Beyond `MOST_WAITING` nobody waits: they are answered at once, so that listeners never use up what ingress has of
    connections to the registry.
    """

    def __init__(self) -> None:
        self._stopping = asyncio.Event()
        self._count = 0

    def stop(self) -> None:
        """Answer all of them now."""
        self._stopping.set()

    @contextmanager
    def place(self) -> Iterator[Callable[[], Awaitable[bool]]]:
        """A wait for a moment; it tells whether there is time left to wait again."""
        until = clock.monotonic() + (WAIT_SECONDS if self._count < MOST_WAITING else 0)
        self._count += 1

        async def pause() -> bool:
            return clock.monotonic() < until and not await set_within(self._stopping, LOOK_SECONDS)

        try:
            yield pause
        finally:
            self._count -= 1
