"""Sending an example of an event type to one endpoint: a message like any other, that goes nowhere else."""

from typing import Final, cast

import msgspec
import orjson

from libs.common.contracts import operational
from libs.common.contracts.messages import MessageOut
from libs.common.contracts.registry import EventTypeDocument, JobDocument, Kind
from libs.common.domain import ids
from libs.common.domain.facts import Origin
from libs.common.domain.ids import Prefix
from libs.common.domain.job import Task
from libs.common.domain.message import Message
from libs.common.domain.operational import NAMES, News
from libs.common.postgres import acceptance
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


class EventExampleIn(In, frozen=True):
    """The type of which an example is sent."""

    event_type: EventTypeName


async def send(call: Call, changes: Changes) -> Answer:
    """Send an example of an event type to an endpoint, and to no other."""
    body = call.content(EventExampleIn)
    found = await enabled_endpoint(call)
    payload = await _payload(call, body.event_type)
    assert found.app is not None
    at = await call.connection.fetchval("SELECT clock_timestamp()")
    message = ids.time_ordered(int(at.timestamp() * 1000), random_bytes(10))
    job = await begin_job(
        changes,
        JobDocument(task=Task.EXAMPLE, endpoint=found.id, message=message),
        org=call.caller.org,
        app=found.app,
    )
    example = Message(
        id=message,
        org=call.caller.org,
        app=found.app,
        event_type=body.event_type,
        body=payload,
        accepted_at=at,
        registry_version=job.registry_version,
        origin=Origin.EXAMPLE,
    )
    epoch = await call.connection.fetchval("SELECT max(epoch) FROM hookledger.ledger_epoch")
    await acceptance.insert_unsent(call.connection, example, epoch=epoch)
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


async def _payload(call: Call, name: str) -> bytes:
    if name == PING:
        return b'{"success":true}'
    found = await objects.find(call, Kind.EVENT_TYPE, name)
    if found is not None:
        return orjson.dumps(payload_of(cast("EventTypeDocument", found.document).schemas or {}))
    if name in NAMES:
        return operational.example(News(name))
    raise ApiError(404, "there is no such event type")
