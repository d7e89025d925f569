"""Processor time of other processes, from /proc."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Processor:
    """The processor time of a process and its children from a moment on."""

    root: int
    at_first_ms: float
    with_children: bool = False

    @classmethod
    def of(cls, pid: int | None) -> Self:
        """Of one process, from now on."""
        assert pid is not None, "the process runs"
        return cls(pid, _used_ms([pid]))

    @property
    def since_ms(self) -> float:
        """Milliseconds used since then, in user mode and in the kernel."""
        return _used_ms(_family(self.root) if self.with_children else [self.root]) - self.at_first_ms


def tree(pid: int | None) -> Processor | None:
    """Of a process and all its children, from now on; None where there is no such process of this machine."""
    return None if pid is None else Processor(pid, _used_ms(_family(pid)), with_children=True)


def _used_ms(pids: Iterable[int]) -> float:
    """Times of these processes, those of their children that have ended included."""
    return sum(sum(int(field) for field in _stat(pid)[11:15]) for pid in pids) * _TICK_MS


def _family(root: int) -> set[int]:
    parents = {int(entry.name): _stat(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    family = {root}
    while found := {pid for pid, stat in parents.items() if stat and int(stat[1]) in family} - family:
        family |= found
    return family


def _stat(pid: int) -> list[str]:
    """The fields after the process's name; none where it has ended. See proc(5)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
