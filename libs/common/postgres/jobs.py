"""Beginning jobs and calling them off: the object that says what is asked for, and the row that the work goes along."""

from uuid import UUID

import msgspec
from msgspec.structs import replace

from libs.common.contracts import registry as documents
from libs.common.contracts.registry import EndpointDocument, JobDocument, Kind, RegistryObject
from libs.common.postgres.pool import Connection
from libs.common.postgres.registry import Changes, FactData, Verb
from libs.common.runtime.clock import new_id

MOST_SPANS = 1_000
"""So many times that an endpoint was disabled are looked back at, the last ones."""


async def begin_job(changes: Changes, document: JobDocument, *, org: UUID, app: UUID) -> RegistryObject:
    """A job, which a dispatcher takes up when it sees the registry's new version."""
    created = await changes.create(Kind.JOB, new_id(), document, org=org, app=app)
    await changes.connection.execute("INSERT INTO hookledger.job (id) VALUES ($1)", created.id)
    return created


async def cancel_job(changes: Changes, job: RegistryObject) -> bool:
    """Call a job off, unless it is over; what it has requested by then is sent."""
    assert isinstance(job.document, JobDocument)
    stopped = await changes.connection.fetchval(
        """
        UPDATE hookledger.job SET state = 'cancelled', updated_at = clock_timestamp()
        WHERE id = $1 AND state = 'running' RETURNING true
        """,
        job.id,
    )
    if stopped:
        await changes.update(job, replace(job.document, cancelled=True), uid=job.uid, verb=Verb.CANCELLED)
    return bool(stopped)


async def disabled_spans(connection: Connection, endpoint: UUID) -> tuple[tuple[int, int], ...]:
    """The half-open spans of the registry's versions in which an endpoint, now enabled, was disabled."""
    rows = await connection.fetch(
        "SELECT registry_version, data FROM hookledger.registry_fact WHERE stream = $1 ORDER BY version", endpoint
    )
    spans: list[tuple[int, int]] = []
    since: int | None = None
    for row in rows:
        data = msgspec.json.decode(row["data"], type=FactData)
        document = documents.decode(Kind.ENDPOINT, bytes(data.document))
        assert isinstance(document, EndpointDocument)
        if document.disabled and since is None:
            since = row["registry_version"]
        elif not document.disabled and since is not None:
            spans.append((since, row["registry_version"]))
            since = None
    return tuple(spans[-MOST_SPANS:])
