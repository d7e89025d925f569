"""Attempts: those that have ended, from their projection, and the one in flight, from its delivery's."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
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
CLOCK_SLACK: Final = timedelta(seconds=10)
"""A dispatcher makes an attempt's id by its own clock, which follows the database's, within the transaction whose time
is recorded."""
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


# Those in flight are looked for among 500 deliveries only, of an endpoint the newest: an index of them would cost each
# attempt a write. Another attempt shows when it has ended.
_LIST: Final = """
    SELECT t.*, CASE WHEN $14 THEN c.response END AS response, c.erased, c.url_query, e.data ->> 'url' AS endpoint_url
    FROM (
        (SELECT a.*, w.wanted
        FROM (
            SELECT e.*, row_number() OVER () AS examined FROM (
                SELECT attempt, delivery, app, message, endpoint, result, status, failure, url, total_us, trigger,
                    started_at
                FROM projection_1.attempt
                WHERE :scope = $1 AND attempt > $2 AND attempt < $3
                ORDER BY attempt :direction LIMIT :most
            ) e ORDER BY e.attempt :direction
        ) a
            LEFT JOIN hookledger.message m ON m.id = a.message
            CROSS JOIN LATERAL (SELECT a.app = $4
                AND ($6::text[] IS NULL OR a.result = ANY($6))
                AND ($7::int IS NULL OR coalesce(a.status, 0) / 100 * 100 = $7)
                AND ($8::text[] IS NULL OR m.event_type = ANY($8)) AND ($9::text IS NULL OR $9 = ANY(m.channels))
                AND ($10::text IS NULL OR $10 = ANY(m.tags)) AND ($11::timestamptz IS NULL OR a.started_at < $11)
                AND ($12::timestamptz IS NULL OR a.started_at > $12)
                AND ($13::uuid IS NULL OR a.endpoint = $13) AS wanted) w
        WHERE w.wanted OR a.examined = :most
        ORDER BY a.attempt :direction LIMIT $5)
        UNION ALL
        (SELECT s.attempt, s.delivery, s.app, s.message, s.endpoint, 'sending', NULL, NULL, NULL,
            NULL, CASE WHEN s.beside IS NULL THEN 'scheduled' ELSE 'manual' END, s.updated_at, NULL, true
        FROM (SELECT * FROM projection_1.delivery_state WHERE :scope = $1 ORDER BY :then DESC LIMIT 500) s
            JOIN hookledger.message m ON m.id = s.message
        WHERE s.status = 'sending' AND s.app = $4 AND s.attempt > $2 AND s.attempt < $3
            AND ($6::text[] IS NULL OR 'sending' = ANY($6)) AND ($7::int IS NULL OR $7 = 0)
            AND ($8::text[] IS NULL OR m.event_type = ANY($8)) AND ($9::text IS NULL OR $9 = ANY(m.channels))
            AND ($10::text IS NULL OR $10 = ANY(m.tags)) AND ($11::timestamptz IS NULL OR s.updated_at < $11)
            AND ($12::timestamptz IS NULL OR s.updated_at > $12)
            AND ($13::uuid IS NULL OR s.endpoint = $13))
    ) t
    LEFT JOIN hookledger.attempt_content c ON c.delivery = t.delivery AND c.attempt = t.attempt
    LEFT JOIN hookledger.registry_object e ON e.id = t.endpoint
    ORDER BY t.attempt :direction LIMIT $5
"""


async def list_by_endpoint(call: Call) -> Answer:
    """List the attempts at an endpoint."""
    wanted = _read_wanted(call, endpoint=None)
    app = await objects.application(call)
    endpoint = await objects.require(call, Kind.ENDPOINT, call.named("endpoint"), app=app.id)
    return await _list(call, app.id, endpoint.id, wanted, by=("endpoint", "delivery"))


async def list_by_message(call: Call) -> Answer:
    """List the attempts of a message."""
    app = await objects.application(call)
    message = await message_id(call, app.id)
    wanted = _read_wanted(call, endpoint=await _queried_endpoint(call, app.id))
    return await _list(call, app.id, message, wanted, by=("message", "endpoint"))


async def _list(call: Call, app: UUID, of: UUID, wanted: _Wanted, *, by: tuple[str, str]) -> Answer:
    """The page of what is wanted among the attempts of an endpoint or a message.

    Args:
        call: the request.
        app: the application.
        of: the endpoint or message.
        wanted: the filter.
        by: the columns by which an index holds the deliveries of the endpoint or message.
    """
    page = read_page(call, descending=True)
    which = wanted.messages
    rows = await call.connection.fetch(
        page.directed(_LIST, scope=by[0]).replace(":then", by[1]),
        of,
        *page.span(page.bound(Prefix.ATTEMPT), **which.born_ms(CLOCK_SLACK)),
        app,
        page.fetched,
        wanted.results,
        wanted.status_class,
        which.event_types,
        which.channel,
        which.tag,
        which.before,
        which.after,
        wanted.endpoint,
        which.content,
    )
    return ok(page.sifted(rows, lambda row: _out(row, content=which.content), _key))


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


def _key(row: asyncpg.Record | Mapping[str, Any]) -> str:
    return ids.encode(Prefix.ATTEMPT, row["attempt"])


def _out(row: asyncpg.Record | Mapping[str, Any], *, content: bool) -> AttemptOut:
    status = statuses.of_attempt(row["result"])
    query = f"?{row['url_query']}" if row["url_query"] is not None else ""
    return AttemptOut(
        id=_key(row),
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
