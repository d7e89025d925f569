"""Ctrl-C and SIGTERM while a command runs that has started something: that is stopped, once, without a traceback."""

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def interruptible(name: str, command: Callable[[], int]) -> int:
    """Run a command that stops what it has started as it ends, whether it is interrupted or not; returns its exit code.

    Its tasks are cancelled, where it runs a loop. Another signal while it stops all that would leave half of it
    running, and is not heard. What an interrupted command raises is told in a line.
    """
    interrupted = False

    def interrupt(*_: object) -> None:
        nonlocal interrupted
        interrupted = True
        ignore_interrupts()
        _say(f"{name}: interrupted: stopping what was started")
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise KeyboardInterrupt from None
        loop.call_soon_threadsafe(_cancel_all, loop)

    _hear(interrupt)
    try:
        return command()
    except BaseException as error:
        if not interrupted:
            raise
        if not isinstance(error, KeyboardInterrupt | asyncio.CancelledError):
            _say(f"{name}: {type(error).__name__}: {error}")
        _say(f"{name}: everything that was started is stopped")
        return INTERRUPTED


def ignore_interrupts() -> None:
    """From now on: what is ending already would only be cut short."""
    _hear(signal.SIG_IGN)


@contextmanager
def ending_undisturbed() -> Iterator[None]:
    """After this block, while what was started before it is stopped, interrupts are ignored."""
    try:
        yield
    finally:
        ignore_interrupts()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()


def _hear(handler: Callable[[int, FrameType | None], object] | signal.Handlers) -> None:
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as a shell has it for what runs in its background
            signal.signal(number, handler)
