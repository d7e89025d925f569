"""Disabling endpoints that answered 410: told by the broker at once, and found in the projection if it forgot."""

import asyncio
from datetime import datetime
from typing import Final, cast
from uuid import UUID

import msgspec
from aio_pika.abc import AbstractIncomingMessage
from msgspec.structs import replace

from libs.common.contracts.registry import EndpointDocument
from libs.common.domain import ids
from libs.common.domain.ids import BadIdError, Prefix
from libs.common.postgres.pool import CONNECTION_ERRORS, RETRYABLE_ERRORS, Pool
from libs.common.postgres.registry import SYSTEM, Verb, changing
from libs.common.postgres.snapshot import object_of
from libs.common.runtime.logs import logger
from services.registry.announcing import Announcer

_LOG: Final = logger("gone")
TYPE: Final = "delivery.gone"
REASON: Final = "gone"
RETRY_SECONDS: Final = 1.0


class _Gone(msgspec.Struct, rename="camel"):
    """What matters of the outcome; the rest is for others."""

    endpoint_id: str
    at: datetime | None = None


class _Event(msgspec.Struct):
    """A CloudEvent in structured JSON."""

    type: str
    time: datetime | None = None
    data: msgspec.Raw = msgspec.Raw(b"null")


class GoneEndpoints:
    """Disables endpoints, unless they were changed since they answered 410."""

    def __init__(self, pool: Pool, announcer: Announcer) -> None:
        self._pool = pool
        self._announcer = announcer

    async def handle(self, message: AbstractIncomingMessage) -> None:
        """One outcome from the broker, held while Postgres is away: to go back would use up its delivery limit."""
        try:
            found = _read(message.body)
        except (msgspec.DecodeError, BadIdError, ValueError) as error:
            _LOG.warning("gone.unreadable", reason=str(error))
            await message.reject(requeue=False)
            return
        while found is not None:
            try:
                await self.disable(*found)
                break
            except (*CONNECTION_ERRORS, *RETRYABLE_ERRORS) as error:
                _LOG.warning("gone.postponed", reason=str(error) or type(error).__name__)
                await asyncio.sleep(RETRY_SECONDS)
        await message.ack()

    async def sweep(self) -> None:
        """Disable the endpoints that answered 410 since they were last changed."""
        rows = await self._pool.fetch("""
            SELECT a.endpoint, max(a.ended_at) AS at
            FROM projection_1.attempt a JOIN hookledger.registry_object e ON e.id = a.endpoint
            WHERE a.result = 'gone' AND e.kind = 'endpoint' AND e.deleted_at IS NULL
                AND NOT coalesce((e.data ->> 'disabled')::boolean, false) AND a.ended_at > e.updated_at
            GROUP BY a.endpoint
        """)
        for row in rows:
            await self.disable(row["endpoint"], row["at"])

    async def disable(self, endpoint: UUID, at: datetime) -> None:
        """Disable an endpoint that asked at `at` for no more, unless it was changed since, or is disabled."""
        async with self._pool.acquire() as connection, changing(connection, SYSTEM) as changes:
            row = await connection.fetchrow(
                """
                SELECT id, kind, org, app, uid, version, registry_version, created_at, updated_at, deleted_at, data
                FROM hookledger.registry_object
                WHERE id = $1 AND kind = 'endpoint' AND deleted_at IS NULL AND updated_at < $2
                """,
                endpoint,
                at,
            )
            if row is None:
                return
            found = object_of(row)
            document = cast("EndpointDocument", found.document)
            if document.disabled:
                return
            changed = await changes.update(
                found, replace(document, disabled=True), uid=found.uid, verb=Verb.DISABLED, reason=REASON
            )
        _LOG.info("endpoint.disabled", endpoint=str(endpoint), reason=REASON)
        self._announcer.announce(changed.registry_version)


def _read(body: bytes) -> tuple[UUID, datetime] | None:
    """The endpoint and the time of an event; None for other events.

    Raises:
        ValueError: it cannot be read.
    """
    event = msgspec.json.decode(body, type=_Event)
    if event.type != TYPE:
        return None
    data = msgspec.json.decode(event.data, type=_Gone)
    at = data.at or event.time
    if at is None or at.tzinfo is None:
        raise ValueError("the event has no time")
    return ids.decode(Prefix.ENDPOINT, data.endpoint_id), at
