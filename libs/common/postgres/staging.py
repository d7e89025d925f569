"""A projected table, and beside it the rows that it ought to have.

The rows are staged in a temporary table of the session, which is empty again when the transaction ends. Names of tables
and columns are constants of this package.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final
from uuid import UUID

from libs.common.postgres.pool import Connection


class Staging:
    """One projected table.

    Args:
        table: its name, with its schema's.
        key: the columns of its primary key; the first of them is an id by which rows are chosen.
        columns: its other columns.
    """

    def __init__(self, table: str, *, key: Sequence[str], columns: Sequence[str]) -> None:
        self._name: Final = "staged_" + table.rpartition(".")[2]
        self._columns: Final = (*key, *columns)
        names = ", ".join(self._columns)
        same_key = " AND ".join(f"s.{name} = t.{name}" for name in key)
        staged, found = (", ".join(f"{alias}.{name}" for name in columns) for alias in "st")
        self._create = f"CREATE TEMP TABLE {self._name} (LIKE {table}) ON COMMIT DELETE ROWS"
        self._insert = f"""
            INSERT INTO {table} ({names}) SELECT {names} FROM {self._name}
            ON CONFLICT DO NOTHING RETURNING {key[0]} AS id
        """  # noqa: S608  names that are constants
        self._update = f"""
            UPDATE {table} t SET ({", ".join(columns)}) = ROW ({staged}) FROM {self._name} s
            WHERE {same_key} AND t.{key[0]} = ANY($1) AND ({staged}) IS DISTINCT FROM ({found})
            RETURNING t.{key[0]} AS id
        """  # noqa: S608  names that are constants
        self._delete = f"""
            DELETE FROM {table} t WHERE t.{key[0]} = ANY($1) AND NOT EXISTS (
                SELECT FROM {self._name} s WHERE {same_key} AND ({staged}) IS NOT DISTINCT FROM ({found})
            ) RETURNING t.{key[0]} AS id
        """  # noqa: S608  names that are constants

    async def create(self, connection: Connection) -> None:
        """Make the session's temporary table."""
        await connection.execute(self._create)

    async def stage(self, connection: Connection, rows: Iterable[Sequence[Any]]) -> None:
        """These rows ought to be in the table; their values in the order of key and columns."""
        await connection.copy_records_to_table(self._name, columns=self._columns, records=rows)

    async def insert_missing(self, connection: Connection) -> list[UUID]:
        """Insert the staged rows whose keys the table has not; an id for each of them."""
        return [row["id"] for row in await connection.fetch(self._insert)]

    async def update_different(self, connection: Connection, ids: Sequence[UUID]) -> list[UUID]:
        """Bring rows of these ids to what is staged, in place; an id for each that was different."""
        return [row["id"] for row in await connection.fetch(self._update, ids)]

    async def delete_different(self, connection: Connection, ids: Sequence[UUID]) -> list[UUID]:
        """Delete rows of these ids that are not exactly as staged; an id for each of them."""
        return [row["id"] for row in await connection.fetch(self._delete, ids)]


def values(row: Any, columns: Iterable[str]) -> tuple[Any, ...]:
    """The attributes of a folded row that are columns, in their order."""
    return tuple(getattr(row, name) for name in columns)
