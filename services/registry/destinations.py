"""Where a message went, and what went to an endpoint: deliveries in the reference's two shapes."""

from typing import Any, Final
from uuid import UUID

import asyncpg

from libs.common.contracts.messages import MessageOut
from libs.common.contracts.operations import Time
from libs.common.domain import ids
from libs.common.domain.delivery import Status
from libs.common.domain.ids import Prefix
from libs.common.postgres.snapshot import object_of
from services.registry import endpoints, messages, objects, statuses
from services.registry.answers import Answer, ok
from services.registry.calls import Call
from services.registry.paging import Page, read_page

FILTER: Final = (*messages.FILTER, statuses.STATUS)


class EndpointMessageOut(MessageOut, kw_only=True):
    """A message, and how it fares at the endpoint asked for."""

    status: int
    status_text: str
    next_attempt: Time | None


class MessageEndpointOut(endpoints.EndpointOut, kw_only=True):
    """An endpoint, and how the message asked for fares there."""

    status: int
    status_text: str
    next_attempt: Time | None


async def attempted_messages(call: Call) -> Answer:
    """List the messages that went to an endpoint, and how they fare there."""
    page = read_page(call, descending=True)
    wanted = messages.read_filter(call)
    status = statuses.read_status(call)
    endpoint = await endpoints.endpoint(call)
    rows = await call.connection.fetch(
        page.directed(
            """
            SELECT m.id, m.event_id, m.event_type, m.channels, m.tags, m.ordering_key, m.deliver_at, m.content_type,
                m.accepted_at, m.schema_violations, b.message IS NOT NULL AS kept,
                CASE WHEN $11 THEN b.body END AS body,
                s.status, s.attempts, s.due_at, s.examined, w.wanted
            FROM (
                SELECT e.*, row_number() OVER () AS examined FROM (
                    SELECT * FROM projection_1.delivery_state
                    WHERE endpoint = $1 AND delivery > $2 AND delivery < $3
                    ORDER BY delivery :direction LIMIT :most
                ) e ORDER BY e.delivery :direction
            ) s
                LEFT JOIN hookledger.message m ON m.id = s.message
                LEFT JOIN hookledger.message_body b ON b.message = s.message
                CROSS JOIN LATERAL (SELECT
                    ($5::text[] IS NULL OR m.event_type = ANY($5)) AND ($6::text IS NULL OR $6 = ANY(m.channels))
                    AND ($7::text IS NULL OR $7 = ANY(m.tags))
                    AND ($8::timestamptz IS NULL OR m.accepted_at < $8)
                    AND ($9::timestamptz IS NULL OR m.accepted_at > $9)
                    AND ($10::text[] IS NULL OR
                        CASE WHEN s.status = 'waiting' AND s.attempts = 0 THEN 'unbegun' ELSE s.status END = ANY($10))
                    AS wanted) w
            WHERE w.wanted OR s.examined = :most
            ORDER BY s.delivery :direction LIMIT $4
            """,
        ),
        endpoint.id,
        *page.span(_delivery_bound(page, endpoint.id), **wanted.born_ms(messages.CLOCK_SLACK)),
        page.fetched,
        wanted.event_types,
        wanted.channel,
        wanted.tag,
        wanted.before,
        wanted.after,
        statuses.delivery_statuses(status),
        wanted.content,
    )
    return ok(page.sifted(rows, lambda row: _message_out(row, content=wanted.content), messages.key))


async def attempted_destinations(call: Call) -> Answer:
    """List the endpoints that a message went to, and how it fares there; deleted ones, too."""
    page = read_page(call, descending=True)
    app = await objects.application(call)
    message = await messages.message_id(call, app.id)
    rows = await call.connection.fetch(
        page.directed(
            """
            SELECT o.id, o.kind, o.org, o.app, o.uid, o.version, o.registry_version, o.created_at, o.updated_at,
                o.deleted_at, o.data, s.status, s.attempts, s.due_at
            FROM projection_1.delivery_state s JOIN hookledger.registry_object o ON o.id = s.endpoint
            WHERE s.message = $1 AND s.app = $2 AND o.id :beyond $3
            ORDER BY o.id :direction LIMIT $4
            """
        ),
        message,
        app.id,
        page.bound(Prefix.ENDPOINT),
        page.fetched,
    )
    return ok(page.of([_endpoint_out(row) for row in rows], lambda item: item.id))


def _delivery_bound(page: Page, endpoint: UUID) -> UUID:
    """The delivery at which the page begins: its id follows from the message's, and its order nearly so."""
    bound = page.bound(Prefix.MESSAGE)
    return bound if page.iterator is None else ids.delivery_id(bound, endpoint)


def _fate(row: asyncpg.Record) -> dict[str, Any]:
    status = statuses.of_delivery(Status(row["status"]), row["attempts"])
    return {"status": status.value, "status_text": status.text, "next_attempt": row["due_at"]}


def _message_out(row: asyncpg.Record, *, content: bool) -> EndpointMessageOut:
    message = messages.out(row, content=content)
    return EndpointMessageOut(**{name: getattr(message, name) for name in message.__struct_fields__}, **_fate(row))


def _endpoint_out(row: asyncpg.Record) -> MessageEndpointOut:
    endpoint = endpoints.out(object_of(row))
    return MessageEndpointOut(**{name: getattr(endpoint, name) for name in endpoint.__struct_fields__}, **_fate(row))
