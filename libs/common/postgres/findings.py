"""What a comparison found."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import asyncpg

Say: TypeAlias = Callable[[str], None]
Row: TypeAlias = Mapping[str, Any] | asyncpg.Record


@dataclass(slots=True, kw_only=True)
class Findings:
    """What was compared, and how many rows or fields differ; each of them is said as one line."""

    say: Say
    deliveries: int = 0
    attempts: int = 0
    registry_objects: int = 0
    lanes: int = 0
    statistics: int = 0
    endpoints: int = 0
    differences: int = 0

    @property
    def counted(self) -> str:
        """What was compared, in words."""
        return (
            f"{self.deliveries} deliveries, {self.attempts} attempts, {self.registry_objects} registry objects,"
            f" {self.lanes} lanes, {self.statistics} rows of statistics, health of {self.endpoints} endpoints"
        )

    def differ(self, what: str, identity: Any, how: str) -> None:
        """One row or field of `what` is not as it ought to be."""
        self.differences += 1
        name = " ".join(str(part) for part in identity) if isinstance(identity, tuple) else str(identity)
        self.say(f"{what} {name}: {how}")

    def compare(self, what: str, expected: Mapping[Any, Row], found: Mapping[Any, Row]) -> None:
        """Compare rows by their keys, and of each row the columns that are expected."""
        for identity, wanted in expected.items():
            row = found.get(identity)
            if row is None:
                self.differ(what, identity, "in the ledger, not in the projection")
                continue
            for column, value in wanted.items():
                if row[column] != value:
                    self.differ(what, identity, f"{column} is {row[column]!s}, the ledger says {value!s}")
        for identity in found.keys() - expected.keys():
            self.differ(what, identity, "in the projection, not in the ledger")
