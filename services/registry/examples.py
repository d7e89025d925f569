"""Sending an example of an event type to one endpoint: a message like any other, that goes nowhere else."""

import hashlib
from typing import Final, cast

import msgspec
import orjson

from libs.common.contracts import ledger
from libs.common.contracts.messages import MessageOut
from libs.common.contracts.registry import EventTypeDocument, JobDocument, Kind
from libs.common.domain import ids
from libs.common.domain.facts import MessageAccepted, Origin
from libs.common.domain.ids import Prefix
from libs.common.domain.job import Task
from libs.common.domain.message import JSON
from libs.common.postgres.jobs import begin_job
from libs.common.postgres.registry import Changes
from libs.common.runtime.clock import random_bytes
from libs.common.runtime.http import ApiError
from services.registry import objects
from services.registry.answers import Answer, ok
from services.registry.calls import Call
from services.registry.endpoints import enabled_endpoint
from services.registry.example_payloads import payload_of
from services.registry.fields import EventTypeName, In

PING: Final = "svix.ping"
_SALT_BYTES: Final = 16


class EventExampleIn(In, frozen=True):
    """The type of which an example is sent."""

    event_type: EventTypeName


async def send(call: Call, changes: Changes) -> Answer:
    """Send an example of an event type to an endpoint, and to no other."""
    body = call.content(EventExampleIn)
    found = await enabled_endpoint(call)
    payload = orjson.dumps(await _payload(call, body.event_type))
    assert found.app is not None
    at = await call.connection.fetchval("SELECT clock_timestamp()")
    message = ids.time_ordered(int(at.timestamp() * 1000), random_bytes(10))
    job = await begin_job(
        changes,
        JobDocument(task=Task.EXAMPLE, endpoint=found.id, message=message),
        org=call.caller.org,
        app=found.app,
    )
    fact = MessageAccepted(
        at=at,
        event_type=body.event_type,
        origin=Origin.EXAMPLE,
        source=None,
        registry_version=job.registry_version,
        publish=False,
    )
    kind, schema, data = ledger.encode(fact)
    salt = random_bytes(_SALT_BYTES)
    await call.connection.execute(
        """
        WITH message AS (
            INSERT INTO hookledger.message (id, org, app, event_type, channels, origin, content_type, body_hash,
                body_bytes, publish, registry_version, accepted_at)
            VALUES ($1, $2, $3, $4, '{}', $5, $6, $7, $8, false, $9, $10)
        ), body AS (
            INSERT INTO hookledger.message_body (message, salt, body) VALUES ($1, $11, $12)
        )
        INSERT INTO hookledger.fact (stream, version, epoch, app, kind, schema, at, data)
        SELECT $1, 1, max(epoch), $3, $13, $14, $10, $15 FROM hookledger.ledger_epoch
        """,
        message,
        call.caller.org,
        found.app,
        body.event_type,
        Origin.EXAMPLE,
        JSON,
        hashlib.sha256(salt + payload).digest(),
        len(payload),
        job.registry_version,
        at,
        salt,
        payload,
        kind,
        schema,
        data,
    )
    return ok(
        MessageOut(
            id=ids.encode(Prefix.MESSAGE, message),
            event_id=None,
            event_type=body.event_type,
            payload=msgspec.Raw(payload),
            channels=None,
            tags=None,
            ordering_key=None,
            deliver_at=None,
            schema_violations=None,
            timestamp=at,
        )
    )


async def _payload(call: Call, name: str) -> object:
    if name == PING:
        return {"success": True}
    found = await objects.find(call, Kind.EVENT_TYPE, name)
    if found is None:
        raise ApiError(404, "there is no such event type")
    return payload_of(cast("EventTypeDocument", found.document).schemas or {})
