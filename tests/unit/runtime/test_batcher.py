"""The batcher: many callers, one write."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from libs.common.runtime.batcher import Batcher, OverdueError, StoppedError


class PoisonError(Exception):
    """An item that no batch can be written with."""


class ServerGoneError(Exception):
    """Nothing can be written now, whatever it is."""


@dataclass
class Ledger:
    """What the batcher writes into: it keeps each batch, and can be held back, poisoned or taken away."""

    batches: list[list[str]] = field(default_factory=list)
    poison: frozenset[str] = frozenset()
    gone: bool = False
    at_once: int = 0
    most_at_once: int = 0
    open: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    async def write(self, items: Sequence[str]) -> list[str]:
        self.batches.append(list(items))
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        self.begun.release()
        try:
            await self.open.wait()
        finally:
            self.at_once -= 1
        if self.gone:
            raise ServerGoneError
        if self.poison.intersection(items):
            raise PoisonError
        return [item.upper() for item in items]


def is_poison(error: BaseException) -> bool:
    return isinstance(error, PoisonError)


@asynccontextmanager
async def running(batcher: Batcher[str, str]) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        group.create_task(batcher.run())
        yield
        batcher.stop()


# Batches


async def test_an_idle_batcher_writes_at_once() -> None:
    ledger = Ledger()
    ledger.open.set()
    batcher = Batcher(ledger.write, is_content_fault=is_poison, max_items=10, linger=3600)
    async with running(batcher):
        assert await batcher.submit("a") == "A"
    assert ledger.batches == [["a"]]


async def test_an_item_that_follows_closely_waits_for_company() -> None:
    ledger = Ledger()
    ledger.open.set()
    batcher = Batcher(ledger.write, is_content_fault=is_poison, max_items=2, linger=3600)
    async with running(batcher):
        assert await batcher.submit("a") == "A"
        follower = batcher.put("b")
        assert await batcher.submit("c") == "C"
        assert await follower == "B"
    assert ledger.batches == [["a"], ["b", "c"]]


async def test_a_sender_who_awaits_each_answer_is_kept_waiting_once_in_a_while_only() -> None:
    ledger = Ledger()
    ledger.open.set()
    batcher = Batcher(ledger.write, is_content_fault=is_poison, max_items=2, linger=1)
    async with running(batcher):
        began = asyncio.get_running_loop().time()
        for item in "abcdefghij":
            await batcher.submit(item)
        assert asyncio.get_running_loop().time() - began < 2 * 1
    assert ledger.batches == [[item] for item in "abcdefghij"]


async def test_company_is_waited_for_no_longer_than_it_seems_to_come() -> None:
    """Eight senders who await their answers: when all eight have come, nobody else is on the way."""
    ledger = Ledger()
    ledger.open.set()
    batcher = Batcher(ledger.write, is_content_fault=is_poison, max_items=100, linger=0.2)

    async def send(name: str) -> None:
        for _ in range(20):
            await batcher.submit(name)

    async with running(batcher):
        began = asyncio.get_running_loop().time()
        await asyncio.gather(*map(send, "abcdefgh"))
        assert asyncio.get_running_loop().time() - began < 10 * 0.2
    assert [sorted(batch) for batch in ledger.batches[-10:]] == [[*"abcdefgh"]] * 10


async def test_what_arrives_during_a_write_makes_up_the_next() -> None:
    ledger = Ledger()
    batcher = Batcher(ledger.write, is_content_fault=is_poison, max_items=10)
    async with running(batcher):
        results = [batcher.put("a")]
        await ledger.begun.acquire()
        results += [batcher.put(item) for item in "bcd"]
        assert len(batcher) == 3
        ledger.open.set()
        assert await asyncio.gather(*results) == ["A", "B", "C", "D"]
    assert ledger.batches == [["a"], ["b", "c", "d"]]


async def test_a_batch_holds_no_more_items_than_allowed() -> None:
    ledger = Ledger()
    ledger.open.set()
    batcher = Batcher(ledger.write, is_content_fault=is_poison, max_items=2)
    results = [batcher.put(item) for item in "abcde"]
    async with running(batcher):
        await asyncio.gather(*results)
    assert ledger.batches == [["a", "b"], ["c", "d"], ["e"]]


async def test_enough_items_wait_for_no_more_company() -> None:
    ledger = Ledger()
    ledger.open.set()
    batcher = Batcher(ledger.write, is_content_fault=is_poison, max_items=10, enough=2, linger=3600)
    async with running(batcher):
        assert await batcher.submit("a") == "A"
        await asyncio.gather(batcher.put("b"), batcher.put("c"))
    assert ledger.batches == [["a"], ["b", "c"]]


async def test_what_is_more_than_enough_is_divided_among_the_idle_writers() -> None:
    ledger = Ledger()
    batcher = Batcher(ledger.write, is_content_fault=is_poison, max_items=10, enough=2, writers=2)
    results = [batcher.put(item) for item in "abcdefg"]
    async with running(batcher):
        for _ in range(2):
            await ledger.begun.acquire()
        results += [batcher.put(item) for item in "hijkl"]
        ledger.open.set()
        await asyncio.gather(*results)
    assert sorted(map(len, ledger.batches[:2])) == [3, 4]
    assert sorted("".join(map("".join, ledger.batches))) == [*"abcdefghijkl"]


async def test_one_busy_writer_leaves_the_rest_to_the_other() -> None:
    ledger = Ledger()
    batcher = Batcher(ledger.write, is_content_fault=is_poison, max_items=10, enough=2, writers=2)
    async with running(batcher):
        results = [batcher.put("a")]
        await ledger.begun.acquire()
        results += [batcher.put(item) for item in "bcdefg"]
        await ledger.begun.acquire()
        ledger.open.set()
        await asyncio.gather(*results)
    assert ledger.batches == [["a"], [*"bcdefg"]]


async def test_a_batch_weighs_no_more_than_allowed_and_a_heavy_item_goes_alone() -> None:
    ledger = Ledger()
    ledger.open.set()
    batcher = Batcher(ledger.write, is_content_fault=is_poison, max_items=10, max_weight=3, weight=len)
    results = [batcher.put(item) for item in ("a", "bb", "c", "dddd", "e")]
    async with running(batcher):
        await asyncio.gather(*results)
    assert ledger.batches == [["a", "bb"], ["c"], ["dddd"], ["e"]]


async def test_a_busy_batcher_waits_for_company_and_a_full_batch_ends_the_wait() -> None:
    ledger = Ledger()
    ledger.open.set()
    batcher = Batcher(ledger.write, is_content_fault=is_poison, max_items=3, linger=3600)
    results = [batcher.put(item) for item in "abcd"]  # the first three show that it is busy
    async with running(batcher):
        await asyncio.gather(*results[:3])
        assert not results[3].done()
        results += [batcher.put(item) for item in "ef"]
        await asyncio.gather(*results)
    assert ledger.batches == [["a", "b", "c"], ["d", "e", "f"]]


async def test_a_lonely_item_of_a_busy_batcher_waits_no_longer_than_its_linger() -> None:
    ledger = Ledger()
    ledger.open.set()
    batcher = Batcher(ledger.write, is_content_fault=is_poison, max_items=2, linger=0.001)
    results = [batcher.put(item) for item in "abc"]
    async with running(batcher):
        assert await asyncio.gather(*results) == ["A", "B", "C"]
    assert ledger.batches == [["a", "b"], ["c"]]


@pytest.mark.parametrize("writers", [1, 3])
async def test_no_more_batches_are_written_together_than_there_are_writers(writers: int) -> None:
    ledger = Ledger()
    batcher = Batcher(ledger.write, is_content_fault=is_poison, max_items=1, writers=writers)
    results = [batcher.put(item) for item in "abcdef"]
    async with running(batcher):
        for _ in range(writers):
            await ledger.begun.acquire()
        assert ledger.at_once == writers
        ledger.open.set()
        await asyncio.gather(*results)
    assert ledger.most_at_once == writers


# Failures


async def test_one_bad_item_fails_alone() -> None:
    ledger = Ledger(poison=frozenset("c"))
    ledger.open.set()
    batcher = Batcher(ledger.write, is_content_fault=is_poison, max_items=10)
    results = [batcher.put(item) for item in "abcdefg"]
    async with running(batcher):
        settled = await asyncio.gather(*results, return_exceptions=True)
    assert [isinstance(result, PoisonError) for result in settled] == [item == "c" for item in "abcdefg"]
    assert [result for result in settled if isinstance(result, str)] == list("ABDEFG")


async def test_items_that_fail_stay_in_their_order() -> None:
    ledger = Ledger(poison=frozenset("b"))
    ledger.open.set()
    batcher = Batcher(ledger.write, is_content_fault=is_poison, max_items=4)
    results = [batcher.put(item) for item in "abcd"]
    async with running(batcher):
        await asyncio.gather(*results, return_exceptions=True)
    assert ledger.batches == [list("abcd"), list("ab"), ["a"], ["b"], list("cd")]


async def test_a_batch_that_fails_by_its_server_fails_whole_and_is_not_tried_in_halves() -> None:
    ledger = Ledger(gone=True)
    ledger.open.set()
    batcher = Batcher(ledger.write, is_content_fault=is_poison, max_items=10)
    results = [batcher.put(item) for item in "abcd"]
    async with running(batcher):
        settled = await asyncio.gather(*results, return_exceptions=True)
    assert all(isinstance(result, ServerGoneError) for result in settled)
    assert ledger.batches == [list("abcd")]


async def test_after_a_failure_the_next_batch_is_written() -> None:
    ledger = Ledger(gone=True)
    ledger.open.set()
    batcher = Batcher(ledger.write, is_content_fault=is_poison, max_items=10)
    async with running(batcher):
        with pytest.raises(ServerGoneError):
            await batcher.submit("a")
        ledger.gone = False
        assert await batcher.submit("b") == "B"


async def test_a_caller_that_goes_away_takes_nobody_with_it() -> None:
    ledger = Ledger()
    batcher = Batcher(ledger.write, is_content_fault=is_poison, max_items=10)
    async with running(batcher):
        gone, stays = batcher.put("a"), batcher.put("b")
        await ledger.begun.acquire()
        gone.cancel()
        ledger.open.set()
        assert await stays == "B"


# Stopping


async def test_a_stopping_batcher_takes_no_more_items_and_writes_those_in_hand() -> None:
    ledger = Ledger()
    batcher = Batcher(ledger.write, is_content_fault=is_poison, max_items=10, linger=3600)
    async with asyncio.TaskGroup() as group:
        results = [batcher.put("a")]
        group.create_task(batcher.run())
        await ledger.begun.acquire()
        results += [batcher.put(item) for item in "bcd"]  # they would wait for company
        batcher.stop()
        with pytest.raises(StoppedError):
            await batcher.submit("e")
        ledger.open.set()
    assert await asyncio.gather(*results) == ["A", "B", "C", "D"]


async def test_an_idle_batcher_stops_at_once() -> None:
    batcher = Batcher(Ledger().write, is_content_fault=is_poison, max_items=10)
    async with asyncio.timeout(5):
        async with running(batcher):
            pass


async def test_a_cancelled_batcher_leaves_no_caller_waiting() -> None:
    ledger = Ledger()
    batcher = Batcher(ledger.write, is_content_fault=is_poison, max_items=10)
    task = asyncio.create_task(batcher.run())
    results = [batcher.put("in the batch")]
    await ledger.begun.acquire()
    results += [batcher.put("waiting")]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for result in results:
        with pytest.raises(asyncio.CancelledError):
            await result
    with pytest.raises(StoppedError):
        await batcher.submit("too late")


async def test_what_waits_too_long_for_its_batch_is_turned_away_unwritten() -> None:
    ledger = Ledger()
    batcher = Batcher(ledger.write, is_content_fault=is_poison, max_items=10, patience=0.05)
    async with running(batcher):
        begun = batcher.put("begun")
        await ledger.begun.acquire()
        with pytest.raises(OverdueError):
            await batcher.submit("late")
        ledger.open.set()
        assert await begun == "BEGUN"
    assert ledger.batches == [["begun"]]
