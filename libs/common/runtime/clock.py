"""The one place where time and chance enter.

The wall clock is the database's: each service follows it (`follow`), and goes on from there by its own monotonic clock.
So several machines sign and judge by one time, and a step of a machine's clock changes nothing. Only until a service
has first asked its database does its machine's own clock count.
"""

import os
import random  # noqa: TID251  this is the clock
import time
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Final
from uuid import UUID

from libs.common.domain import ids
from libs.common.runtime.failpoints import clock_step

SLOWEST_ANSWER_SECONDS: Final = 0.5
"""An answer that took longer says too little of when it was given."""
_CHANCE: Final = random.Random()  # noqa: S311  spreads retries, and keeps nothing secret

_ENTROPY_BYTES: Final = 4096

_entropy = BytesIO()
_reference: tuple[datetime, float, float] | None = None
"""A time of the database's, the same in milliseconds since 1970, and when it was, by the monotonic clock."""


def follow(database: datetime, *, asked: float) -> None:
    """Go by the database's clock from now on.

    Args:
        database: its time (aware), just answered.
        asked: `monotonic()` before it was asked; it is taken to have answered halfway between then and now.
    """
    global _reference  # noqa: PLW0603  one process, one clock
    answered = monotonic()
    if _reference is None or answered - asked <= SLOWEST_ANSWER_SECONDS:
        _reference = database, database.timestamp() * 1000, (asked + answered) / 2


def now() -> datetime:
    """The wall clock, in UTC. The ledger's times are by it, or the database's own where a transaction asks for that."""
    if _reference is None:
        return datetime.now(UTC) + clock_step()  # noqa: TID251  this is the clock
    database, _, at = _reference
    return database + timedelta(0, monotonic() - at)  # seconds; named, they would take half as long again


def unix_ms() -> int:
    """Milliseconds since 1970, by the wall clock."""
    if _reference is None:
        return int(now().timestamp() * 1000)
    _, database, at = _reference
    return int(database + (monotonic() - at) * 1000)


def monotonic() -> float:
    """Seconds on a clock that never steps; for deadlines and durations within this process."""
    return time.monotonic()  # noqa: TID251  this is the clock


def new_id() -> UUID:
    """A fresh time-ordered id."""
    return ids.time_ordered(unix_ms(), entropy(10))


def jitter() -> float:
    """Chance in [-1, 1]."""
    return _CHANCE.uniform(-1.0, 1.0)


def random_bytes(count: int) -> bytes:
    """Bytes fit for keys."""
    return os.urandom(count)


def entropy(count: int) -> bytes:
    """Bytes that tell ids and salts apart: as unforeseeable as `random_bytes`, but asked for many at a time."""
    global _entropy  # noqa: PLW0603  one process, one source
    taken = _entropy.read(count)  # one step, so that no two threads are given the same
    while len(taken) < count:
        _entropy = BytesIO(os.urandom(_ENTROPY_BYTES))
        taken = _entropy.read(count)
    return taken


def _forget_entropy() -> None:
    global _entropy  # noqa: PLW0603  one process, one source
    _entropy = BytesIO()


os.register_at_fork(after_in_child=_forget_entropy)
