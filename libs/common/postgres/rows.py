"""Rows as parameters of a statement: an array for each column, which `unnest` makes rows of again."""

from collections.abc import Iterable, Sequence
from typing import Any


class Columns:
    """The columns of rows that a statement takes, by name, with their types; `unnested` has them in this order."""

    def __init__(self, **types: str) -> None:
        self._types = types

    def __len__(self) -> int:
        """How many parameters they take."""
        return len(self._types)

    def unnested(self, alias: str, *, first: int) -> str:
        """SQL for the rows under `alias`, from the parameters beginning with `$first`."""
        arrays = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(self._types.values(), start=first))
        return f"unnest({arrays}) AS {alias} ({', '.join(self._types)})"

    def arrays(self, rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
        """The parameters for rows whose values are in the order of the columns."""
        found = [list(column) for column in zip(*rows, strict=True)]
        return found or [[] for _ in self._types]
