"""Comparing the projections with the fold of the ledgers, row by row, while the system runs.

The streams are read in chunks of their ids. All that belongs to a chunk, facts and projected rows, is read in one
repeatable-read transaction and so at one instant. What is born after verifying began is left to the next time.
"""

import json
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from libs.common.contracts import registry as documents
from libs.common.postgres import health, statistics
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
from libs.common.postgres.pool import CONNECTION_ERRORS, Connection, Pool
from libs.common.postgres.retaining import kept_from, whole_ledger

COPY_SECONDS: Final = 600.0
"""How long copying the statistics may take: they are copied at one instant."""


async def verify_database(pool: Pool, say: Say) -> Findings:
    """Compare everything; each difference is said as one line.

    Raises:
        RetainingError: weeks of the ledger are being let go of.
        UnknownFactError: the ledger was written by a newer version.
    """
    findings = Findings(say=say)
    async with pool.acquire() as connection, whole_ledger(connection):
        # Before the streams: what is counted now is in the ledger for good, and so in the chunks read after it.
        async with _statistics(connection) as counted:
            async for chunk in delivery_chunks(connection):
                await _verify_deliveries(connection, chunk, counted, findings)
            await counted.compare(findings)
        await _verify_health(connection, findings)
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
                process, last_status, due_at, created_at, updated_at, resend_at, beside, reopened_at
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
            SELECT q.delivery, q.due_at, q.owner, q.counted,
                -- an ordered lane that is the right one stands for its endpoint
                CASE WHEN q.xact IS NOT NULL AND q.lane = hookledger.ordering_lane(d.endpoint, m.ordering_key)
                    THEN d.endpoint ELSE q.lane END AS lane
            FROM hookledger.queue q
            LEFT JOIN projection_1.delivery_state d ON q.xact IS NOT NULL AND d.delivery = q.delivery
            LEFT JOIN hookledger.message m ON m.id = d.message
            WHERE q.delivery > $1 AND q.delivery <= $2
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
    await counted.add(folded.items.values())


def _compare_queue(folded: Mapping[UUID, FoldedDelivery], queue: Mapping[UUID, Row], findings: Findings) -> None:
    """Each delivery that is open, and no other, stands in the queue, with its owner and in its lane."""
    unfinished = {stream: item for stream, item in folded.items() if item.state.open}
    findings.compare(
        "queue",
        {
            stream: {"lane": item.state.endpoint, "owner": item.state.process, "counted": item.counted}
            for stream, item in unfinished.items()
        },
        queue,
    )
    for stream, item in unfinished.items():
        row, due_at = queue.get(stream), item.state.next_at
        if row is not None and due_at is not None and row["due_at"] != due_at:
            findings.differ("queue", stream, f"due_at is {row['due_at']!s}, the ledger says {due_at!s}")


