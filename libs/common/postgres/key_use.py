"""When each API key was last used: written off the requests' path, and at most once a minute for each key."""

import asyncio
from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg

from libs.common.postgres.pool import CONNECTION_ERRORS, Pool
from libs.common.runtime.clock import monotonic, now
from libs.common.runtime.logs import logger

_LOG: Final = logger("key_use")
EVERY_SECONDS: Final = 60.0


class KeyUse:
    """Remembers which keys were used, until `run` has written it down."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._noted: dict[UUID, float] = {}
        self._unwritten: dict[UUID, datetime] = {}
        self._wake = asyncio.Event()
        self._stopping = False

    def note(self, key: UUID) -> None:
        """The key was used now."""
        at = monotonic()
        if at - self._noted.get(key, -EVERY_SECONDS) >= EVERY_SECONDS:
            self._noted[key] = at
            self._unwritten[key] = now()
            self._wake.set()

    def stop(self) -> None:
        """End `run` after what is still to be written."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Write until `stop`. What a database that is away does not take is lost; the next use tells more."""
        while not self._stopping:
            await self._wake.wait()
            self._wake.clear()
            unwritten, self._unwritten = self._unwritten, {}
            try:
                await self._write(unwritten)
            except (*CONNECTION_ERRORS, asyncpg.PostgresError) as error:
                _LOG.warning("key_use.unwritten", keys=len(unwritten), reason=str(error) or type(error).__name__)

    async def _write(self, used: dict[UUID, datetime]) -> None:
        # Sorted, so that two replicas never wait for each other in a circle. The condition: others write it down too.
        keys = sorted(used)
        await self._pool.execute(
            """
            INSERT INTO hookledger.key_use AS u (key, last_used_at)
            SELECT key, at FROM unnest($1::uuid[], $2::timestamptz[]) AS n (key, at)
            ON CONFLICT (key) DO UPDATE SET last_used_at = excluded.last_used_at
            WHERE u.last_used_at < excluded.last_used_at - interval '30 seconds'
            """,
            keys,
            [used[key] for key in keys],
        )
