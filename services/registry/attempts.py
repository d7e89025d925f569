"""Attempts: those that have ended, from their projection, and the one in flight, from its delivery's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast
from uuid import UUID

import asyncpg

from libs.common.contracts.operations import Time
from libs.common.contracts.registry import Kind
from libs.common.domain import ids
from libs.common.domain.attempts import ABANDONED, UNKNOWN
from libs.common.domain.facts import Trigger
from libs.common.domain.ids import BadIdError, Prefix
from libs.common.domain.outcome import Answer as Outcome
from libs.common.domain.outcome import Failure, describe
from services.registry import objects, statuses
from services.registry.answers import Answer, ok
from services.registry.calls import Call
from services.registry.fields import Out
from services.registry.messages import FILTER, MessageFilter, message_id, read_filter
from services.registry.paging import read_page
from services.registry.parameters import choice, text
from services.registry.parsing import not_found

_TRIGGERS: Final = {Trigger.SCHEDULED: 0, Trigger.MANUAL: 1}
STATUS_CODE_CLASS: Final = choice(
    "status_code_class",
    "Only attempts answered with a status of this class; 0 for no answer.",
    ("0", "100", "200", "300", "400", "500"),
)
ENDPOINT: Final = text("endpoint_id", "Only attempts at this endpoint.")
FILTER_BY_ENDPOINT: Final = (*FILTER, statuses.STATUS, STATUS_CODE_CLASS)
FILTER_BY_MESSAGE: Final = (*FILTER_BY_ENDPOINT, ENDPOINT)
EXPUNGED: Final = "EXPUNGED"
_WITHOUT_ANSWER: Final = {
    ABANDONED: "not sent: the dispatcher was stopping",
    UNKNOWN: "the outcome is not known: the dispatcher died meanwhile",
    statuses.SENDING: "",
}


class AttemptOut(Out):
    """An attempt as the API shows it. `result` and `failure` are Hookledger's own, more exact words."""

    id: str
    msg_id: str
    endpoint_id: str
    delivery_id: str
    url: str
    status: int
    status_text: str
    response: str
    response_status_code: int
    response_duration_ms: int
    trigger_type: int
    timestamp: Time
    result: str
    failure: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """Which attempts a list shows."""

    results: list[str] | None
    status_class: int | None
    endpoint: UUID | None
    messages: MessageFilter


