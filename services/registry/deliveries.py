"""Deliveries: a message at an endpoint, as a list, one by one, and with all that the ledger has on it."""

from typing import Any, Final
from uuid import UUID

import asyncpg
import msgspec
import orjson

from libs.common.contracts.operations import Time
from libs.common.contracts.registry import Kind
from libs.common.domain import ids
from libs.common.domain.delivery import Status
from libs.common.domain.ids import BadIdError, Prefix
from libs.common.postgres.registry import Changes
from libs.common.runtime.http import invalid
from services.registry import objects
from services.registry.answers import Answer, ok
from services.registry.audit import actor_out
from services.registry.calls import Call
from services.registry.endpoint_health import EndpointHealthOut, of_endpoint
from services.registry.fields import Out
from services.registry.paging import read_page, whole
from services.registry.parameters import PAGE, text, texts
from services.registry.parsing import conflict, not_found

MESSAGE: Final = text("messageId", "Only deliveries of this message.")
ENDPOINT: Final = text("endpointId", "Only deliveries to this endpoint, by id or uid.")
STATUS: Final = texts("status", "Only deliveries that have one of these statuses.", list(Status))
FILTER: Final = (*PAGE, MESSAGE, ENDPOINT, STATUS)

_IDS: Final = {"attempt": Prefix.ATTEMPT, "message": Prefix.MESSAGE, "source": Prefix.SOURCE, "job": Prefix.JOB}
_NAMES: Final = {name: f"{name}Id" for name in _IDS}


class DeliveryOut(Out):
    """A delivery as the API shows it."""

    id: str
    message_id: str
    endpoint_id: str
    event_type: str
    status: str
    run: int
    attempts: int
    failures: int
    last_status: int | None
    attempt_id: str | None
    next_attempt: Time | None
    version: int
    created_at: Time
    updated_at: Time


class DeliveryInDetailOut(DeliveryOut):
    """A delivery, and how its endpoint fares now: None where that is deleted."""

    endpoint_health: EndpointHealthOut | None


class LedgerEventOut(Out):
    """A fact as the API shows it."""

    version: int
    kind: str
    at: Time
    schema: int
    endpoint_id: str | None
    data: dict[str, Any]


async def list_all(call: Call) -> Answer:
    """List the deliveries of an application."""
    page = read_page(call, descending=True)
    app = await objects.application(call)
    message, endpoint = _queried_message(call), await _queried_endpoint(call, app.id)
    # Deliveries of one message were born in its millisecond, and so are found without an index of their own.
    born_ms = ids.born_ms(message) if message is not None else None
    of_app = endpoint is None or message is not None
    rows = await call.connection.fetch(
        page.directed(
            """
            SELECT s.delivery, s.message, s.endpoint, m.event_type, s.status, s.run, s.attempts, s.failures,
                s.last_status, s.attempt, s.due_at, s.version, s.created_at, s.updated_at, s.examined, w.wanted
            FROM (
                SELECT e.*, row_number() OVER () AS examined FROM (
                    SELECT * FROM projection_1.delivery_state
                    WHERE :scope = $8 AND delivery > $2 AND delivery < $3
                    ORDER BY delivery :direction LIMIT :most
                ) e ORDER BY e.delivery :direction
            ) s
                LEFT JOIN hookledger.message m ON m.id = s.message
                CROSS JOIN LATERAL (SELECT s.app = $1 AND ($5::uuid IS NULL OR s.message = $5)
                    AND ($6::uuid IS NULL OR s.endpoint = $6) AND ($7::text[] IS NULL OR s.status = ANY($7))
                    AS wanted) w
            WHERE w.wanted OR s.examined = :most
            ORDER BY s.delivery :direction LIMIT $4
            """,
            scope="app" if of_app else "endpoint",
        ),
        app.id,
        *page.span(page.bound(Prefix.DELIVERY), oldest_ms=born_ms, newest_ms=born_ms),
        page.fetched,
        message,
        endpoint,
        call.asked(STATUS),
        app.id if of_app else endpoint,
    )
    return ok(page.sifted(rows, _out, _key))


