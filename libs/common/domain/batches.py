"""Cutting a run of things into batches."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def cut(items: Iterable[Item], *, most: int, most_weight: int, weight: Callable[[Item], int]) -> Iterator[list[Item]]:
    """The items in their order, in lists of at most `most`, none heavier than `most_weight` but of a single item."""
    full: list[Item] = []
    total = 0
    for item in items:
        own = weight(item)
        if full and (len(full) == most or total + own > most_weight):
            yield full
            full, total = [], 0
        full.append(item)
        total += own
    if full:
        yield full
