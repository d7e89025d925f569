"""Comparing the projections with the fold of the ledgers, row by row, while the system runs.

The streams are read in chunks of their ids. All that belongs to a chunk, facts and projected rows, is read in one
repeatable-read transaction and so at one instant. What is born after verifying began is left to the next time.
"""

import json
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from libs.common.contracts import registry as documents
from libs.common.domain.delivery import Status
from libs.common.postgres import statistics
from libs.common.postgres.checkpoint import BEGINNING, Cursor
from libs.common.postgres.chunks import Chunk, delivery_chunks, registry_chunks
from libs.common.postgres.findings import Findings, Row, Say
from libs.common.postgres.folding import (
    ATTEMPT_COLUMNS,
    DELIVERY_COLUMNS,
    OBJECT_COLUMNS,
    FoldedDelivery,
    fold_deliveries,
    fold_registry,
)
from libs.common.postgres.pool import Connection, Pool


async def verify_database(pool: Pool, say: Say) -> Findings:
    """Compare everything; each difference is said as one line.

    Raises:
        UnknownFactError: the ledger was written by a newer version.
    """
    findings = Findings(say=say)
    async with pool.acquire() as connection:
        # Before the streams: what is counted now is in the ledger for good, and so in the chunks read after it.
        counted = await _Statistics.read(connection)
        async for chunk in delivery_chunks(connection):
            await _verify_deliveries(connection, chunk, counted, findings)
        counted.compare(findings)
        await _verify_lanes(connection, findings)
        async for chunk in registry_chunks(connection):
            await _verify_registry(connection, chunk, findings)
    return findings


async def _verify_deliveries(connection: Connection, chunk: Chunk, counted: "_Statistics", findings: Findings) -> None:
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        folded = await fold_deliveries(connection, chunk)
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
        queue = await connection.fetch(
            """
            SELECT delivery, lane, due_at, owner, counted FROM hookledger.queue WHERE delivery > $1 AND delivery <= $2
            """,
            chunk.after,
            chunk.last,
        )
    for stream, why in folded.unfoldable.items():
        findings.differ("delivery", stream, f"its stream cannot be folded: {why}")
    ended = [row for item in folded.items.values() for row in item.attempts]
    findings.deliveries += len(folded.items)
    findings.attempts += len(ended)
    findings.compare(
        "delivery",
        {stream: _columns(item.state, DELIVERY_COLUMNS) for stream, item in folded.items.items()},
        {row["delivery"]: row for row in states},
    )
    findings.compare(
        "attempt",
        {(row.delivery, row.attempt): _columns(row, ATTEMPT_COLUMNS) for row in ended},
        {(row["delivery"], row["attempt"]): row for row in attempts},
    )
    _compare_queue(folded.items, {row["delivery"]: row for row in queue}, findings)
    for item in folded.items.values():
        counted.add(item)


def _compare_queue(folded: Mapping[UUID, FoldedDelivery], queue: Mapping[UUID, Row], findings: Findings) -> None:
    """Each delivery that is not over, and no other, stands in the queue, with its owner and in its lane."""
    unfinished = {stream: item for stream, item in folded.items() if not item.state.status.terminal}
    findings.compare(
        "queue",
        {
            stream: {"lane": item.state.endpoint, "owner": item.state.process, "counted": item.counted}
            for stream, item in unfinished.items()
        },
        queue,
    )
    for stream, item in unfinished.items():
        row, due_at = queue.get(stream), item.state.due_at
        # Earlier is right: what waits for an endpoint that is disabled was hastened.
        if row is not None and item.state.status is Status.WAITING and due_at is not None and row["due_at"] > due_at:
            findings.differ("queue", stream, f"due_at is {row['due_at']!s}, the ledger says {due_at!s}")


