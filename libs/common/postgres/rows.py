"""Rows as parameters of a statement: an array for each column, which `unnest` makes rows of again.

Each value costs about as much to pass as it costs to be written. So what many rows have in common is passed once.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

Values = TypeVar("Values", bound=tuple[Any, ...])


class Columns:
    """The columns of rows that a statement takes, by name, with their types; `unnested` has them in this order."""

    def __init__(self, **types: str) -> None:
        self._types = types

    def __len__(self) -> int:
        """How many parameters they take."""
        return len(self._types)

    def unnested(self, alias: str, *, first: int) -> str:
        """SQL for the rows under `alias`, from the parameters beginning with `$first`."""
        return f"unnest({', '.join(self._parameters(first))}) AS {alias} ({', '.join(self._types)})"

    def picked(self, number: str, *, first: int) -> str:
        """SQL for the values of one row, each under its name: the row that the expression `number` counts from 1.

        Postgres goes through an array of texts to come to one, so that this is for few rows.
        """
        named = zip(self._parameters(first), self._types, strict=True)
        return ", ".join(f"({parameter})[{number}] AS {name}" for parameter, name in named)

    def _parameters(self, first: int) -> list[str]:
        return [f"${number}::{kind}[]" for number, kind in enumerate(self._types.values(), start=first)]

    def arrays(self, rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
        """The parameters for rows whose values are in the order of the columns."""
        found = [list(column) for column in zip(*rows, strict=True)]
        return found or [[] for _ in self._types]


class Shared(Generic[Values]):
    """What rows have in common: each combination of values is a row of its own, which the others name by its number."""

    def __init__(self) -> None:
        self._numbers: dict[Values, int] = {}

    def __iter__(self) -> Iterator[Values]:
        """The combinations, in the order of their numbers."""
        return iter(self._numbers)

    def number(self, values: Values) -> int:
        """The number of a combination, from 1."""
        return self._numbers.setdefault(values, len(self._numbers) + 1)
