"""Erasing payloads: the bodies and the receivers' answers of messages older than their organisation keeps them.

The facts stay, and so does that an answer was erased by hand. A message that is still on its way, or to be sent once
more, keeps its body until that is over.
"""

from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg
from msgspec import Struct

from libs.common.contracts.registry import DEFAULT_PAYLOAD_DAYS
from libs.common.domain.ids import Prefix, encode
from libs.common.postgres.pool import Connection, Pool, transaction
from libs.common.runtime.clock import now
from libs.common.runtime.logs import logger

_LOG: Final = logger("retention")
MESSAGES_AT_ONCE: Final = 500
MOST_OPEN: Final = 1000
"""Of each application; 100 kB of memory."""


class _Progress(Struct, frozen=True, kw_only=True):
    """How far an application has been looked through: to `through`, and before that all is erased but `open`."""

    through: UUID
    open: tuple[UUID, ...] = ()


class Retention:
    """Erases payloads that are too old.

    What was not over is remembered, so that one delivery that is held for weeks does not have all that came after it
    read again each time. A process that starts anew begins with the first message that was not over.

    Args:
        pool: of the registry.
        at_once: messages in a transaction at most.
        most_open: so many of an application, 1 or more, are remembered; from the next one on, everything is read again.
    """

    def __init__(self, pool: Pool, *, at_once: int = MESSAGES_AT_ONCE, most_open: int = MOST_OPEN) -> None:
        self._pool = pool
        self._at_once = at_once
        self._most_open = most_open
        self._progress: dict[UUID, _Progress] = {}

    async def sweep(self, at: datetime | None = None) -> None:
        """Erase what is too old at `at`, or now."""
        for row in await _applications(self._pool, at or now()):
            app, since = row["app"], row["since"]
            known = self._progress.get(app, _Progress(through=since))
            # What is before `since`, another replica has erased.
            still = _Progress(
                through=max(known.through, since), open=tuple(each for each in known.open if each >= since)
            )
            self._progress[app] = await self._erase(app, still, row["until"])

    async def _erase(self, app: UUID, progress: _Progress, until: UUID) -> _Progress:
        """Erase an application's before `until`."""
        through, still_open = progress.through, list(progress.open)
        due = [message for message in still_open if message < until]
        forgotten: UUID | None = None
        read = erased = 0
        while True:
            async with transaction(self._pool) as connection:
                messages, due = due[: self._at_once], due[self._at_once :]
                if not messages:
                    messages = await _messages(connection, app, through, until, self._at_once)
                    if not messages:
                        break
                    through = UUID(int=messages[-1].int + 1)
                    still_open += messages
                over = await _over(connection, messages)
                await _erase_messages(connection, [message for message in messages if message in over])
                still_open = [message for message in still_open if message not in over]
                await _remember(connection, app, still_open[0] if still_open else through)
            read += len(messages)
            erased += len(over)
            if len(still_open) > self._most_open:
                forgotten = forgotten or still_open[self._most_open]
                del still_open[self._most_open :]
        _LOG.info("payloads.erased", app=encode(Prefix.APPLICATION, app), read=read, messages=erased)
        return _Progress(through=forgotten or through, open=tuple(still_open))


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


async def _messages(connection: Connection, app: UUID, since: UUID, until: UUID, most: int) -> list[UUID]:
    rows = await connection.fetch(
        "SELECT id FROM hookledger.message WHERE app = $1 AND id >= $2 AND id < $3 ORDER BY id LIMIT $4",
        app,
        since,
        until,
        most,
    )
    return [row["id"] for row in rows]


async def _over(connection: Connection, messages: list[UUID]) -> frozenset[UUID]:
    """Those of the messages that are neither on their way nor to be sent once more."""
    rows = await connection.fetch(
        """
        SELECT m.id, EXISTS (SELECT FROM hookledger.outbox o WHERE o.message = m.id) OR EXISTS (
            SELECT FROM projection_1.delivery_state d
            WHERE d.message = m.id
                AND (d.status IN ('waiting', 'sending', 'held') OR d.resend_at IS NOT NULL)
        ) AS open
        FROM unnest($1::uuid[]) AS m (id)
        """,
        messages,
    )
    return frozenset(row["id"] for row in rows if not row["open"])


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
