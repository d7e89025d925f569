"""Listening: the messages of an application as they are committed, each once, from a cursor on.

Ids are made before a message is committed, so a reader that goes by ids passes over what commits late. The order here
is the ledger's, (epoch, xact, position) below the snapshot's xmin, as the dispatcher's follower has it. There is no
index for that order within one application, and none is wanted on the way in; so the cursor holds besides when its
message was born. A message that has not been read yet got its transaction after that of the cursor did, and had waited
for it no longer than ingress lets anything wait: it was born at most `WAITED` earlier. So a look costs what its
application was sent within that time, and the way in nothing.
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg

from libs.common.contracts.operations import Time
from libs.common.contracts.registry import Kind
from libs.common.domain import ids
from libs.common.domain.ids import Prefix
from libs.common.runtime import clock
from libs.common.runtime.http import invalid
from services.registry import objects
from services.registry.answers import Answer, ok
from services.registry.calls import Call
from services.registry.fields import Out
from services.registry.parameters import ITERATOR, LIMIT, text

WAITED: Final = timedelta(seconds=30)
"""Far above the 5 s that ingress lets a message wait for its commit, and a batch its turn."""
AWAY: Final = timedelta(hours=1)
"""So long a listener may be away: a look reads all that its application was sent since."""
LOOKED_AT: Final = 1_000
MOST_BYTES: Final = 4 * 1024 * 1024
SOURCE: Final = text("source", "Only what this source received, by its id or uid.")
QUERY: Final = (LIMIT, ITERATOR, SOURCE)
_CURSOR: Final = re.compile(r"([0-9]{1,9})\.([0-9]{1,18})\.([0-9]{1,18})\.([0-9]{1,14})")


class ListenedOut(Out):
    """A message, with its exact bytes unless they were erased, and the iterator that goes on after it."""

    id: str
    event_id: str | None
    event_type: str
    channels: list[str]
    source_id: str | None
    content_type: str
    body_base64: str | None
    timestamp: Time
    iterator: str


class ListenOut(Out):
    """What came after the iterator; empty when nothing came for some seconds, or when no iterator was given."""

    data: list[ListenedOut]
    iterator: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """A message's place in the ledger, and when its id was made (milliseconds since 1970)."""

    epoch: int
    xact: int
    position: int
    born_ms: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.xact}.{self.position}.{self.born_ms}"

    @classmethod
    def read(cls, text: str) -> "Cursor":
        """The cursor in an iterator.

        Raises:
            ApiError: 422.
        """
        found = _CURSOR.fullmatch(text)
        if found is None:
            raise invalid(["query", "iterator"], "it is no iterator of this list: take it from an answer before")
        epoch, xact, position, born_ms = map(int, found.groups())
        if born_ms < _ms(clock.now() - AWAY):
            raise invalid(["query", "iterator"], "it is older than an hour: begin again without one")
        return cls(epoch=epoch, xact=xact, position=position, born_ms=born_ms)

    @classmethod
    def of(cls, row: asyncpg.Record) -> "Cursor":
        """Where a row stands that `_look` found."""
        return cls(epoch=row["epoch"], xact=row["xact"], position=row["position"], born_ms=ids.born_ms(row["id"]))

    @property
    def earliest(self) -> UUID:
        """No message behind the cursor has a smaller id."""
        return ids.lowest(self.born_ms - WAITED // timedelta(milliseconds=1))


async def listen(call: Call, *, last: bool) -> Answer | None:
    """Wait for messages that are accepted after `iterator`, each of which is told once.

    Without an iterator the answer is empty, and its own iterator begins now. With one it comes as soon as there is a
    message, and after some seconds without. Its `iterator` goes on after it, and so does that of each message.
    """
    limit = call.asked(LIMIT)
    iterator = call.asked(ITERATOR)
    cursor = Cursor.read(iterator) if iterator is not None else None
    app = await objects.application(call)
    named = call.asked(SOURCE)
    source = None if named is None else (await objects.require(call, Kind.SOURCE, named, app=app.id)).id
    here = await _here(call) if cursor is None or last else None
    if cursor is None:
        return ok(ListenOut(data=[], iterator=str(here)))
    chosen: list[asyncpg.Record] = []
    rows = await _look(call, app.id, cursor)
    for row in rows:
        if source is None or row["source"] == source:
            room = sum(other["body_bytes"] for other in chosen) + row["body_bytes"] <= MOST_BYTES
            if len(chosen) == limit or (chosen and not room):
                break
            chosen.append(row)
        cursor = Cursor.of(row)
    if not rows:
        if here is None:
            return None
        cursor = here  # taken before looking: what is below it was looked for
    return ok(ListenOut(data=await _contents(call, chosen), iterator=str(cursor)))


async def _here(call: Call) -> Cursor:
    row = await call.connection.fetchrow(
        """
        SELECT (SELECT max(epoch) FROM ledger_epoch) AS epoch, pg_snapshot_xmin(pg_current_snapshot()) AS xact,
            clock_timestamp() AS at
        """
    )
    assert row is not None, "a SELECT without FROM has one row"
    at: datetime = row["at"]
    return Cursor(epoch=row["epoch"], xact=row["xact"], position=0, born_ms=_ms(at))


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


async def _look(call: Call, app: UUID, cursor: Cursor) -> Sequence[asyncpg.Record]:
    """The application's next messages of any source, so that the cursor goes on also where few are wanted."""
    return await call.connection.fetch(
        """
        SELECT m.id, m.source, m.body_bytes, f.epoch, f.xact, f.position
        FROM message m JOIN fact f ON f.stream = m.id AND f.version = 1
        WHERE m.app = $1 AND m.id >= $2 AND f.stream >= $2 AND (f.epoch, f.xact, f.position) > ($3, $4, $5)
          AND (f.epoch, f.xact) < ((SELECT max(epoch) FROM ledger_epoch), pg_snapshot_xmin(pg_current_snapshot()))
        ORDER BY f.epoch, f.xact, f.position LIMIT $6
        """,
        app,
        cursor.earliest,
        cursor.epoch,
        cursor.xact,
        cursor.position,
        LOOKED_AT,
    )


async def _contents(call: Call, chosen: Sequence[asyncpg.Record]) -> list[ListenedOut]:
    if not chosen:
        return []
    rows = await call.connection.fetch(
        """
        SELECT m.id, m.event_id, m.event_type, m.channels, m.source, m.content_type, m.accepted_at, b.body
        FROM message m LEFT JOIN message_body b ON b.message = m.id
        WHERE m.id = ANY($1)
        """,
        [row["id"] for row in chosen],
    )
    found = {row["id"]: row for row in rows}
    return [_out(found[row["id"]], Cursor.of(row)) for row in chosen if row["id"] in found]


def _out(row: asyncpg.Record, cursor: Cursor) -> ListenedOut:
    return ListenedOut(
        id=ids.encode(Prefix.MESSAGE, row["id"]),
        event_id=row["event_id"],
        event_type=row["event_type"],
        channels=sorted(row["channels"]),
        source_id=ids.encode(Prefix.SOURCE, row["source"]) if row["source"] is not None else None,
        content_type=row["content_type"],
        body_base64=base64.b64encode(row["body"]).decode() if row["body"] is not None else None,
        timestamp=row["accepted_at"],
        iterator=str(cursor),
    )
