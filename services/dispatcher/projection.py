"""Rows of `delivery_state` and `attempt`: the projections, written in the transaction of their facts."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

import asyncpg

from libs.common.domain.attempts import AttemptRow
from libs.common.domain.delivery import Delivery, Status
from libs.common.postgres.pool import Connection

STATE_COLUMNS: Final = """d.delivery, d.app, d.message, d.endpoint, d.status, d.version, d.run, d.attempts, d.failures,
    d.unknowns, d.attempt, d.process, d.last_status, d.due_at, d.created_at, d.updated_at, d.resend_at, d.beside,
    d.reopened_at"""


def delivery_of(row: asyncpg.Record) -> Delivery:
    """The state that a row holds."""
    return Delivery(
        app=row["app"],
        message=row["message"],
        endpoint=row["endpoint"],
        status=Status(row["status"]),
        version=row["version"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        due_at=row["due_at"],
        run=row["run"],
        attempts=row["attempts"],
        failures=row["failures"],
        unknowns=row["unknowns"],
        attempt=row["attempt"],
        process=row["process"],
        last_status=row["last_status"],
        resend_at=row["resend_at"],
        beside=Status(row["beside"]) if row["beside"] is not None else None,
        reopened_at=row["reopened_at"],
    )


async def lock(connection: Connection, deliveries: Sequence[UUID]) -> dict[UUID, Delivery]:
    """The states of these deliveries, locked in the order of their ids until the transaction ends."""
    rows = await connection.fetch(
        f"""
        SELECT {STATE_COLUMNS} FROM delivery_state d WHERE d.delivery = ANY($1) ORDER BY d.delivery FOR UPDATE OF d
        """,  # noqa: S608  a constant
        deliveries,
    )
    return {row["delivery"]: delivery_of(row) for row in rows}


async def insert(connection: Connection, states: Sequence[tuple[UUID, Delivery]]) -> None:
    """Add the rows of new deliveries."""
    if not states:
        return
    await connection.execute(
        """
        INSERT INTO delivery_state (delivery, app, message, endpoint, status, version, run, attempts, failures,
            unknowns, attempt, process, last_status, due_at, created_at, updated_at, resend_at, beside, reopened_at)
        SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::int[], $7::smallint[],
            $8::int[], $9::int[], $10::smallint[], $11::uuid[], $12::uuid[], $13::smallint[], $14::timestamptz[],
            $15::timestamptz[], $16::timestamptz[], $17::timestamptz[], $18::text[], $19::timestamptz[])
        """,
        [delivery for delivery, _ in states],
        [state.app for _, state in states],
        [state.message for _, state in states],
        [state.endpoint for _, state in states],
        [state.status for _, state in states],
        [state.version for _, state in states],
        [state.run for _, state in states],
        [state.attempts for _, state in states],
        [state.failures for _, state in states],
        [state.unknowns for _, state in states],
        [state.attempt for _, state in states],
        [state.process for _, state in states],
        [state.last_status for _, state in states],
        [state.due_at for _, state in states],
        [state.created_at for _, state in states],
        [state.updated_at for _, state in states],
        [state.resend_at for _, state in states],
        [state.beside for _, state in states],
        [state.reopened_at for _, state in states],
    )


async def update(connection: Connection, states: Sequence[tuple[UUID, Delivery]]) -> None:
    """Bring the rows of these deliveries, locked before, to their new states."""
    if not states:
        return
    await connection.execute(
        """
        UPDATE delivery_state d
        SET status = u.status, version = u.version, run = u.run, attempts = u.attempts, failures = u.failures,
            unknowns = u.unknowns, attempt = u.attempt, process = u.process, last_status = u.last_status,
            due_at = u.due_at, updated_at = u.updated_at, resend_at = u.resend_at, beside = u.beside,
            reopened_at = u.reopened_at
        FROM unnest($1::uuid[], $2::text[], $3::int[], $4::smallint[], $5::int[], $6::int[], $7::smallint[],
            $8::uuid[], $9::uuid[], $10::smallint[], $11::timestamptz[], $12::timestamptz[], $13::timestamptz[],
            $14::text[], $15::timestamptz[])
            AS u (delivery, status, version, run, attempts, failures, unknowns, attempt, process, last_status,
                due_at, updated_at, resend_at, beside, reopened_at)
        WHERE d.delivery = u.delivery
        """,
        [delivery for delivery, _ in states],
        [state.status for _, state in states],
        [state.version for _, state in states],
        [state.run for _, state in states],
        [state.attempts for _, state in states],
        [state.failures for _, state in states],
        [state.unknowns for _, state in states],
        [state.attempt for _, state in states],
        [state.process for _, state in states],
        [state.last_status for _, state in states],
        [state.due_at for _, state in states],
        [state.updated_at for _, state in states],
        [state.resend_at for _, state in states],
        [state.beside for _, state in states],
        [state.reopened_at for _, state in states],
    )


async def insert_attempts(connection: Connection, rows: Sequence[AttemptRow]) -> None:
    """Add the rows of attempts that have ended."""
    if not rows:
        return
    await connection.execute(
        """
        INSERT INTO attempt (delivery, attempt, app, message, endpoint, run, number, trigger, config_version,
            signing_key, process, result, status, failure, url, peer, sends, total_us, started_at, ended_at)
        SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], $6::smallint[], $7::int[],
            $8::text[], $9::int[], $10::uuid[], $11::uuid[], $12::text[], $13::smallint[], $14::text[], $15::text[],
            $16::text[], $17::smallint[], $18::bigint[], $19::timestamptz[], $20::timestamptz[])
        """,
        [row.delivery for row in rows],
        [row.attempt for row in rows],
        [row.app for row in rows],
        [row.message for row in rows],
        [row.endpoint for row in rows],
        [row.run for row in rows],
        [row.number for row in rows],
        [row.trigger for row in rows],
        [row.config_version for row in rows],
        [row.signing_key for row in rows],
        [row.process for row in rows],
        [row.result for row in rows],
        [row.status for row in rows],
        [row.failure for row in rows],
        [row.url for row in rows],
        [row.peer for row in rows],
        [row.sends for row in rows],
        [row.total_us for row in rows],
        [row.started_at for row in rows],
        [row.ended_at for row in rows],
    )