async def _verify_lanes(connection: Connection, findings: Findings) -> None:
    """Lanes say what the queue holds, what can be served comes to its turn, and whoever owns something is known."""
    lanes = await connection.fetch("""
        SELECT lane, l.inflight, coalesce(q.counted, 0) AS counted, l.head_due, q.head,
            l.lane IS NULL OR q.head IS NOT NULL AND q.counted < l.max_inflight
                AND (l.ready_at = 'infinity' OR coalesce(t.ready_at, 'infinity') = 'infinity') AS stranded
        FROM hookledger.lane l
        FULL JOIN (
            SELECT lane, count(*) FILTER (WHERE counted) AS counted, min(due_at) FILTER (WHERE owner IS NULL) AS head
            FROM hookledger.queue WHERE owner IS NULL OR counted GROUP BY lane
        ) q USING (lane)
        LEFT JOIN hookledger.app_turn t USING (app)
    """)
    findings.lanes += len(lanes)
    for row in lanes:
        if row["stranded"]:
            findings.differ("lane", row["lane"], "nobody would come to what waits in it")
    findings.compare(
        "lane",
        {row["lane"]: {"inflight": row["counted"], "head_due": row["head"]} for row in lanes},
        {row["lane"]: row for row in lanes},
    )
    owners = await connection.fetch("""
        SELECT q.owner, count(*) AS deliveries FROM hookledger.queue q
        WHERE q.owner IS NOT NULL AND NOT EXISTS (SELECT FROM hookledger.process p WHERE p.id = q.owner)
        GROUP BY q.owner
    """)
    for row in owners:
        findings.differ("process", row["owner"], f"unknown, and owns {row['deliveries']} deliveries in the queue")


async def _verify_registry(connection: Connection, chunk: Chunk, findings: Findings) -> None:
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        folded = await fold_registry(connection, chunk)
        objects = await connection.fetch(
            """
            SELECT id, kind, org, app, uid, version, registry_version, created_at, updated_at, deleted_at, data
            FROM hookledger.registry_object WHERE id > $1 AND id <= $2
            """,
            chunk.after,
            chunk.last,
        )
    for stream, why in folded.unfoldable.items():
        findings.differ("registry object", stream, f"its stream cannot be folded: {why}")
    findings.registry_objects += len(folded.items)
    findings.compare(
        "registry object",
        {
            stream: _columns(item, OBJECT_COLUMNS) | {"data": _exact(documents.encode(item.document))}
            for stream, item in folded.items.items()
        },
        {row["id"]: {**dict(row), "data": _exact(row["data"])} for row in objects},
    )


class _Statistics:
    """The statistics as they are, and as the ledger has them up to their checkpoint."""

    def __init__(self, checkpoint: Cursor, found: Mapping[tuple[UUID, UUID, datetime, str], Row]) -> None:
        self._checkpoint = checkpoint
        self._found = found
        self._attempts: Counter[tuple[UUID, UUID, datetime, str]] = Counter()
        self._total_us: Counter[tuple[UUID, UUID, datetime, str]] = Counter()

    @classmethod
    async def read(cls, connection: Connection) -> "_Statistics":
        """The checkpoint and the rows that belong to it."""
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            row = await connection.fetchrow(
                "SELECT epoch, xact, position FROM hookledger.checkpoint WHERE follower = $1", statistics.FOLLOWER
            )
            rows = await connection.fetch(
                "SELECT app, endpoint, hour, result, attempts, total_us FROM projection_1.endpoint_hour"
            )
        found = {(row["app"], row["endpoint"], row["hour"], row["result"]): row for row in rows}
        return cls(BEGINNING if row is None else Cursor(*row), found)

    def add(self, delivery: FoldedDelivery) -> None:
        """Count the attempts of a delivery that the statistics have come to."""
        for row, place in zip(delivery.attempts, delivery.ends, strict=True):
            if place <= self._checkpoint:
                key = (row.app, row.endpoint, row.ended_at.replace(minute=0, second=0, microsecond=0), row.result)
                self._attempts[key] += 1
                self._total_us[key] += row.total_us or 0

    def compare(self, findings: Findings) -> None:
        """Compare what was found with what was counted."""
        findings.statistics += len(self._attempts)
        findings.compare(
            "statistics",
            {key: {"attempts": n, "total_us": self._total_us[key]} for key, n in self._attempts.items()},
            self._found,
        )


def _columns(row: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(row, name) for name in names}


def _exact(text: str) -> Any:
    """A document with its numbers as they are written: `jsonb` keeps values, not spellings."""
    return json.loads(text, parse_int=Decimal, parse_float=Decimal)
