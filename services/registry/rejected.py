"""Inbound requests and broker messages that could not be accepted, with the reason."""

import base64
from typing import Any, Final
from uuid import UUID

import asyncpg
import msgspec
import orjson

from libs.common.contracts.operations import Time
from libs.common.domain import ids
from libs.common.domain.ids import BadIdError, Prefix
from libs.common.runtime.http import invalid
from services.registry import objects
from services.registry.answers import Answer, ok
from services.registry.calls import Call
from services.registry.fields import Out
from services.registry.messages import payload
from services.registry.paging import read_page
from services.registry.parameters import PAGE, text
from services.registry.parsing import not_found

SOURCE: Final = text("source", "Only what was sent to this source, by its id; also to one that was deleted.")
FILTER: Final = (*PAGE, SOURCE)


class RejectedOut(Out):
    """A rejection as the API shows it; `size` is that of the whole body, of which `payload` may be the beginning."""

    id: str
    source_id: str | None
    origin: str
    status: int
    reason: str
    headers: Any
    payload: Any
    size: int
    timestamp: Time
    message_id: str | None
    admitted_at: Time | None


class RejectedContentOut(RejectedOut):
    """With its raw bytes: all of them where their number is `size`."""

    body_base64: str


async def list_all(call: Call) -> Answer:
    """List what an application's senders sent and could not be accepted, with the reason."""
    page = read_page(call, descending=True)
    app = await objects.application(call)
    rows = await call.connection.fetch(
        page.directed(
            """
            SELECT r.id, r.source, r.origin, r.status, r.reason, r.headers, r.body, r.size, r.at, r.message,
                r.admitted_at, r.examined, w.wanted
            FROM (
                SELECT e.*, row_number() OVER () AS examined FROM (
                    SELECT * FROM hookledger.rejected
                    WHERE app = $1 AND id :beyond $2
                    ORDER BY id :direction LIMIT :most
                ) e ORDER BY e.id :direction
            ) r CROSS JOIN LATERAL (SELECT ($4::uuid IS NULL OR r.source = $4) AS wanted) w
            WHERE w.wanted OR r.examined = :most
            ORDER BY r.id :direction LIMIT $3
            """,
        ),
        app.id,
        page.bound(Prefix.REJECTED),
        page.fetched,
        _queried_source(call),
    )
    return ok(page.sifted(rows, _out, _key))


async def get(call: Call) -> Answer:
    """Get what was rejected, with its raw bytes."""
    app = await objects.application(call)
    try:
        identity = ids.decode(Prefix.REJECTED, call.named("rejected"))
    except BadIdError:
        raise not_found("rejected request") from None
    row = await call.connection.fetchrow(
        """
        SELECT id, source, origin, status, reason, headers, body, size, at, message, admitted_at
        FROM hookledger.rejected WHERE app = $1 AND id = $2
        """,
        app.id,
        identity,
    )
    if row is None:
        raise not_found("rejected request")
    shown = msgspec.structs.asdict(_out(row))
    return ok(RejectedContentOut(**shown, body_base64=base64.b64encode(row["body"]).decode()))


def _queried_source(call: Call) -> UUID | None:
    named = call.asked(SOURCE)
    try:
        return None if named is None else ids.decode(Prefix.SOURCE, named)
    except BadIdError:
        raise invalid(["query", "source"], "it is no id of a source") from None


def _key(row: asyncpg.Record) -> str:
    return ids.encode(Prefix.REJECTED, row["id"])


def _out(row: asyncpg.Record) -> RejectedOut:
    headers = orjson.loads(row["headers"])
    return RejectedOut(
        id=_key(row),
        source_id=ids.encode(Prefix.SOURCE, row["source"]) if row["source"] is not None else None,
        origin=row["origin"],
        status=row["status"],
        reason=row["reason"],
        headers=headers,
        payload=payload(row["body"], "application/octet-stream"),
        size=row["size"],
        timestamp=row["at"],
        message_id=ids.encode(Prefix.MESSAGE, row["message"]) if row["message"] is not None else None,
        admitted_at=row["admitted_at"],
    )
