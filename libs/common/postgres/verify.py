"""Comparing the projections with the fold of the ledgers, row by row, while the system runs.

The streams are read in chunks of their ids. All that belongs to a chunk, facts and projected rows, is read in one
repeatable-read transaction and so at one instant; the transactions stay short, because an open snapshot holds back
vacuum and every follower of the ledger. What is born after verifying began is left to the next time.
"""

import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from itertools import groupby
from typing import Any, Final
from uuid import UUID

import asyncpg

from libs.common.contracts import registry as documents
from libs.common.domain.attempts import AttemptRow, attempt_rows
from libs.common.domain.delivery import Delivery
from libs.common.domain.delivery import fold as fold_delivery
from libs.common.domain.facts import DeliveryFact, MessageAccepted, MessageFannedOut
from libs.common.postgres import registry
from libs.common.postgres.ledger import Appended, appended
from libs.common.postgres.pool import Connection, Pool
from libs.common.postgres.registry import RegistryFact

CHUNK_STREAMS: Final = 1000

_DELIVERY_COLUMNS: Final = tuple(field.name for field in fields(Delivery))
_ATTEMPT_COLUMNS: Final = tuple(field.name for field in fields(AttemptRow))
_NOWHERE: Final = UUID(int=0)

Say = Callable[[str], None]
Row = Mapping[str, Any]


@dataclass(slots=True, kw_only=True)
class Findings:
    """What was compared, and how many rows or fields differ."""

    deliveries: int = 0
    attempts: int = 0
    registry_objects: int = 0
    differences: int = 0

    @property
    def counted(self) -> str:
        """What was compared, in words."""
        return f"{self.deliveries} deliveries, {self.attempts} attempts, {self.registry_objects} registry objects"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chunk:
    """The streams with ids above `after`, up to and including `last`."""

    after: UUID
    last: UUID


async def verify_database(pool: Pool, say: Say) -> Findings:
    """Compare everything; each difference is said as one line.

    Raises:
        UnknownFactError: the ledger was written by a newer version.
    """
    findings = Findings()
    async with pool.acquire() as connection:
        async for chunk in _chunks(connection, _NEXT_STREAMS, _LAST_STREAM):
            await _verify_deliveries(connection, chunk, findings, say)
        async for chunk in _chunks(connection, _NEXT_OBJECTS, _LAST_OBJECT):
            await _verify_registry(connection, chunk, findings, say)
    return findings


_LAST_STREAM: Final = """
    SELECT id FROM (
        (SELECT stream AS id FROM hookledger.fact ORDER BY stream DESC LIMIT 1)
        UNION ALL (SELECT delivery FROM projection_1.delivery_state ORDER BY delivery DESC LIMIT 1)
        UNION ALL (SELECT delivery FROM projection_1.attempt ORDER BY delivery DESC LIMIT 1)
    ) newest ORDER BY id DESC LIMIT 1
"""
_NEXT_STREAMS: Final = """
    SELECT id FROM (
        (SELECT DISTINCT stream AS id FROM hookledger.fact WHERE stream > $1 ORDER BY stream LIMIT $2)
        UNION (SELECT delivery FROM projection_1.delivery_state WHERE delivery > $1 ORDER BY delivery LIMIT $2)
    ) next ORDER BY id OFFSET $2 - 1 LIMIT 1
"""
_LAST_OBJECT: Final = """
    SELECT id FROM (
        (SELECT stream AS id FROM hookledger.registry_fact ORDER BY stream DESC LIMIT 1)
        UNION ALL (SELECT id FROM hookledger.registry_object ORDER BY id DESC LIMIT 1)
    ) newest ORDER BY id DESC LIMIT 1
"""
_NEXT_OBJECTS: Final = """
    SELECT id FROM (
        (SELECT DISTINCT stream AS id FROM hookledger.registry_fact WHERE stream > $1 ORDER BY stream LIMIT $2)
        UNION (SELECT id FROM hookledger.registry_object WHERE id > $1 ORDER BY id LIMIT $2)
    ) next ORDER BY id OFFSET $2 - 1 LIMIT 1
"""


async def _chunks(connection: Connection, next_ids: str, last_id: str) -> AsyncIterator[_Chunk]:
    """Ranges of ids that hold about `CHUNK_STREAMS` streams each and, together, all that there are now."""
    newest: UUID | None = await connection.fetchval(last_id)
    after = _NOWHERE
    while newest is not None and after < newest:
        end: UUID | None = await connection.fetchval(next_ids, after, CHUNK_STREAMS)
        last = newest if end is None or end > newest else end
        yield _Chunk(after=after, last=last)
        after = last


