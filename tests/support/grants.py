"""Which grants the code's statements need, asked of Postgres: it judges each statement, and forgets what was tried.

`EXPLAIN` checks permissions as running does. A grant that can be revoked without any statement failing is not used.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

import asyncpg

from libs.common.postgres.pool import SEARCH_PATH
from tests.support.statements import Statement, statements

if TYPE_CHECKING:
    from libs.common.postgres.pool import Connection

_PRIVILEGES: Final = ("SELECT", "UPDATE", "INSERT", "DELETE")
_TABLES: Final = """
    SELECT c.relnamespace::regnamespace || '.' || c.relname AS name, a.privilege_type AS privilege, 'TABLE' AS kind
    FROM pg_class c, aclexplode(c.relacl) a
    WHERE a.grantee = $1::text::regrole AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    UNION ALL
    SELECT format('%s.%s(%s)', p.pronamespace::regnamespace, p.proname, pg_get_function_identity_arguments(p.oid)),
        a.privilege_type, 'FUNCTION' FROM pg_proc p, aclexplode(p.proacl) a
    WHERE a.grantee = $1::text::regrole
    UNION ALL
    SELECT n.nspname, a.privilege_type, 'SCHEMA' FROM pg_namespace n, aclexplode(n.nspacl) a
    WHERE a.grantee = $1::text::regrole AND n.nspname <> 'hookledger' -- which everybody may look into
    ORDER BY 3, 1, 2
"""
_SEQUENCES: Final = """
    SELECT s.relnamespace::regnamespace || '.' || s.relname AS name,
        t.relnamespace::regnamespace || '.' || t.relname AS table,
        has_sequence_privilege($1, s.oid, 'USAGE') AS granted
    FROM pg_attrdef d
    JOIN pg_depend b ON b.classid = 'pg_attrdef'::regclass AND b.objid = d.oid AND b.refclassid = 'pg_class'::regclass
    JOIN pg_class s ON s.oid = b.refobjid AND s.relkind = 'S'
    JOIN pg_class t ON t.oid = d.adrelid AND NOT t.relispartition
"""


async def missing(connection: "Connection", role: str) -> list[str]:
    """For each statement of the role's that Postgres refuses, the lines that it lacks, and where it stands."""
    found: dict[str, str] = {}
    async with _Trial(connection, role) as trial:
        for statement in trial.statements:
            for line in await trial.lacks(statement):
                found.setdefault(line, statement.place)
        for sequence in await connection.fetch(_SEQUENCES, role):
            if not sequence["granted"] and trial.inserts(sequence["table"]):
                found[f"GRANT USAGE ON SEQUENCE {sequence['name']} TO {role};"] = f"INSERT INTO {sequence['table']}"
    return [f"{line}  -- {place}" for line, place in found.items()]


async def unused(connection: "Connection", role: str) -> list[str]:
    """For each grant of the role's that no statement needs, the line that takes it away."""
    found = []
    async with _Trial(connection, role) as trial:
        for grant in await connection.fetch(_TABLES, role):
            on = f"{grant['privilege']} ON {grant['kind']} {grant['name']}"
            if not await trial.needs(on, grant["name"]):
                found.append(f"REVOKE {on} FROM {role};")
        found += [
            f"REVOKE USAGE ON SEQUENCE {sequence['name']} FROM {role};"
            for sequence in await connection.fetch(_SEQUENCES, role)
            if sequence["granted"] and not trial.inserts(sequence["table"])
        ]
    return found


