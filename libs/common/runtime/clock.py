"""The one place where time and chance enter."""

import os
import random  # noqa: TID251  this is the clock
import time
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from libs.common.domain import ids
from libs.common.runtime.failpoints import clock_step

_CHANCE: Final = random.SystemRandom()


def now() -> datetime:
    """The wall clock, in UTC. What the ledger records takes the database's clock instead."""
    return datetime.now(UTC) + clock_step()  # noqa: TID251  this is the clock


def unix_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000 + int(clock_step().total_seconds() * 1000)


def monotonic() -> float:
    """Seconds on a clock that never steps; for deadlines and durations within this process."""
    return time.monotonic()  # noqa: TID251  this is the clock


def new_id() -> UUID:
    """A fresh time-ordered id."""
    return ids.time_ordered(unix_ms(), os.urandom(10))


def jitter() -> float:
    """Chance in [-1, 1]."""
    return _CHANCE.uniform(-1.0, 1.0)


def random_bytes(count: int) -> bytes:
    """Bytes fit for keys and salts."""
    return os.urandom(count)
