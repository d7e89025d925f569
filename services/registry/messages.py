"""Messages: what was accepted, with its exact bytes."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg
import msgspec
import orjson

from libs.common.contracts.messages import MessageOut, SchemaViolationOut
from libs.common.domain import ids
from libs.common.domain.ids import BadIdError, Prefix
from services.registry import objects
from services.registry.answers import Answer, ok
from services.registry.calls import Call
from services.registry.paging import read_page
from services.registry.parameters import ITERATOR, PAGE, flag, text, texts, time
from services.registry.parsing import not_found

EVENT_TYPES: Final = texts("event_types", "Only messages of these event types.")
CHANNEL: Final = text("channel", "Only messages on this channel.")
TAG: Final = text("tag", "Only messages with this tag.")
BEFORE: Final = time("before", "Only what is from before this time. Ignored beside an `iterator`.")
AFTER: Final = time("after", "Only what is from after this time. Ignored beside an `iterator`.")
WITH_CONTENT: Final = flag("with_content", "Whether payloads and responses are shown.", default=True)
FILTER: Final = (*PAGE, EVENT_TYPES, CHANNEL, TAG, BEFORE, AFTER, WITH_CONTENT)

EXPIRED: Final = {"expired": True}

CLOCK_SLACK: Final = timedelta(seconds=1)
"""A message's id is made of the time at which it was accepted, to the millisecond."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_VIOLATIONS: Final = msgspec.json.Decoder(list[SchemaViolationOut] | None)


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageFilter:
    """Which messages a list shows."""

    event_types: list[str] | None
    channel: str | None
    tag: str | None
    before: datetime | None
    after: datetime | None
    content: bool

    def born_ms(self, slack: timedelta) -> dict[str, int | None]:
        """In which milliseconds the ids of what may pass were made, for `Page.span`.

        Args:
            slack: by how much, at most, the time in an id differs from the time that is filtered by.
        """
        return {
            "oldest_ms": _ms(self.after) - _ms(slack) if self.after is not None else None,
            "newest_ms": _ms(self.before) + _ms(slack) if self.before is not None else None,
        }


def read_filter(call: Call) -> MessageFilter:
    """The filter that a request asks for; times count without an iterator only, as in the reference.

    Raises:
        ApiError: 422.
    """
    before, after = call.asked(BEFORE), call.asked(AFTER)
    first = call.asked(ITERATOR) is None
    return MessageFilter(
        event_types=call.asked(EVENT_TYPES),
        channel=call.asked(CHANNEL),
        tag=call.asked(TAG),
        before=before if first else None,
        after=after if first else None,
        content=call.asked(WITH_CONTENT),
    )


async def list_all(call: Call) -> Answer:
    """List the messages of an application."""
    page = read_page(call, descending=True)
    wanted = read_filter(call)
    app = await objects.application(call)
    rows = await call.connection.fetch(
        page.directed(
            """
            SELECT m.id, m.event_id, m.event_type, m.channels, m.tags, m.ordering_key, m.deliver_at, m.content_type,
                m.accepted_at, m.schema_violations, b.message IS NOT NULL AS kept,
                CASE WHEN $10 THEN b.body END AS body, m.examined, w.wanted
            FROM (
                SELECT e.*, row_number() OVER () AS examined FROM (
                    SELECT * FROM hookledger.message
                    WHERE app = $1 AND id > $2 AND id < $3
                    ORDER BY id :direction LIMIT :most
                ) e ORDER BY e.id :direction
            ) m
                LEFT JOIN hookledger.message_body b ON b.message = m.id
                CROSS JOIN LATERAL (SELECT
                    ($5::text[] IS NULL OR m.event_type = ANY($5)) AND ($6::text IS NULL OR $6 = ANY(m.channels))
                    AND ($7::text IS NULL OR $7 = ANY(m.tags))
                    AND ($8::timestamptz IS NULL OR m.accepted_at < $8)
                    AND ($9::timestamptz IS NULL OR m.accepted_at > $9) AS wanted) w
            WHERE w.wanted OR m.examined = :most
            ORDER BY m.id :direction LIMIT $4
            """,
        ),
        app.id,
        *page.span(page.bound(Prefix.MESSAGE), **wanted.born_ms(CLOCK_SLACK)),
        page.fetched,
        wanted.event_types,
        wanted.channel,
        wanted.tag,
        wanted.before,
        wanted.after,
        wanted.content,
    )
    return ok(page.sifted(rows, lambda row: out(row, content=wanted.content), key))


async def get(call: Call) -> Answer:
    """Get a message, by its id or by the event id that its sender gave it."""
    content = call.asked(WITH_CONTENT)
    app = await objects.application(call)
    identity = await message_id(call, app.id)
    row = await call.connection.fetchrow(
        """
        SELECT m.id, m.event_id, m.event_type, m.channels, m.tags, m.ordering_key, m.deliver_at, m.content_type,
            m.accepted_at, m.schema_violations, b.message IS NOT NULL AS kept, b.body
        FROM hookledger.message m LEFT JOIN hookledger.message_body b ON b.message = m.id
        WHERE m.app = $1 AND m.id = $2
        """,
        app.id,
        identity,
    )
    if row is None:
        raise not_found("message")
    return ok(out(row, content=content))


async def message_id(call: Call, app: UUID) -> UUID:
    """The message of the application that the path names, by id or by the sender's event id.

    Raises:
        ApiError: 404.
    """
    text = call.named("msg")
    try:
        identity: UUID | None = ids.decode(Prefix.MESSAGE, text)
    except BadIdError:
        identity = None
    found: UUID | None = None
    if identity is not None:
        found = await call.connection.fetchval(
            "SELECT id FROM hookledger.message WHERE app = $1 AND id = $2", app, identity
        )
    if found is None and objects.UID.fullmatch(text):
        found = await call.connection.fetchval(
            "SELECT id FROM hookledger.message WHERE app = $1 AND event_id = $2 ORDER BY id DESC LIMIT 1", app, text
        )
    if found is None:
        raise not_found("message")
    return found


def key(row: asyncpg.Record) -> str:
    """A message's id in the API."""
    return ids.encode(Prefix.MESSAGE, row["id"])


def out(row: asyncpg.Record, *, content: bool) -> MessageOut:
    """A message as the API shows it, from a row that has the columns of the queries above."""
    return MessageOut(
        id=key(row),
        event_id=row["event_id"],
        event_type=row["event_type"],
        payload=_payload(row, content=content),
        channels=sorted(row["channels"]) or None,
        tags=sorted(row["tags"]) or None,
        ordering_key=row["ordering_key"],
        deliver_at=row["deliver_at"],
        timestamp=row["accepted_at"],
        schema_violations=_VIOLATIONS.decode(row["schema_violations"] or "null"),
    )


def _ms(time: datetime | timedelta) -> int:
    """Milliseconds, of a time since 1970."""
    return (time if isinstance(time, timedelta) else time - _EPOCH) // timedelta(milliseconds=1)


def _payload(row: asyncpg.Record, *, content: bool) -> Any:
    if not row["kept"]:
        return EXPIRED
    return payload(row["body"], row["content_type"]) if content else {}


def payload(body: bytes, content_type: str) -> msgspec.Raw | Mapping[str, Any]:
    """A body as the API shows it: the very bytes of a JSON object; of anything else, base64."""
    if body.lstrip(b" \t\r\n").startswith(b"{"):
        try:
            orjson.loads(body)
        except orjson.JSONDecodeError:
            pass
        else:
            return msgspec.Raw(body)
    return {"base64": base64.b64encode(body).decode(), "contentType": content_type}