async def _verify_deliveries(connection: Connection, chunk: _Chunk, findings: Findings, say: Say) -> None:
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        facts = await connection.fetch(
            """
            SELECT stream, version, app, endpoint, kind, schema, at, data
            FROM hookledger.fact WHERE stream > $1 AND stream <= $2 ORDER BY stream, version
            """,
            chunk.after,
            chunk.last,
        )
        states = await connection.fetch(
            """
            SELECT delivery, app, message, endpoint, status, version, run, attempts, failures, unknowns, attempt,
                process, last_status, due_at, created_at, updated_at
            FROM projection_1.delivery_state WHERE delivery > $1 AND delivery <= $2
            """,
            chunk.after,
            chunk.last,
        )
        attempts = await connection.fetch(
            """
            SELECT delivery, attempt, app, message, endpoint, run, number, trigger, config_version, signing_key,
                process, result, status, failure, url, peer, sends, total_us, started_at, ended_at
            FROM projection_1.attempt WHERE delivery > $1 AND delivery <= $2
            """,
            chunk.after,
            chunk.last,
        )
    folded: dict[UUID, Row] = {}
    ended: dict[tuple[UUID, UUID], Row] = {}
    for stream, rows in groupby(map(appended, facts), key=lambda item: item.stream):
        try:
            delivery = _delivery_facts(list(rows))
            if delivery:
                folded[stream] = _columns(fold_delivery(delivery), _DELIVERY_COLUMNS)
                ended |= {
                    (stream, row.attempt): _columns(row, _ATTEMPT_COLUMNS) for row in attempt_rows(stream, delivery)
                }
        except ValueError as error:
            findings.differences += 1
            say(f"delivery {stream}: its stream cannot be folded: {error}")
    findings.deliveries += len(folded)
    findings.attempts += len(ended)
    findings.differences += _compare("delivery", folded, {row["delivery"]: row for row in states}, say)
    findings.differences += _compare(
        "attempt", ended, {(row["delivery"], row["attempt"]): row for row in attempts}, say
    )


async def _verify_registry(connection: Connection, chunk: _Chunk, findings: Findings, say: Say) -> None:
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        facts = await connection.fetch(
            """
            SELECT stream, version, org, app, kind, at, registry_version, data
            FROM hookledger.registry_fact WHERE stream > $1 AND stream <= $2 ORDER BY stream, version
            """,
            chunk.after,
            chunk.last,
        )
        objects = await connection.fetch(
            """
            SELECT id, kind, org, app, uid, version, registry_version, created_at, updated_at, deleted_at, data
            FROM hookledger.registry_object WHERE id > $1 AND id <= $2
            """,
            chunk.after,
            chunk.last,
        )
    folded: dict[UUID, Row] = {}
    for stream, rows in groupby(facts, key=lambda row: row["stream"]):
        try:
            versions = [RegistryFact(**dict(row)) for row in rows]
            _check_versions([fact.version for fact in versions])
            item = registry.fold(versions)
        except ValueError as error:
            findings.differences += 1
            say(f"registry object {stream}: its stream cannot be folded: {error}")
            continue
        columns = {name: getattr(item, name) for name in _OBJECT_COLUMNS}
        folded[stream] = columns | {"data": _exact(documents.encode(item.document))}
    projected = {row["id"]: {**dict(row), "data": _exact(row["data"])} for row in objects}
    findings.registry_objects += len(folded)
    findings.differences += _compare("registry object", folded, projected, say)


_OBJECT_COLUMNS: Final = (
    *("kind", "org", "app", "uid", "version", "registry_version", "created_at", "updated_at", "deleted_at"),
)


def _delivery_facts(stream: Sequence[Appended]) -> list[DeliveryFact]:
    """The facts of a delivery's stream; none where the stream is a message's.

    Raises:
        ValueError: versions are missing.
    """
    _check_versions([item.version for item in stream])
    return [item.fact for item in stream if not isinstance(item.fact, MessageAccepted | MessageFannedOut)]


def _check_versions(versions: Sequence[int]) -> None:
    if list(versions) != list(range(1, len(versions) + 1)):
        raise ValueError("its versions are not 1, 2, 3, …")


def _columns(row: Delivery | AttemptRow, names: Iterable[str]) -> Row:
    return {name: getattr(row, name) for name in names}


def _exact(text: str) -> Any:
    """A document with its numbers as they are written: `jsonb` keeps values, not spellings."""
    return json.loads(text, parse_int=Decimal, parse_float=Decimal)


def _compare(what: str, folded: Mapping[Any, Row], projected: Mapping[Any, Row | asyncpg.Record], say: Say) -> int:
    """How many rows and fields differ, each one said."""
    differences = 0

    def differs(identity: Any, how: str) -> None:
        nonlocal differences
        differences += 1
        name = " ".join(str(part) for part in identity) if isinstance(identity, tuple) else str(identity)
        say(f"{what} {name}: {how}")

    for identity, expected in folded.items():
        row = projected.get(identity)
        if row is None:
            differs(identity, "in the ledger, not in the projection")
            continue
        for column, value in expected.items():
            if row[column] != value:
                differs(identity, f"{column} is {row[column]!s}, the ledger says {value!s}")
    for identity in projected.keys() - folded.keys():
        differs(identity, "in the projection, not in the ledger")
    return differences
