"""What follows for an endpoint from its health: it is called failing, it recovers, it is disabled.

The one place that turns health into changes of the registry. It looks at the projection, so that nothing depends on
what the broker delivers, and at those endpoints only that have failed since it looked last.
"""

from datetime import datetime, timedelta
from typing import Final, assert_never, cast
from uuid import UUID

import asyncpg
import msgspec
from msgspec.structs import replace

from libs.common.contracts.configuration import config_version
from libs.common.contracts.registry import EndpointDocument, FailingDocument, RegistryObject
from libs.common.domain.health import Health, Limits, Verdict, judge
from libs.common.domain.ids import Prefix, encode
from libs.common.postgres import health
from libs.common.postgres.pool import CONNECTION_ERRORS, Connection, Pool
from libs.common.postgres.registry import SYSTEM, Changes, Verb, changing
from libs.common.postgres.snapshot import object_of
from libs.common.runtime.logs import logger
from services.registry.announcing import Announcer
from services.registry.metrics import UNJUDGED

_LOG: Final = logger("verdicts")
LOOK_BACK: Final = timedelta(minutes=5)
"""More than a failure may take from its time to its being seen, which is `health.BEHIND` and a batch."""

NEWS: Final = """
    SELECT h.endpoint
    FROM projection_1.endpoint_health h JOIN hookledger.registry_object e ON e.id = h.endpoint
    WHERE h.failing_since IS NOT NULL AND h.last_failure_at > $1
        AND (h.gone_at IS NOT NULL OR h.last_failure_at - h.failing_since >= $2)
        AND e.kind = 'endpoint' AND e.deleted_at IS NULL
        AND NOT coalesce((e.data ->> 'disabled')::boolean, false)
    UNION ALL
    SELECT e.id
    FROM hookledger.registry_object e JOIN projection_1.endpoint_health h ON h.endpoint = e.id
    WHERE e.kind = 'endpoint' AND e.deleted_at IS NULL AND e.data ? 'failing' AND h.failing_since IS NULL
"""
"""Enabled endpoints that fail, and have since $1, for $2 or with a 410; and those called failing that fail no more."""

_LONG_AGO: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


class Verdicts:
    """Judges endpoints by their health.

    Args:
        pool: of the registry.
        announcer: is told of each change.
        limits: of the installation.
    """

    def __init__(self, pool: Pool, announcer: Announcer, limits: Limits) -> None:
        self._pool = pool
        self._announcer = announcer
        self._limits = limits
        self._seen_until = _LONG_AGO
        self._unjudged: frozenset[UUID] = frozenset()

    async def sweep(self) -> None:
        """Judge the endpoints of whom there is news; the first time, all that fail.

        One that cannot be judged keeps none of the others from it, and is judged again the next time.
        """
        now: datetime = await self._pool.fetchval("SELECT clock_timestamp()")
        if not await health.current(self._pool):
            return
        shortest = min(self._limits.failing_after or timedelta.max, self._limits.disabled_after or timedelta.max)
        rows = await self._pool.fetch(
            NEWS,
            self._seen_until,
            shortest,
        )
        unjudged: set[UUID] = set()
        for endpoint in {*self._unjudged, *(row["endpoint"] for row in rows)}:
            try:
                await self._judge(endpoint)
            except CONNECTION_ERRORS:
                raise  # nobody can be judged
            except (asyncpg.PostgresError, msgspec.MsgspecError) as error:
                # It lost against another change, or its rows are such as this version neither reads nor may write.
                UNJUDGED.inc()
                unjudged.add(endpoint)
                if endpoint not in self._unjudged:
                    _LOG.error(
                        "endpoint.unjudged",
                        endpoint=encode(Prefix.ENDPOINT, endpoint),
                        reason=str(error) or type(error).__name__,
                    )
        self._unjudged = frozenset(unjudged)
        self._seen_until = now - LOOK_BACK

    async def _judge(self, endpoint: UUID) -> None:
        """Judge one endpoint by what is true when nobody else can change the registry."""
        async with self._pool.acquire() as connection, changing(connection, SYSTEM) as changes:
            found = await _endpoint(connection, endpoint)
            known = (await health.read(connection, [endpoint])).get(endpoint)
            if found is None or known is None or not await health.current(connection):
                return
            document = cast("EndpointDocument", found.document)
            verdict = judge(
                known.health,
                config_version=config_version(found),
                failing=document.failing is not None,
                limits=self._limits,
            )
            if verdict is None:
                return
            changed = await _carry_out(changes, verdict, found, known.health)
        _LOG.info(
            "endpoint.judged",
            endpoint=encode(Prefix.ENDPOINT, endpoint),
            verdict=verdict,
            since=known.health.failing_since,
        )
        self._announcer.announce(changed.registry_version)


async def _endpoint(connection: Connection, endpoint: UUID) -> RegistryObject | None:
    row = await connection.fetchrow(
        """
        SELECT id, kind, org, app, uid, version, registry_version, created_at, updated_at, deleted_at, data
        FROM hookledger.registry_object
        WHERE id = $1 AND kind = 'endpoint' AND deleted_at IS NULL
            AND NOT coalesce((data ->> 'disabled')::boolean, false)
        """,
        endpoint,
    )
    return None if row is None else object_of(row)


async def _carry_out(changes: Changes, verdict: Verdict, found: RegistryObject, known: Health) -> RegistryObject:
    document = cast("EndpointDocument", found.document)
    match verdict:
        case Verdict.GONE | Verdict.FAILED:
            gone = verdict is Verdict.GONE
            return await changes.update(
                found,
                replace(document, disabled=True, failing=None),
                uid=found.uid,
                verb=Verb.DISABLED,
                reason="gone" if gone else "failing",
                fail_since=known.failing_since,
            )
        case Verdict.FAILING:
            assert known.failing_since is not None
            failing = FailingDocument(since=known.failing_since, config_version=config_version(found))
            return await changes.update(
                found,
                replace(document, failing=failing),
                uid=found.uid,
                verb=Verb.FAILING,
                fail_since=known.failing_since,
            )
        case Verdict.RECOVERED:
            since = document.failing.since if document.failing is not None else None
            return await changes.update(
                found, replace(document, failing=None), uid=found.uid, verb=Verb.RECOVERED, fail_since=since
            )
        case _:
            assert_never(verdict)