async def list_by_endpoint(call: Call) -> Answer:
    """List the attempts at an endpoint."""
    page = read_page(call, descending=True)
    wanted = _read_wanted(call, endpoint=None)
    app = await objects.application(call)
    endpoint = await objects.require(call, Kind.ENDPOINT, call.named("endpoint"), app=app.id)
    rows = await call.connection.fetch(
        page.directed(
            # In flight: looked for among the endpoint's newest deliveries only, because there is no index of those in
            # flight, which would cost each attempt a write; another attempt shows when it has ended.
            """
            SELECT t.*, CASE WHEN $11 THEN c.response END AS response, c.erased, c.url_query,
                e.data ->> 'url' AS endpoint_url
            FROM (
                (SELECT a.attempt, a.delivery, a.app, a.message, a.endpoint, a.result, a.status, a.failure, a.url,
                    a.total_us, a.trigger, a.started_at
                FROM projection_1.attempt a JOIN hookledger.message m ON m.id = a.message
                WHERE a.endpoint = $1 AND a.app = $2 AND a.attempt :beyond $3
                    AND ($5::text[] IS NULL OR a.result = ANY($5))
                    AND ($6::int IS NULL OR coalesce(a.status, 0) / 100 * 100 = $6)
                    AND ($7::text[] IS NULL OR m.event_type = ANY($7)) AND ($8::text IS NULL OR $8 = ANY(m.channels))
                    AND ($12::text IS NULL OR $12 = ANY(m.tags)) AND ($9::timestamptz IS NULL OR a.started_at < $9)
                    AND ($10::timestamptz IS NULL OR a.started_at > $10)
                ORDER BY a.attempt :direction LIMIT $4)
                UNION ALL
                (SELECT s.attempt, s.delivery, s.app, s.message, s.endpoint, 'sending', NULL, NULL, NULL,
                    NULL, CASE WHEN s.beside IS NULL THEN 'scheduled' ELSE 'manual' END, s.updated_at
                FROM (SELECT * FROM projection_1.delivery_state WHERE endpoint = $1 ORDER BY delivery DESC LIMIT 500) s
                JOIN hookledger.message m ON m.id = s.message
                WHERE s.status = 'sending' AND s.app = $2 AND s.attempt :beyond $3
                    AND ($5::text[] IS NULL OR 'sending' = ANY($5)) AND ($6::int IS NULL OR $6 = 0)
                    AND ($7::text[] IS NULL OR m.event_type = ANY($7)) AND ($8::text IS NULL OR $8 = ANY(m.channels))
                    AND ($12::text IS NULL OR $12 = ANY(m.tags)) AND ($9::timestamptz IS NULL OR s.updated_at < $9)
                    AND ($10::timestamptz IS NULL OR s.updated_at > $10))
            ) t
            LEFT JOIN hookledger.attempt_content c ON c.delivery = t.delivery AND c.attempt = t.attempt
            LEFT JOIN hookledger.registry_object e ON e.id = t.endpoint
            ORDER BY t.attempt :direction LIMIT $4
            """
        ),
        endpoint.id,
        app.id,
        page.bound(Prefix.ATTEMPT),
        page.fetched,
        wanted.results,
        wanted.status_class,
        wanted.messages.event_types,
        wanted.messages.channel,
        wanted.messages.before,
        wanted.messages.after,
        wanted.messages.content,
        wanted.messages.tag,
    )
    return ok(page.of([_out(row, content=wanted.messages.content) for row in rows], lambda item: item.id))


async def list_by_message(call: Call) -> Answer:
    """List the attempts of a message."""
    page = read_page(call, descending=True)
    app = await objects.application(call)
    message = await message_id(call, app.id)
    wanted = _read_wanted(call, endpoint=await _queried_endpoint(call, app.id))
    rows = await call.connection.fetch(
        page.directed(
            """
            SELECT t.*, CASE WHEN $11 THEN c.response END AS response, c.erased, c.url_query,
                e.data ->> 'url' AS endpoint_url
            FROM (
                SELECT a.attempt, a.delivery, a.app, a.message, a.endpoint, a.result, a.status, a.failure, a.url,
                    a.total_us, a.trigger, a.started_at
                FROM projection_1.attempt a WHERE a.message = $1
                UNION ALL
                SELECT s.attempt, s.delivery, s.app, s.message, s.endpoint, 'sending', NULL, NULL, NULL,
                    NULL, CASE WHEN s.beside IS NULL THEN 'scheduled' ELSE 'manual' END, s.updated_at
                FROM projection_1.delivery_state s WHERE s.message = $1 AND s.status = 'sending'
            ) t
            JOIN hookledger.message m ON m.id = t.message
            LEFT JOIN hookledger.attempt_content c ON c.delivery = t.delivery AND c.attempt = t.attempt
            LEFT JOIN hookledger.registry_object e ON e.id = t.endpoint
            WHERE t.app = $2 AND t.attempt :beyond $3
                AND ($5::text[] IS NULL OR t.result = ANY($5))
                AND ($6::int IS NULL OR coalesce(t.status, 0) / 100 * 100 = $6)
                AND ($7::text[] IS NULL OR m.event_type = ANY($7)) AND ($8::text IS NULL OR $8 = ANY(m.channels))
                AND ($9::timestamptz IS NULL OR t.started_at < $9)
                AND ($10::timestamptz IS NULL OR t.started_at > $10)
                AND ($12::uuid IS NULL OR t.endpoint = $12) AND ($13::text IS NULL OR $13 = ANY(m.tags))
            ORDER BY t.attempt :direction LIMIT $4
            """
        ),
        message,
        app.id,
        page.bound(Prefix.ATTEMPT),
        page.fetched,
        wanted.results,
        wanted.status_class,
        wanted.messages.event_types,
        wanted.messages.channel,
        wanted.messages.before,
        wanted.messages.after,
        wanted.messages.content,
        wanted.endpoint,
        wanted.messages.tag,
    )
    return ok(page.of([_out(row, content=wanted.messages.content) for row in rows], lambda item: item.id))


