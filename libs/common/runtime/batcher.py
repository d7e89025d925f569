"""The batcher: many callers, one write.

Items that arrive while a batch is being written make up the next one. The linger adapts: where items come further apart
than it is long, each is written at once; where they come closer, the first waits for company, unless that was in vain,
and no longer than company seems to come: senders who await their answers send nothing more until the batch is written.
Where more wait than a batch gains by, they are divided among the idle writers, so that such senders take turns instead
of all waiting at the same time.
A batch that fails by its content is bisected, so that one bad item fails alone; a batch that fails by its server fails
whole.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from math import inf
from typing import Final, Generic, TypeAlias, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_AFTER_WAITING_IN_VAIN: Final = 16
"""So many items are not kept waiting after one had no company: a sender who awaits each answer never brings any."""
_MISSED_ARRIVALS: Final = 4
"""Nobody else is on the way where as many would have come by now, one after another as they have come of late."""
_SHORTEST: Final = 0.0005
"""Seconds that uvloop rounds off: to wait for less is to look again at each of its turns."""
_LATELY: Final = 8
"""Over so many arrivals, the latest counting most, their distance is averaged."""

Write = Callable[[Sequence[Item]], Awaitable[Sequence[Result]]]
_Waiting: TypeAlias = tuple[Item, asyncio.Future[Result], float]
"""An item, where its result goes, and since when it waits by the loop's clock."""


class StoppedError(Exception):
    """The batcher takes no more items: its service is stopping."""


class OverdueError(Exception):
    """The item waited too long for its batch to begin, and was not written."""


class Batcher(Generic[Item, Result]):
    """Collects items and writes them in batches, one at a time for each of `writers`.

    Args:
        write: writes a batch and gives a result for each item, in their order.
        is_content_fault: whether an exception of `write` is the fault of an item; only then is the batch bisected.
        max_items: items in a batch at most.
        enough: so many items wait for no company, and what is more is divided among the writers that have nothing to
            do: a larger batch would save next to nothing. `max_items` by default.
        max_weight: sum of `weight` in a batch at most; a single heavier item goes alone.
        weight: what an item weighs, such as its bytes.
        linger: seconds that an item waits for company at most, where company is to be expected.
        writers: batches in flight at the same time.
        patience: seconds that an item waits for its batch to begin, within a tenth; None for as long as it takes.
    """

    def __init__(
        self,
        write: Write[Item, Result],
        *,
        is_content_fault: Callable[[BaseException], bool],
        max_items: int,
        enough: int | None = None,
        max_weight: int | None = None,
        weight: Callable[[Item], int] = lambda _: 0,
        linger: float = 0.003,
        writers: int = 1,
        patience: float | None = None,
    ) -> None:
        self._write = write
        self._is_content_fault = is_content_fault
        self._max_items = max_items
        self._enough = enough or max_items
        self._max_weight = max_weight
        self._weight = weight
        self._linger = linger
        self._writers = writers
        self._idle = writers
        self._patience = patience
        self._waiting: list[_Waiting[Item, Result]] = []
        self._arrived = asyncio.Event()
        self._full = asyncio.Event()
        self._last_arrival = -inf
        self._distance = linger
        self._company_expected = False
        self._in_vain = 0
        self._stopping = False

    def __len__(self) -> int:
        """Items that wait for a batch."""
        return len(self._waiting)

    async def submit(self, item: Item) -> Result:
        """Have `item` written with the next batch; its result, or the exception that its write raised.

        Raises:
            StoppedError: the batcher is stopping.
        """
        return await self.put(item)

    def put(self, item: Item) -> asyncio.Future[Result]:
        """As `submit`, for a caller that awaits later."""
        if self._stopping:
            raise StoppedError
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        now = loop.time()
        distance = now - self._last_arrival
        self._company_expected = distance <= self._linger
        self._distance += (min(distance, self._linger) - self._distance) / _LATELY
        if self._in_vain:
            self._in_vain -= 1
            self._company_expected = False
        self._last_arrival = now
        self._waiting.append((item, future, now))
        self._arrived.set()
        if len(self._waiting) >= self._enough:
            self._full.set()
        return future

    async def run(self) -> None:
        """Write batches until `stop`, then what is left. When it is cancelled, so are all who still wait."""
        try:
            async with asyncio.TaskGroup() as group:
                writers = [group.create_task(self._run_writer()) for _ in range(self._writers)]
                if self._patience is not None:
                    watch = group.create_task(self._turn_away_overdue(self._patience))
                    await asyncio.wait(writers)
                    watch.cancel()
        finally:
            self._stopping = True
            for _, future, _ in self._waiting:
                future.cancel()
            self._waiting = []

    def stop(self) -> None:
        """Take no more items; `run` ends when those in hand are written."""
        self._stopping = True
        self._arrived.set()
        self._full.set()

    async def _run_writer(self) -> None:
        while True:
            if not self._waiting:
                if self._stopping:
                    return
                self._arrived.clear()
                await self._arrived.wait()
                continue
            if self._company_expected and not self._stopping and len(self._waiting) < self._enough:
                await self._wait_for_company()
            batch = self._take()
            if batch:
                self._idle -= 1
                await self._settle(batch)
                self._idle += 1

    async def _turn_away_overdue(self, patience: float) -> None:
        """Fail what waits too long; the writers may all be held up by the server."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(patience / 10)
            late = loop.time() - patience
            overdue = 0
            while overdue < len(self._waiting) and self._waiting[overdue][2] < late:
                _fail(self._waiting[overdue][1], OverdueError())
                overdue += 1
            if overdue:
                self._waiting = self._waiting[overdue:]

    async def _wait_for_company(self) -> None:
        """Until the batch is full, no more seem to come, or the longest wait is as long as the linger."""
        loop, until = asyncio.get_running_loop(), self._waiting[0][2] + self._linger
        if until <= loop.time():
            return
        self._full.clear()
        while (look := min(until, self._last_arrival + _MISSED_ARRIVALS * self._distance)) > loop.time() + _SHORTEST:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(look):
                    await self._full.wait()
                    return
        if len(self._waiting) == 1:
            self._in_vain = _AFTER_WAITING_IN_VAIN

    def _take(self) -> list[_Waiting[Item, Result]]:
        weight = 0
        count = 0
        most = min(self._max_items, max(self._enough, -(-len(self._waiting) // self._idle)))
        for item, _, _ in self._waiting[:most]:
            weight += self._weight(item)
            if count and self._max_weight is not None and weight > self._max_weight:
                break
            count += 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch

    async def _settle(self, batch: Sequence[_Waiting[Item, Result]]) -> None:
        try:
            results = await self._write([item for item, _, _ in batch])
        except asyncio.CancelledError:
            for _, future, _ in batch:
                future.cancel()
            raise
        except Exception as error:  # noqa: BLE001  handed to the callers, who know what to do with it
            if len(batch) > 1 and self._is_content_fault(error):
                middle = len(batch) // 2
                await self._settle(batch[:middle])
                await self._settle(batch[middle:])
                return
            for _, future, _ in batch:
                _fail(future, error)
        else:
            for (_, future, _), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)


def _fail(future: "asyncio.Future[Result]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # a caller that has gone away is no reason for a warning
