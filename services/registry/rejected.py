"""Inbound requests and broker messages that could not be accepted, with the reason."""

from typing import Any

import asyncpg
import orjson

from libs.common.contracts.operations import Time
from libs.common.domain import ids
from libs.common.domain.ids import Prefix
from services.registry import objects
from services.registry.answers import Answer, ok
from services.registry.calls import Call
from services.registry.fields import Out
from services.registry.messages import payload
from services.registry.paging import read_page


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


async def list_all(call: Call) -> Answer:
    """List what an application's senders sent and could not be accepted, with the reason."""
    page = read_page(call, descending=True)
    app = await objects.application(call)
    rows = await call.connection.fetch(
        page.directed(
            """
            SELECT id, source, origin, status, reason, headers, body, size, at FROM hookledger.rejected
            WHERE app = $1 AND id :beyond $2
            ORDER BY id :direction LIMIT $3
            """
        ),
        app.id,
        page.bound(Prefix.REJECTED),
        page.fetched,
    )
    return ok(page.of([_out(row) for row in rows], lambda item: item.id))


def _out(row: asyncpg.Record) -> RejectedOut:
    headers = orjson.loads(row["headers"])
    return RejectedOut(
        id=ids.encode(Prefix.REJECTED, row["id"]),
        source_id=ids.encode(Prefix.SOURCE, row["source"]) if row["source"] is not None else None,
        origin=row["origin"],
        status=row["status"],
        reason=row["reason"],
        headers=headers,
        payload=payload(row["body"], "application/octet-stream"),
        size=row["size"],
        timestamp=row["at"],
    )
