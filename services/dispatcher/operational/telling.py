"""Telling: from where on to follow, and the messages that come of it.

What a batch of facts says is accepted in the transaction that moves the checkpoint, so that each is told exactly once;
a message's event id comes from its fact, so that it stays one where a checkpoint is set back. From there on they are
messages like any other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg

from libs.common.domain import ids
from libs.common.domain.facts import Origin
from libs.common.domain.message import Message
from libs.common.domain.operational import News
from libs.common.postgres import acceptance
from libs.common.postgres.checkpoint import Checkpoint, Cursor
from libs.common.postgres.pool import Connection
from libs.common.runtime.clock import random_bytes

BATCH: Final = 2_000
NEWS_FOR: Final = timedelta(days=7)
"""What happened longer ago is no news: after a long standstill."""

_ENTROPY_BYTES: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing to tell, and whom.

    Attributes:
        app: the operational application.
        subject: the API's id of the stream that the fact stands in.
        version: of the fact in its stream.
        endpoint: that it is about; what is told of one endpoint belongs in one order.
    """

    org: UUID
    app: UUID
    news: News
    subject: str
    version: int
    at: datetime
    endpoint: str
    body: bytes

    @property
    def event_id(self) -> str:
        """What tells it from everything else that is told."""
        return f"{self.news}.{self.subject}.{self.version}"


async def begin(connection: Connection, checkpoint: Checkpoint) -> Cursor | None:
    """From where on to follow, if it is this process's turn.

    Where nobody is to be told anything, the checkpoint goes to where all transactions are over, and no fact is read.
    """
    cursor = await checkpoint.own(connection)
    if cursor is None:
        return None
    row = await connection.fetchrow("""
        SELECT max(e.epoch) AS epoch, pg_snapshot_xmin(pg_current_snapshot()) AS xact, EXISTS (
            SELECT FROM hookledger.registry_object o
            WHERE o.kind = 'application' AND o.uid = 'operational' AND o.deleted_at IS NULL
        ) AS wanted
        FROM hookledger.ledger_epoch e
    """)
    assert row is not None
    if row["wanted"]:
        return cursor
    await checkpoint.move(connection, Cursor(row["epoch"], row["xact"], 0))
    return None


async def move(connection: Connection, checkpoint: Checkpoint, rows: Sequence[asyncpg.Record]) -> int:
    """Go on after a batch of facts, the end of which each row has; how many facts it had."""
    if not rows:
        return 0
    facts: int = rows[0]["facts"]
    await checkpoint.move(connection, Cursor(rows[0]["epoch"], rows[0]["xact"], rows[0]["position"]))
    return facts


async def accept(connection: Connection, items: Sequence[Item]) -> None:
    """Accept as messages what was not accepted before; a dispatcher finds them in the outbox."""
    if not items:
        return
    known = await connection.fetch(
        "SELECT event_id FROM hookledger.message WHERE app = ANY($1) AND event_id = ANY($2) AND origin = $3",
        list({item.app for item in items}),
        [item.event_id for item in items],
        Origin.OPERATIONAL,  # whoever may publish there may use such an event id, too
    )
    new = {item.event_id: item for item in items}
    for row in known:
        new.pop(row["event_id"], None)
    if not new:
        return
    now = await connection.fetchrow("""
        SELECT v.version, clock_timestamp() AS at, (SELECT max(epoch) FROM hookledger.ledger_epoch) AS epoch
        FROM hookledger.registry_version v
    """)
    assert now is not None, "the migration has made it"
    messages = [
        Message(
            id=ids.time_ordered(int(now["at"].timestamp() * 1000), random_bytes(_ENTROPY_BYTES)),
            org=item.org,
            app=item.app,
            event_type=item.news,
            body=item.body,
            accepted_at=now["at"],
            registry_version=now["version"],
            origin=Origin.OPERATIONAL,
            event_id=event_id,
            ordering_key=item.endpoint,
        )
        for event_id, item in new.items()
    ]
    await acceptance.insert(connection, messages, epoch=now["epoch"])
