"""Erasing payloads: the bodies and the receivers' answers of messages older than their organisation keeps them.

The facts stay, and so does that an answer was erased by hand. A message that is still on its way, or to be sent once
more, keeps its body until that is over.
"""

from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg

from libs.common.contracts.registry import DEFAULT_PAYLOAD_DAYS
from libs.common.postgres.pool import Connection, Pool, transaction
from libs.common.runtime.clock import now
from libs.common.runtime.logs import logger

_LOG: Final = logger("retention")
MESSAGES_AT_ONCE: Final = 500


async def erase_old_payloads(pool: Pool, at: datetime | None = None, *, at_once: int = MESSAGES_AT_ONCE) -> None:
    """Erase what is too old at `at`, or now, in transactions of at most `at_once` messages."""
    for row in await _applications(pool, at or now()):
        erased = await _erase(pool, row, at_once)
        _LOG.info("payloads.erased", app=str(row["app"]), messages=erased)


async def _applications(pool: Pool, at: datetime) -> list[asyncpg.Record]:
    """Applications, deleted ones included, with messages that are to be looked at: those from `since` before `until`.

    An id begins with its message's milliseconds since 1970, so that a time is a bound of ids.
    """
    return await pool.fetch(
        """
        WITH kept AS (
            SELECT a.id AS app, coalesce(e.before, '00000000-0000-0000-0000-000000000000') AS since,
                $1::timestamptz - make_interval(days => coalesce((o.data ->> 'payloadRetentionDays')::int, $2)) AS until
            FROM hookledger.registry_object a JOIN hookledger.registry_object o ON o.id = a.org
                LEFT JOIN hookledger.payload_erasure e ON e.app = a.id
            WHERE a.kind = 'application'
        ), bounded AS (
            SELECT app, since,
                rpad(lpad(to_hex(floor(extract(epoch FROM until) * 1000)::bigint), 12, '0'), 32, '0')::uuid AS until
            FROM kept
        )
        SELECT app, since, until FROM bounded b
        WHERE EXISTS (SELECT FROM hookledger.message m WHERE m.app = b.app AND m.id >= b.since AND m.id < b.until)
        """,
        at,
        DEFAULT_PAYLOAD_DAYS,
    )


async def _erase(pool: Pool, bounds: asyncpg.Record, at_once: int) -> int:
    """Erase an application's; how many messages."""
    app, since, until = bounds["app"], bounds["since"], bounds["until"]
    first_open: UUID | None = None
    erased = 0
    while True:
        async with transaction(pool) as connection:
            rows = await connection.fetch(
                """
                SELECT m.id, EXISTS (SELECT FROM hookledger.outbox o WHERE o.message = m.id) OR EXISTS (
                    SELECT FROM projection_1.delivery_state d
                    WHERE d.message = m.id
                        AND (d.status IN ('waiting', 'sending', 'held') OR d.resend_at IS NOT NULL)
                ) AS open
                FROM hookledger.message m
                WHERE m.app = $1 AND m.id >= $2 AND m.id < $3 ORDER BY m.id LIMIT $4
                """,
                app,
                since,
                until,
                at_once,
            )
            if not rows:
                return erased
            over = [row["id"] for row in rows if not row["open"]]
            first_open = first_open or next((row["id"] for row in rows if row["open"]), None)
            since = UUID(int=rows[-1]["id"].int + 1)
            await _erase_messages(connection, over)
            await _remember(connection, app, first_open or since)
        erased += len(over)


async def _erase_messages(connection: Connection, messages: list[UUID]) -> None:
    await connection.execute("DELETE FROM hookledger.message_body WHERE message = ANY($1)", messages)
    await connection.execute(
        """
        DELETE FROM hookledger.attempt_content c USING projection_1.delivery_state d
        WHERE d.message = ANY($1) AND c.delivery = d.delivery AND NOT c.erased
        """,
        messages,
    )


async def _remember(connection: Connection, app: UUID, before: UUID) -> None:
    """Nothing is left before that message. Another replica may have come further."""
    await connection.execute(
        """
        INSERT INTO hookledger.payload_erasure AS e (app, before) VALUES ($1, $2)
        ON CONFLICT (app) DO UPDATE SET before = greatest(e.before, excluded.before)
        """,
        app,
        before,
    )
