"""Processor time and memory of other processes, from /proc."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

_TICK_US: Final = 1_000_000 / os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Used:
    """Microseconds of processor time by part of the platform, each part a process with its children."""

    us: Mapping[str, float]

    @classmethod
    def by(cls, parts: Mapping[str, int]) -> Self:
        """What the process of each part and its children have used since they began, those that ended included."""
        families = _families(parts.values())
        return cls({name: sum(map(_used, families[pid])) * _TICK_US for name, pid in parts.items()})

    def since(self, before: "Used", count: int) -> dict[str, float]:
        """What each part has used since then, for each of `count`."""
        return {name: (us - before.us[name]) / count for name, us in self.us.items()}


def resident_mib(pid: int) -> float:
    """Memory of one process that is not swapped out, what it shares with others included; 0 where it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE / _MIB
    except OSError:
        return 0.0


def _used(pid: int) -> int:
    """User and kernel time in ticks, and that of its children that have ended and were waited for."""
    return sum(int(field) for field in _stat(pid)[11:15])


def _families(roots: Iterable[int]) -> dict[int, set[int]]:
    parents = {int(entry.name): _stat(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    families = {}
    for root in roots:
        family = {root}
        while found := {pid for pid, stat in parents.items() if stat and int(stat[1]) in family} - family:
            family |= found
        families[root] = family
    return families


def _stat(pid: int) -> list[str]:
    """The fields after the process's name; none where it has ended. See proc(5)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
