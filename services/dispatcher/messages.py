"""Messages read back from Postgres."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

import asyncpg

from libs.common.domain.facts import Origin
from libs.common.domain.message import Message
from libs.common.postgres.pool import Connection

MESSAGE_COLUMNS: Final = """m.id, m.org, m.app AS message_app, m.event_type, m.channels, m.event_id, m.origin, m.source,
    m.ordering_key, m.content_type, m.registry_version, m.publish, m.tags,
    -- as an earlier version took the first instant of the year 1, for a time that is not set
    nullif(m.deliver_at, '-infinity') AS deliver_at, m.accepted_at, b.body"""


def message_of(row: asyncpg.Record) -> Message:
    """The message of a row with `MESSAGE_COLUMNS`; an erased body reads as empty."""
    return Message(
        id=row["id"],
        org=row["org"],
        app=row["message_app"],
        event_type=row["event_type"],
        body=row["body"] or b"",
        accepted_at=row["accepted_at"],
        registry_version=row["registry_version"],
        origin=Origin(row["origin"]),
        content_type=row["content_type"],
        channels=frozenset(row["channels"]),
        event_id=row["event_id"],
        source=row["source"],
        tags=frozenset(row["tags"]),
        ordering_key=row["ordering_key"],
        deliver_at=row["deliver_at"],
        publish=row["publish"],
        erased=row["body"] is None,
    )


async def read(connection: Connection, messages: Sequence[UUID]) -> dict[UUID, Message]:
    """Messages by id, with their bytes."""
    rows = await connection.fetch(
        f"""
        SELECT {MESSAGE_COLUMNS}
        FROM hookledger.message m LEFT JOIN hookledger.message_body b ON b.message = m.id
        WHERE m.id = ANY($1)
        """,  # noqa: S608  a constant
        messages,
    )
    return {row["id"]: message_of(row) for row in rows}
