"""Appending to the ledger and reading it back."""

from collections.abc import Iterable, Sequence
from uuid import UUID

import asyncpg
from msgspec import Struct

from libs.common.contracts import ledger
from libs.common.domain.facts import Fact
from libs.common.postgres.pool import Connection


class Appended(Struct, frozen=True, kw_only=True, gc=False):
    """A fact at its place: stream and version, with the columns that the ledger is searched by."""

    stream: UUID
    version: int
    app: UUID
    endpoint: UUID | None
    fact: Fact


async def append(connection: Connection, epoch: int, facts: Sequence[Appended]) -> None:
    """Append facts in one statement, inside the caller's transaction.

    Raises:
        asyncpg.UniqueViolationError: a stream already has one of these versions.
    """
    if not facts:
        return
    encoded = [ledger.encode(item.fact) for item in facts]
    await connection.execute(
        """
        INSERT INTO hookledger.fact (stream, version, epoch, app, endpoint, kind, schema, at, data)
        SELECT u.stream, u.version, $9, u.app, u.endpoint, u.kind, u.schema, u.at, u.data
        FROM unnest($1::uuid[], $2::int[], $3::uuid[], $4::uuid[], $5::text[], $6::smallint[], $7::timestamptz[],
            $8::bytea[]) AS u (stream, version, app, endpoint, kind, schema, at, data)
        """,
        [item.stream for item in facts],
        [item.version for item in facts],
        [item.app for item in facts],
        [item.endpoint for item in facts],
        [kind for kind, _, _ in encoded],
        [schema for _, schema, _ in encoded],
        [item.fact.at for item in facts],
        [data for _, _, data in encoded],
        epoch,
    )


async def read_streams(connection: Connection, streams: Iterable[UUID]) -> list[Appended]:
    """All facts of these streams, by stream and version."""
    rows = await connection.fetch(
        """
        SELECT stream, version, app, endpoint, kind, schema, at, data
        FROM hookledger.fact WHERE stream = ANY($1) ORDER BY stream, version
        """,
        list(streams),
    )
    return [appended(row) for row in rows]


def appended(row: asyncpg.Record) -> Appended:
    """The fact of a row that has the ledger's columns."""
    app, endpoint = row["app"], row["endpoint"]
    fact = ledger.decode(row["kind"], row["schema"], row["data"], at=row["at"], app=app, endpoint=endpoint)
    return Appended(stream=row["stream"], version=row["version"], app=app, endpoint=endpoint, fact=fact)
