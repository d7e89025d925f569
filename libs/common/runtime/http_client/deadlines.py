"""Deadlines of many futures, by one timer: it is set for the earliest of them, and seldom has to move."""

import asyncio
from math import inf
from typing import Final

_COARSE_SECONDS: Final = 0.001  # uvloop's timers are of milliseconds, and may be early by less than one


class Deadlines:
    """Futures that fail with `TimeoutError` when their time has come.

    To watch one costs an entry in a dictionary, not a timer: with timeouts of a like length, most deadlines are later
    than the one that the timer is set for, and are forgotten before it fires.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._watched: dict[asyncio.Future[None], float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._set_for = inf

    def watch(self, future: "asyncio.Future[None]", at: float) -> None:
        """Until `at`, by the loop's clock, or until it is forgotten."""
        self._watched[future] = at
        if at < self._set_for:
            self._set(at)

    def forget(self, future: "asyncio.Future[None]") -> None:
        """It is over, one way or another."""
        del self._watched[future]

    def close(self) -> None:
        """Set no timer any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._set_for = at
        self._timer = self._loop.call_at(at, self._fire)

    def _fire(self) -> None:
        self._timer, self._set_for = None, inf
        due = self._loop.time() + _COARSE_SECONDS
        earliest = inf
        for future, at in self._watched.items():
            if future.done():
                continue
            if at <= due:
                future.set_exception(TimeoutError())
            elif at < earliest:
                earliest = at
        if earliest < inf:
            self._set(earliest)
