"""How far a long command has come: a bar on a terminal, elsewhere a line at each tenth."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

_TENTHS: Final = 10


@contextmanager
def showing(name: str, say: Callable[[str], None]) -> "Iterator[Bar | Lines]":
    """Progress as standard output can show it; `say` takes the lines."""
    console = Console()
    if not console.is_terminal:
        yield Lines(name, say)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        yield Bar(progress, progress.add_task(name, total=None))


class Bar:
    """A bar on a terminal."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def begin(self, total: int) -> None:
        """Begin to show progress towards `total` steps."""
        self._progress.update(self._task, total=total)

    def advance(self, steps: int) -> None:
        """So many more are done."""
        self._progress.advance(self._task, steps)


class Lines:
    """A line for each tenth that is done."""

    def __init__(self, name: str, say: Callable[[str], None]) -> None:
        self._name = name
        self._say = say
        self._total = 0
        self._done = 0
        self._said = 0

    def begin(self, total: int) -> None:
        """Begin to say progress towards `total` steps."""
        self._total = total

    def advance(self, steps: int) -> None:
        """So many more are done; those beyond the total were not known of at its beginning."""
        self._done = min(self._done + steps, self._total)
        tenths = _TENTHS * self._done // self._total if self._total else _TENTHS
        if tenths > self._said:
            self._said = tenths
            self._say(f"{self._name}: {100 * tenths // _TENTHS} %")
