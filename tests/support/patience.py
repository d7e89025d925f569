"""Waiting for what another process does, where it offers nothing to await."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

PATIENCE_SECONDS = 30.0
_POLL_SECONDS = 0.05

Seen = TypeVar("Seen")


async def eventually(
    look: Callable[[], Awaitable[Seen]], holds: Callable[[Seen], bool], *, within: float = PATIENCE_SECONDS
) -> Seen:
    """What `look` sees, as soon as it `holds`.

    Raises:
        AssertionError: it did not within so many seconds; with what was seen last.
    """
    deadline = asyncio.get_running_loop().time() + within
    while True:
        seen = await look()
        if holds(seen):
            return seen
        assert asyncio.get_running_loop().time() < deadline, f"after {within:.0f} s: {seen!r:.2000}"
        await asyncio.sleep(_POLL_SECONDS)