async def get(call: Call) -> Answer:
    """Get a delivery."""
    row = await _delivery(call)
    endpoint = ids.encode(Prefix.ENDPOINT, row["endpoint"])
    found = await objects.find(call, Kind.ENDPOINT, endpoint, app=row["app"])
    health = await of_endpoint(call.connection, found) if found is not None else None
    return ok(DeliveryInDetailOut(**msgspec.structs.asdict(_out(row)), endpoint_health=health))


async def ledger(call: Call) -> Answer:
    """List every fact of a delivery, in order."""
    delivery = await _delivery(call)
    rows = await call.connection.fetch(
        """
        SELECT version, kind, schema, at, endpoint, data FROM hookledger.fact
        WHERE stream = $1 ORDER BY version
        """,
        delivery["delivery"],
    )
    return ok(whole([_fact_out(row) for row in rows]))


async def skip(call: Call, _: Changes) -> Answer:
    """Skip a delivery that is not over: it ends as cancelled, and its ordered lane goes on.

    One that is in flight is skipped after its attempt, unless that succeeds.
    """
    delivery = await _delivery(call)
    if Status(delivery["status"]).terminal:
        raise conflict(f"the delivery is over: {delivery['status']}")
    await call.connection.execute(
        "INSERT INTO hookledger.skip_request (delivery, actor) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        delivery["delivery"],
        call.caller.actor,
    )
    return ok(_out(delivery), 202)


async def _delivery(call: Call) -> asyncpg.Record:
    app = await objects.application(call)
    try:
        identity = ids.decode(Prefix.DELIVERY, call.named("delivery"))
    except BadIdError:
        raise not_found("delivery") from None
    row = await call.connection.fetchrow(
        """
        SELECT s.delivery, s.app, s.message, s.endpoint, m.event_type, s.status, s.run, s.attempts, s.failures,
            s.last_status, s.attempt, s.due_at, s.version, s.created_at, s.updated_at
        FROM projection_1.delivery_state s JOIN hookledger.message m ON m.id = s.message
        WHERE s.delivery = $1 AND s.app = $2
        """,
        identity,
        app.id,
    )
    if row is None:
        raise not_found("delivery")
    return row


def _queried_message(call: Call) -> UUID | None:
    text = call.asked(MESSAGE)
    if text is None:
        return None
    try:
        return ids.decode(Prefix.MESSAGE, text)
    except BadIdError as error:
        raise invalid(["query", "messageId"], f"it is {error}") from None


async def _queried_endpoint(call: Call, app: UUID) -> UUID | None:
    text = call.asked(ENDPOINT)
    if text is None:
        return None
    try:
        identity = ids.decode(Prefix.ENDPOINT, text)
    except BadIdError:
        return (await objects.require(call, Kind.ENDPOINT, text, app=app)).id
    return await objects.known(call, identity, app=app)


def _key(row: asyncpg.Record) -> str:
    return ids.encode(Prefix.DELIVERY, row["delivery"])


def _out(row: asyncpg.Record) -> DeliveryOut:
    return DeliveryOut(
        id=_key(row),
        message_id=ids.encode(Prefix.MESSAGE, row["message"]),
        endpoint_id=ids.encode(Prefix.ENDPOINT, row["endpoint"]),
        event_type=row["event_type"],
        status=row["status"],
        run=row["run"],
        attempts=row["attempts"],
        failures=row["failures"],
        last_status=row["last_status"],
        attempt_id=ids.encode(Prefix.ATTEMPT, row["attempt"]) if row["attempt"] is not None else None,
        next_attempt=row["due_at"],
        version=row["version"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _fact_out(row: asyncpg.Record) -> LedgerEventOut:
    return LedgerEventOut(
        version=row["version"],
        kind=row["kind"],
        at=row["at"],
        schema=row["schema"],
        endpoint_id=ids.encode(Prefix.ENDPOINT, row["endpoint"]) if row["endpoint"] is not None else None,
        data={_camel(name): _shown(name, value) for name, value in orjson.loads(row["data"]).items()},
    )


def _camel(name: str) -> str:
    first, *others = _NAMES.get(name, name).split("_")
    return first + "".join(part.capitalize() for part in others)


def _shown(name: str, value: Any) -> Any:
    """A value with its ids as the API writes them; keys and processes have none there."""
    if name == "actor":
        return actor_out(value)
    prefix = _IDS.get(name)
    return ids.encode(prefix, UUID(value)) if prefix is not None and isinstance(value, str) else value
