"""Sending once more: resend, recover, replay. Each is a job that the dispatchers work through; here it is begun."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, cast
from uuid import UUID

import asyncpg
from msgspec.structs import replace

from libs.common.contracts.operations import Time
from libs.common.contracts.registry import JobDocument, Kind, RegistryObject
from libs.common.domain import ids
from libs.common.domain.ids import BadIdError, Prefix
from libs.common.domain.job import Task
from libs.common.postgres.jobs import begin_job, cancel_job, disabled_spans
from libs.common.postgres.registry import Changes
from libs.common.postgres.snapshot import object_of
from libs.common.runtime.http import invalid
from services.registry import messages, objects
from services.registry.answers import Answer, ok
from services.registry.calls import Call
from services.registry.endpoints import enabled_endpoint
from services.registry.fields import EventTypes, In, Out
from services.registry.paging import read_page
from services.registry.parsing import conflict, not_found

FURTHEST_BACK: Final = timedelta(days=14)


class RecoverIn(In, frozen=True):
    """The time whose failures are sent once more, `until` excluded."""

    since: Time
    until: Time | None = None


class ReplayIn(RecoverIn, frozen=True):
    """The part of the history that is sent anew."""

    event_types: EventTypes | None = None
    only_failed: bool = False


class JobOut(Out):
    """A job as the API shows it: the reference's background task, with what Hookledger knows beside.

    `examined` counts the messages that were looked at, `requested` those that are sent once more; `data` says that
    in the reference's words.
    """

    id: str
    task: Task
    status: str
    endpoint_id: str
    message_id: str | None
    since: Time | None
    until: Time | None
    event_types: tuple[str, ...] | None
    only_failed: bool
    examined: int
    requested: int
    reason: str | None
    data: dict[str, Any]
    created_at: Time
    updated_at: Time


async def resend(call: Call, changes: Changes) -> Answer:
    """Resend a message to an endpoint: one manual attempt, whatever was before."""
    app = await objects.application(call)
    message = await messages.message_id(call, app.id)
    found = await enabled_endpoint(call)
    kept = await call.connection.fetchval("SELECT true FROM hookledger.message_body WHERE message = $1", message)
    if not kept:
        raise conflict("the message's payload was erased or has expired, so that it cannot be sent")
    return await _begin(call, changes, JobDocument(task=Task.RESEND, endpoint=found.id, message=message))


async def recover(call: Call, changes: Changes) -> Answer:
    """Resend all messages of a time that failed, or that the endpoint missed while it was disabled."""
    body = call.content(RecoverIn)
    found = await enabled_endpoint(call)
    document = await _range(call, body, JobDocument(task=Task.RECOVER, endpoint=found.id))
    if await _now(call) - body.since > FURTHEST_BACK:
        raise invalid(["body", "since"], f"recovering reaches back {FURTHEST_BACK.days} days; a replay reaches further")
    return await _begin(call, changes, document)


async def replay_missing(call: Call, changes: Changes) -> Answer:
    """Send the messages of a time that were never sent to the endpoint."""
    body = call.content(RecoverIn)
    found = await enabled_endpoint(call)
    document = JobDocument(task=Task.REPLAY_MISSING, endpoint=found.id)
    return await _begin(call, changes, await _range(call, body, document))


async def replay(call: Call, changes: Changes) -> Answer:
    """Send a part of the history to the endpoint, each message with its schedule anew."""
    body = call.content(ReplayIn)
    found = await enabled_endpoint(call)
    document = JobDocument(
        task=Task.REPLAY, endpoint=found.id, event_types=body.event_types, only_failed=body.only_failed
    )
    return await _begin(call, changes, await _range(call, body, document))


async def list_all(call: Call) -> Answer:
    """List the jobs of an application."""
    page = read_page(call, descending=True)
    app = await objects.application(call)
    found = await objects.list_objects(call, Kind.JOB, page, app=app.id)
    rows = await _rows(call, [item.id for item in found])
    return ok(page.of([_out(item, rows[item.id]) for item in found], lambda item: item.id))


async def get(call: Call) -> Answer:
    """Get a job and how far it has come."""
    return ok(await _shown(call, await _job(call)))


async def background_task(call: Call) -> Answer:
    """Get a job by its id alone, as newer versions of the reference have it."""
    try:
        identity = ids.decode(Prefix.JOB, call.named("job"))
    except BadIdError:
        raise not_found("job") from None
    row = await call.connection.fetchrow(
        """
        SELECT id, kind, org, app, uid, version, registry_version, created_at, updated_at, deleted_at, data
        FROM hookledger.registry_object WHERE id = $1 AND kind = 'job' AND org = $2
        """,
        identity,
        call.caller.org,
    )
    if row is None:
        raise not_found("job")
    return ok(await _shown(call, object_of(row)))


async def cancel(call: Call, changes: Changes) -> Answer:
    """Cancel a job: it requests no more; what it has requested is sent."""
    found = await _job(call)
    if not await cancel_job(changes, found) and not cast("JobDocument", found.document).cancelled:
        raise conflict("the job is over")
    return ok(await _shown(call, found))


async def _job(call: Call) -> RegistryObject:
    app = await objects.application(call)
    return await objects.require(call, Kind.JOB, call.named("job"), app=app.id)


async def _range(call: Call, body: RecoverIn, document: JobDocument) -> JobDocument:
    """The document with the time that the body says; nothing that comes later than now is meant."""
    at = await _now(call)
    until = at if body.until is None else min(body.until, at)
    if body.since >= until:
        raise invalid(["body", "since"], "it lies before `until`, and before now")
    disabled = await disabled_spans(call.connection, document.endpoint)
    return replace(document, since=body.since, until=until, disabled=disabled)


async def _now(call: Call) -> datetime:
    at: datetime = await call.connection.fetchval("SELECT clock_timestamp()")
    return at


async def _begin(call: Call, changes: Changes, document: JobDocument) -> Answer:
    app = await objects.application(call)
    created = await begin_job(changes, document, org=call.caller.org, app=app.id)
    return ok(await _shown(call, created), 202)


async def _shown(call: Call, job: RegistryObject) -> JobOut:
    return _out(job, (await _rows(call, [job.id]))[job.id])


async def _rows(call: Call, jobs: list[UUID]) -> Mapping[UUID, asyncpg.Record]:
    rows = await call.connection.fetch(
        "SELECT id, state, reason, examined, requested, updated_at FROM hookledger.job WHERE id = ANY($1)", jobs
    )
    return {row["id"]: row for row in rows}


def _out(job: RegistryObject, row: asyncpg.Record) -> JobOut:
    document = cast("JobDocument", job.document)
    return JobOut(
        id=ids.encode(Prefix.JOB, job.id),
        task=document.task,
        status=row["state"],
        endpoint_id=ids.encode(Prefix.ENDPOINT, document.endpoint),
        message_id=ids.encode(Prefix.MESSAGE, document.message) if document.message is not None else None,
        since=document.since,
        until=document.until,
        event_types=document.event_types,
        only_failed=document.only_failed,
        examined=row["examined"],
        requested=row["requested"],
        reason=row["reason"],
        data={"messagesSent": row["requested"]},
        created_at=job.created_at,
        updated_at=row["updated_at"],
    )
