"""The configuration of an endpoint as it was at a version or a time, also after it was deleted."""

from typing import Final
from uuid import UUID

import asyncpg

from libs.common.contracts.operations import Time
from libs.common.contracts.registry import Kind
from libs.common.domain import ids
from libs.common.domain.ids import BadIdError, Prefix
from libs.common.postgres.registry import RegistryFact, fold
from libs.common.runtime.http import invalid
from services.registry import objects
from services.registry.answers import Answer, ok
from services.registry.audit import ActorOut, actor_out
from services.registry.calls import Call
from services.registry.endpoints import EndpointOut, out
from services.registry.fields import Out
from services.registry.parameters import number, time
from services.registry.parsing import not_found

NEWEST: Final = (1 << 31) - 1

VERSION: Final = number("version", "As of this version.", default=NEWEST, least=1, most=NEWEST)
AT: Final = time("at", "As of this time.")


class EndpointConfigOut(Out):
    """An endpoint as it was from `at` on; `version` is what attempts were recorded with."""

    version: int
    registry_version: int
    at: Time
    actor: ActorOut
    deleted: bool
    endpoint: EndpointOut


async def get(call: Call) -> Answer:
    """Get the configuration of an endpoint as it was.

    As of a version, which attempts are recorded with, or a time; as of its last change without either. Also of an
    endpoint that was deleted.
    """
    version, at = call.asked(VERSION), call.asked(AT)
    if at is not None and version != NEWEST:
        raise invalid(["query", "at"], "a version is given too: one of both is enough")
    app = await objects.application(call)
    rows = await call.connection.fetch(
        """
        SELECT stream, version, org, app, kind, at, actor, registry_version, data
        FROM hookledger.registry_fact
        WHERE stream = $1 AND org = $2 AND app = $3 AND endpoint = $1
            AND version <= $4 AND ($5::timestamptz IS NULL OR at <= $5)
        ORDER BY version
        """,
        await _identity(call, app.id),
        call.caller.org,
        app.id,
        version,
        at,
    )
    if not rows or (version != NEWEST and rows[-1]["version"] != version):
        raise not_found("endpoint, or it had no such version, or did not exist at that time")
    last = rows[-1]
    found = fold(_fact(row) for row in rows)
    return ok(
        EndpointConfigOut(
            version=found.version,
            registry_version=found.registry_version,
            at=found.updated_at,
            actor=actor_out(last["actor"]),
            deleted=found.deleted_at is not None,
            endpoint=out(found),
        )
    )


async def _identity(call: Call, app: UUID) -> UUID:
    text = call.named("endpoint")
    try:
        return ids.decode(Prefix.ENDPOINT, text)  # also a deleted one's
    except BadIdError:
        return (await objects.require(call, Kind.ENDPOINT, text, app=app)).id


def _fact(row: asyncpg.Record) -> RegistryFact:
    fields = dict(row)
    del fields["actor"]
    return RegistryFact(**fields)