async def get(call: Call) -> Answer:
    """Get an attempt of a message."""
    app = await objects.application(call)
    message = await message_id(call, app.id)
    try:
        attempt = ids.decode(Prefix.ATTEMPT, call.named("attempt"))
    except BadIdError:
        raise not_found("attempt") from None
    row = await call.connection.fetchrow(
        """
        SELECT t.*, c.response, c.erased, c.url_query, e.data ->> 'url' AS endpoint_url
        FROM (
            SELECT a.attempt, a.delivery, a.app, a.message, a.endpoint, a.result, a.status, a.failure, a.url,
                a.total_us, a.trigger, a.started_at
            FROM projection_1.attempt a WHERE a.message = $1 AND a.attempt = $3
            UNION ALL
            SELECT s.attempt, s.delivery, s.app, s.message, s.endpoint, 'sending', NULL, NULL, NULL,
                NULL, CASE WHEN s.beside IS NULL THEN 'scheduled' ELSE 'manual' END, s.updated_at
            FROM projection_1.delivery_state s WHERE s.message = $1 AND s.status = 'sending' AND s.attempt = $3
        ) t
        LEFT JOIN hookledger.attempt_content c ON c.delivery = t.delivery AND c.attempt = t.attempt
        LEFT JOIN hookledger.registry_object e ON e.id = t.endpoint
        WHERE t.app = $2
        """,
        message,
        app.id,
        attempt,
    )
    if row is None:
        raise not_found("attempt")
    return ok(_out(row, content=True))


def _read_wanted(call: Call, endpoint: UUID | None) -> _Wanted:
    status_class = call.asked(STATUS_CODE_CLASS)
    return _Wanted(
        results=statuses.results(statuses.read_status(call)),
        status_class=None if status_class is None else int(status_class),
        endpoint=endpoint,
        messages=read_filter(call),
    )


async def _queried_endpoint(call: Call, app: UUID) -> UUID | None:
    text = call.asked(ENDPOINT)
    if text is None:
        return None
    return (await objects.require(call, Kind.ENDPOINT, text, app=app)).id


def _out(row: asyncpg.Record | Mapping[str, Any], *, content: bool) -> AttemptOut:
    status = statuses.of_attempt(row["result"])
    query = f"?{row['url_query']}" if row["url_query"] is not None else ""
    return AttemptOut(
        id=ids.encode(Prefix.ATTEMPT, row["attempt"]),
        msg_id=ids.encode(Prefix.MESSAGE, row["message"]),
        endpoint_id=ids.encode(Prefix.ENDPOINT, row["endpoint"]),
        delivery_id=ids.encode(Prefix.DELIVERY, row["delivery"]),
        url=row["url"] + query if row["url"] is not None else row["endpoint_url"] or "",
        status=status.value,
        status_text=status.text,
        response=_response(row) if content else "",
        response_status_code=row["status"] or 0,
        response_duration_ms=(row["total_us"] or 0) // 1000,
        trigger_type=_TRIGGERS[Trigger(row["trigger"])],
        timestamp=row["started_at"],
        result=row["result"],
        failure=row["failure"],
    )


def _response(row: asyncpg.Record | Mapping[str, Any]) -> str:
    """What the receiver said; where it said nothing, why."""
    if row["erased"]:
        return EXPUNGED
    if row["response"] is not None:
        return cast("bytes", row["response"]).decode("utf-8", "replace")
    if row["status"] is not None:
        return ""
    if row["failure"] is not None:
        return describe(Outcome(failure=Failure(row["failure"])))
    return _WITHOUT_ANSWER.get(row["result"], "")