async def _verify_health(connection: Connection, findings: Findings) -> None:
    """The health of each endpoint is what the ledger comes to, read once more in its order up to the checkpoint.

    What is no longer kept is taken for true.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        checkpoint = await connection.fetchrow(
            "SELECT epoch, xact, position FROM hookledger.checkpoint WHERE follower = $1", health.FOLLOWER
        )
        rows = await connection.fetch("SELECT * FROM projection_1.endpoint_health")
    found = {row["endpoint"]: health.row_of(row) for row in rows}
    folded = await health.fold_until(connection, BEGINNING if checkpoint is None else Cursor(*checkpoint))
    findings.endpoints += len(folded)
    findings.compare(
        "health",
        {endpoint: _columns(row.health, health.COLUMNS) | {"app": row.app} for endpoint, row in folded.items()},
        {endpoint: _columns(row.health, health.COLUMNS) | {"app": row.app} for endpoint, row in found.items()},
    )


async def _verify_lanes(connection: Connection, findings: Findings) -> None:
    """Lanes say what the queue holds, what can be served comes to its turn, and whoever owns something is known."""
    lanes = await connection.fetch("""
        SELECT lane, l.inflight, coalesce(q.counted, 0) AS counted, l.head_due, q.head,
            l.lane IS NULL OR q.head IS NOT NULL AND q.counted < l.max_inflight
                AND (l.ready_at = 'infinity' OR coalesce(t.ready_at, 'infinity') = 'infinity') AS stranded
        FROM hookledger.lane l
        FULL JOIN (
            SELECT lane, count(*) FILTER (WHERE counted) AS counted,
                CASE WHEN bool_or(xact IS NULL) THEN min(due_at) FILTER (WHERE owner IS NULL)
                    ELSE (array_agg(CASE WHEN owner IS NULL THEN due_at END ORDER BY epoch, xact, position))[1]
                END AS head
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
    """The statistics as they are, and as the ledger has them up to their checkpoint, side by side in a temporary table.

    In memory there would be a row for each endpoint and hour that ever was.
    """

    def __init__(self, connection: Connection, checkpoint: Cursor, since: datetime) -> None:
        self._connection = connection
        self._checkpoint = checkpoint
        self._since = since

    async def add(self, deliveries: Iterable[FoldedDelivery]) -> None:
        """Count the attempts of these deliveries that the statistics have come to."""
        attempts: Counter[tuple[UUID, UUID, datetime, str]] = Counter()
        total_us: Counter[tuple[UUID, UUID, datetime, str]] = Counter()
        for delivery in deliveries:
            for row, place in zip(delivery.attempts, delivery.ends, strict=True):
                if place <= self._checkpoint and row.ended_at >= self._since:
                    key = (row.app, row.endpoint, row.ended_at.replace(minute=0, second=0, microsecond=0), row.result)
                    attempts[key] += 1
                    total_us[key] += row.total_us or 0
        await self._connection.executemany(
            """
            INSERT INTO pg_temp.verified_hour AS v (app, endpoint, hour, result, told, told_us)
            VALUES ($1, $2, $3, $4, $5, $6)
            ON CONFLICT (app, endpoint, hour, result) DO UPDATE
            SET told = coalesce(v.told, 0) + excluded.told, told_us = coalesce(v.told_us, 0) + excluded.told_us
            """,
            [(*key, number, total_us[key]) for key, number in attempts.items()],
        )

    async def compare(self, findings: Findings) -> None:
        """Compare what was found with what was counted."""
        findings.statistics += await self._connection.fetchval("SELECT count(told) FROM pg_temp.verified_hour")
        async with self._connection.transaction():
            async for row in self._connection.cursor("""
                SELECT app, endpoint, hour, result, attempts, total_us, told, told_us FROM pg_temp.verified_hour
                WHERE (attempts, total_us) IS DISTINCT FROM (told, told_us)
            """):
                key = (row["app"], row["endpoint"], row["hour"], row["result"])
                told = {"attempts": row["told"], "total_us": row["told_us"]}
                findings.compare(
                    "statistics",
                    {} if row["told"] is None else {key: told},
                    {} if row["attempts"] is None else {key: row},
                )


@asynccontextmanager
async def _statistics(connection: Connection) -> AsyncIterator[_Statistics]:
    """The checkpoint of the statistics and the rows that belong to it."""
    async with connection.transaction(isolation="repeatable_read"):
        row = await connection.fetchrow(
            "SELECT epoch, xact, position FROM hookledger.checkpoint WHERE follower = $1", statistics.FOLLOWER
        )
        since = await kept_from(connection)
        await connection.execute("SET LOCAL statement_timeout = 0")
        await connection.execute(
            """
            CREATE TEMPORARY TABLE verified_hour (
                app uuid, endpoint uuid, hour timestamptz, result text,
                attempts bigint, total_us bigint, -- as they were found
                told bigint, told_us bigint,      -- as the ledger has them, with what is no longer kept of it
                PRIMARY KEY (app, endpoint, hour, result)
            );
            INSERT INTO pg_temp.verified_hour
            SELECT app, endpoint, hour, result, h.attempts, h.total_us, b.attempts, b.total_us
            FROM projection_1.endpoint_hour h
            FULL JOIN hookledger.baseline_hour b USING (app, endpoint, hour, result)
            WHERE hour >= coalesce((SELECT kept_from FROM hookledger.baseline), '-infinity');
            """,
            timeout=COPY_SECONDS,
        )
    try:
        yield _Statistics(connection, BEGINNING if row is None else Cursor(*row), since)
    finally:
        with suppress(*CONNECTION_ERRORS):  # then it is gone with its connection
            await connection.execute("DROP TABLE pg_temp.verified_hour")


def _columns(row: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(row, name) for name in names}


def _exact(text: str) -> Any:
    """A document with its numbers as they are written: `jsonb` keeps values, not spellings."""
    return json.loads(text, parse_int=Decimal, parse_float=Decimal)
