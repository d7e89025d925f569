"""Ranges of ids, so that a walk through everything is many short transactions and never a long one.

An open transaction holds back vacuum and every follower of the ledger.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from libs.common.postgres.pool import Connection

CHUNK_STREAMS: Final = 300
_NOWHERE: Final = UUID(int=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """The ids above `after`, up to and including `last`."""

    after: UUID
    last: UUID


async def delivery_chunks(connection: Connection) -> AsyncIterator[Chunk]:
    """All ids of messages and deliveries, in the ledger or in what follows from it."""
    newest = await connection.fetchval("""
        SELECT id FROM (
            (SELECT stream AS id FROM hookledger.fact ORDER BY stream DESC LIMIT 1)
            UNION ALL (SELECT delivery FROM projection_1.delivery_state ORDER BY delivery DESC LIMIT 1)
            UNION ALL (SELECT delivery FROM projection_1.attempt ORDER BY delivery DESC LIMIT 1)
            UNION ALL (SELECT delivery FROM hookledger.queue ORDER BY delivery DESC LIMIT 1)
        ) newest ORDER BY id DESC LIMIT 1
    """)
    next_end = """
        SELECT id FROM (
            (SELECT DISTINCT stream AS id FROM hookledger.fact WHERE stream > $1 ORDER BY stream LIMIT $2)
            UNION (SELECT delivery FROM projection_1.delivery_state WHERE delivery > $1 ORDER BY delivery LIMIT $2)
        ) next ORDER BY id OFFSET $2 - 1 LIMIT 1
    """
    async for chunk in _chunks(connection, newest, next_end):
        yield chunk


async def registry_chunks(connection: Connection) -> AsyncIterator[Chunk]:
    """All ids of registry objects, in their ledger or in its projection."""
    newest = await connection.fetchval("""
        SELECT id FROM (
            (SELECT stream AS id FROM hookledger.registry_fact ORDER BY stream DESC LIMIT 1)
            UNION ALL (SELECT id FROM hookledger.registry_object ORDER BY id DESC LIMIT 1)
        ) newest ORDER BY id DESC LIMIT 1
    """)
    next_end = """
        SELECT id FROM (
            (SELECT DISTINCT stream AS id FROM hookledger.registry_fact WHERE stream > $1 ORDER BY stream LIMIT $2)
            UNION (SELECT id FROM hookledger.registry_object WHERE id > $1 ORDER BY id LIMIT $2)
        ) next ORDER BY id OFFSET $2 - 1 LIMIT 1
    """
    async for chunk in _chunks(connection, newest, next_end):
        yield chunk


async def _chunks(connection: Connection, newest: UUID | None, next_end: str) -> AsyncIterator[Chunk]:
    """Ranges of about `CHUNK_STREAMS` streams each that, together, hold everything up to `newest`."""
    after = _NOWHERE
    while newest is not None and after < newest:
        end: UUID | None = await connection.fetchval(next_end, after, CHUNK_STREAMS)
        last = newest if end is None or end > newest else end
        yield Chunk(after=after, last=last)
        after = last
