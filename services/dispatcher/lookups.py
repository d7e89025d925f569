"""Which lookups may be under way: a dead name keeps its thread until the system gives up, whoever else has."""

import asyncio
from collections import deque
from typing import Final
from uuid import UUID

SHARE_OF_FREE: Final = 8
"""An application may have under way an eighth of what is free, or one lookup where that is none."""


class LookupPlaces:
    """Shares out places to lookups, so that whoever has few under way finds one free.

    The more applications have slow names, the fewer places each gets: of 64 one application takes at most seven, and
    sixteen together leave some to others. What an application asks for beyond that waits, while others go on.

    Args:
        most: lookups under way at the same time.
    """

    def __init__(self, most: int) -> None:
        self._free = most
        self._taken: dict[UUID, int] = {}
        self._waiting: dict[UUID, deque[asyncio.Future[None]]] = {}

    async def take(self, app: UUID) -> None:
        """Take a place for a lookup on behalf of an application, when it may have one."""
        if app not in self._waiting and self._may_take(app):
            self._give(app)
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(app, deque()).append(turn)
        try:
            await turn
        except BaseException:
            if turn.cancelled():
                self._leave(app, turn)
            else:  # its turn came in the moment in which it gave up
                self.give_back(app)
            raise

    def give_back(self, app: UUID) -> None:
        """The lookup is over."""
        self._free += 1
        left = self._taken.pop(app) - 1
        if left:
            self._taken[app] = left
        for waiting in list(self._waiting):
            if not self._free:
                break
            while waiting in self._waiting and self._may_take(waiting):
                self._serve(waiting)

    def _may_take(self, app: UUID) -> bool:
        return self._free > 0 and self._taken.get(app, 0) < max(1, self._free // SHARE_OF_FREE)

    def _give(self, app: UUID) -> None:
        self._free -= 1
        self._taken[app] = self._taken.get(app, 0) + 1

    def _serve(self, app: UUID) -> None:
        """Give a place to the first who waits; the application goes to the back of the line."""
        turns = self._waiting.pop(app)
        turn = turns.popleft()
        if turns:
            self._waiting[app] = turns
        if not turn.done():  # it may have given up, and not have left yet
            self._give(app)
            turn.set_result(None)

    def _leave(self, app: UUID, turn: "asyncio.Future[None]") -> None:
        turns = self._waiting.get(app, deque())
        if turn in turns:
            turns.remove(turn)
        if not turns:
            self._waiting.pop(app, None)