class _Trial:
    """A transaction in which a role's statements are judged; nothing of it stays."""

    def __init__(self, connection: "Connection", role: str) -> None:
        self._connection = connection
        self._role = role
        self._transaction = connection.transaction()
        self.statements: Sequence[Statement] = ()

    async def __aenter__(self) -> Self:
        await self._transaction.start()
        await self._connection.execute(f"SET LOCAL search_path = {SEARCH_PATH}")
        every = statements(self._role)
        # Temporary tables are the role's own: they are made, and what works on them is judged too.
        async with self._as_role():
            for statement in filter(_makes_table, every):
                await self._connection.execute(statement.text)
        self.statements = [statement for statement in every if not _makes_table(statement)]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._transaction.rollback()

    async def lacks(self, statement: Statement) -> list[str]:
        """The grants with which Postgres takes a statement that it refuses."""
        lines: list[str] = []
        savepoint = self._connection.transaction()
        await savepoint.start()
        while (refusal := await self._refusal(statement)) is not None and len(lines) < len(_PRIVILEGES) ** 2:
            kind, name = refusal
            if kind != "table":
                lines.append(f"GRANT {'EXECUTE' if kind == 'function' else 'USAGE'} ON {kind} {name} TO {self._role};")
                break
            lines.append(await self._grant(statement, name))
        await savepoint.rollback()
        return lines

    async def _grant(self, statement: Statement, table: str) -> str:
        """Grant the first privilege on the table without which the statement fails; the line for it."""
        [full] = [
            row["name"]
            for row in await self._connection.fetch(
                """
                SELECT relnamespace::regnamespace || '.' || relname AS name FROM pg_class
                WHERE relname = $1 AND relkind IN ('r', 'p')
                """,
                table,
            )
        ]
        every = ", ".join(_PRIVILEGES)
        for privilege in _PRIVILEGES:
            trying = self._connection.transaction()
            await trying.start()
            await self._connection.execute(f"GRANT {every} ON {full} TO {self._role}")
            await self._connection.execute(f"REVOKE {privilege} ON {full} FROM {self._role}")
            refused = await self._refusal(statement)
            await trying.rollback()
            held = await self._connection.fetchval(
                "SELECT has_table_privilege($1, $2, $3)", self._role, full, privilege
            )
            if refused == ("table", table) and not held:
                await self._connection.execute(f"GRANT {privilege} ON {full} TO {self._role}")
                return f"GRANT {privilege} ON {full} TO {self._role};"
        raise AssertionError(f"{statement.place}: Postgres refuses it for another reason than a grant on {full}")

    async def needs(self, on: str, name: str) -> bool:
        """Whether a statement fails without this grant."""
        short = re.split(r"[.(]", name)[1 if "." in name else 0]
        savepoint = self._connection.transaction()
        await savepoint.start()
        await self._connection.execute(f"REVOKE {on} FROM {self._role}")
        try:
            return any([await self._refusal(one) for one in self._naming(short)])
        finally:
            await savepoint.rollback()

    def inserts(self, table: str) -> bool:
        """Whether a statement inserts into the table."""
        return any(re.search(rf"INSERT INTO {re.escape(table)}\b", one.text) for one in self.statements)

    def _naming(self, name: str) -> Iterator[Statement]:
        return (one for one in self.statements if re.search(rf"\b{re.escape(name)}\b", one.text))

    async def _refusal(self, statement: Statement) -> tuple[str, str] | None:
        """What the role is denied, as Postgres calls it: ("table", "fact"); None where it may."""
        try:
            async with self._as_role():
                await self._connection.execute(f"EXPLAIN (GENERIC_PLAN) {statement.text}")
        except asyncpg.InsufficientPrivilegeError as refusal:
            kind, _, name = str(refusal).removeprefix("permission denied for ").partition(" ")
            return kind, name
        except asyncpg.PostgresError as error:
            raise AssertionError(f"{statement.place}: Postgres cannot judge it: {error}") from error
        return None

    def _as_role(self) -> "_AsRole":
        return _AsRole(self._connection, self._role)


class _AsRole:
    """A savepoint within which the role speaks."""

    def __init__(self, connection: "Connection", role: str) -> None:
        self._connection = connection
        self._role = role
        self._savepoint = connection.transaction()

    async def __aenter__(self) -> None:
        await self._savepoint.start()
        await self._connection.execute(f"SET LOCAL ROLE {self._role}")

    async def __aexit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            await self._savepoint.rollback()
            return
        await self._connection.execute("RESET ROLE")
        with suppress(asyncpg.PostgresError):
            await self._savepoint.commit()


def _makes_table(statement: Statement) -> bool:
    return statement.text.startswith("CREATE")
