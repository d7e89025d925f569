"""Failpoints: named places at which a fault test ends or freezes a process, exactly there.

Off, unless `HOOKLEDGER_FAILPOINTS` names a folder. A test arms a point by a file of its name in that folder, which
holds the action and how often the point is reached before it acts (`kill`, or `freeze 3`). The process that acts first
renames the file to `<point>.hit`, so that the test knows. `clock` in the same folder holds seconds by which this
process's wall clock is off.
Source of the idea: FreeBSD's fail(9).
"""

import os
import signal
from collections import Counter
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final


class Failpoint(StrEnum):
    """The places. Each is reached once for a batch, not for each of its messages, but for `ATTEMPT_SENT`."""

    ACCEPT_IN_TRANSACTION = "accept.in-transaction"
    ACCEPT_COMMITTED = "accept.committed"
    ENVELOPE_CONFIRMED = "envelope.confirmed"
    FAN_OUT_IN_TRANSACTION = "fan-out.in-transaction"
    FAN_OUT_COMMITTED = "fan-out.committed"
    CLAIM_IN_TRANSACTION = "claim.in-transaction"
    CLAIM_COMMITTED = "claim.committed"
    ATTEMPT_SENT = "attempt.sent"
    RECORD_IN_TRANSACTION = "record.in-transaction"
    RECORD_COMMITTED = "record.committed"
    RECLAIM_IN_TRANSACTION = "reclaim.in-transaction"
    FOLLOWER_PUBLISHED = "follower.published"
    CHANGE_COMMITTED = "change.committed"
    REBUILD_CHUNK = "rebuild.chunk"
    RETAIN_STEP = "retain.step"


CLOCK: Final = "clock"
HIT: Final = ".hit"
_SIGNALS: Final = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP}
_NO_STEP: Final = timedelta(0)

_folder: Path | None = None
_reached: Final[Counter[Failpoint]] = Counter()


def enable(folder: str) -> None:
    """Look for armed points in `folder` from now on; an empty name turns them off."""
    global _folder  # noqa: PLW0603  one process, one switch
    _folder = Path(folder) if folder else None
    _reached.clear()


def reach(point: Failpoint) -> None:
    """Go on, unless the point is armed: then this process is killed here, or frozen until it gets SIGCONT."""
    if _folder is not None:
        _act(_folder / point, point)


def clock_step() -> timedelta:
    """By how much the wall clock of this process is off."""
    if _folder is None:
        return _NO_STEP
    try:
        return timedelta(seconds=float((_folder / CLOCK).read_text(encoding="ascii")))
    except (FileNotFoundError, ValueError):
        return _NO_STEP


def _act(armed: Path, point: Failpoint) -> None:
    try:
        action, _, after = armed.read_text(encoding="ascii").partition(" ")
    except FileNotFoundError:
        _reached.pop(point, None)  # whoever arms it again counts anew
        return
    _reached[point] += 1
    if _reached[point] < int(after or 1):
        return
    try:
        armed.rename(armed.with_name(f"{armed.name}{HIT}"))
    except FileNotFoundError:  # another replica was first
        return
    _reached[point] = 0
    os.kill(os.getpid(), _SIGNALS[action])
