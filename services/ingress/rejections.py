"""Keeping what could not be accepted, with its reason, so that it can be looked at and admitted later.

A flood of forged requests must not fill the disk or slow the accepted ones: what is kept of each source is bounded in
rate, number, bytes and age, and written off the answer's path; the rest is only counted.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg
import orjson

from libs.common.domain.facts import Origin
from libs.common.postgres.pool import CONNECTION_ERRORS, CONTENT_ERRORS, Connection, Pool, transaction
from libs.common.runtime.clock import monotonic, new_id, now
from libs.common.runtime.logs import logger
from libs.common.runtime.waiting import set_within
from services.ingress import metrics

_LOG: Final = logger("rejections")
KEPT_PER_SOURCE: Final = 1000
KEPT_BYTES_PER_SOURCE: Final = 64 * 1024 * 1024
KEPT_FOR: Final = timedelta(days=30)
MAX_WAITING: Final = 256
MAX_WAITING_BYTES: Final = 16 * 1024 * 1024
FLUSH_SECONDS: Final = 0.25
RATE: Final = 10.0
"""Kept of one source each second, by this replica."""
BURST: Final = 100.0

_HEADERS: Final = frozenset(
    {
        "content-encoding", "content-length", "content-type", "date", "user-agent", "x-request-id",
    }
)  # fmt: skip
_HEADER_FAMILIES: Final = ("x-hookledger-",)
_MAX_INTEGER: Final = 2**31 - 1
_KEPT_HEADERS: Final = 32
_KEPT_HEADER_CHARACTERS: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """A request or broker message that was refused, and why.

    Args:
        reason: for operators; what a sender wrote must have been through `kept_text`.
    """

    org: UUID
    app: UUID | None
    source: UUID | None
    origin: Origin
    status: int
    reason: str
    headers: Mapping[str, list[str]]
    body: bytes = field(repr=False)
    size: int
    id: UUID = field(default_factory=new_id)
    at: datetime = field(default_factory=now)

    @property
    def place(self) -> UUID:
        """Whose bounds it falls under: its source's, or its application's or organisation's without one."""
        return self.source or self.app or self.org


def kept_headers(headers: Iterable[tuple[str, str]], evidence: Collection[str] = ()) -> dict[str, list[str]]:
    """What is needed to judge the request again; nothing that authenticates its sender elsewhere.

    Args:
        headers: the request's.
        evidence: names (lower case) of those that the sender's scheme looks at.
    """
    kept: dict[str, list[str]] = {}
    for name, value in headers:
        lowered = name.lower()
        if lowered in _HEADERS or lowered in evidence or lowered.startswith(_HEADER_FAMILIES):
            kept.setdefault(lowered, []).append(kept_text(value[:_KEPT_HEADER_CHARACTERS]))
        if len(kept) == _KEPT_HEADERS:
            break
    return kept


def kept_text(text: str) -> str:
    """The text as Postgres can hold it: without NUL, and without halves of surrogate pairs."""
    return text.encode("utf-8", "replace").decode().replace("\0", "")


class _Allowance:
    """A token bucket."""

    __slots__ = ("_at", "_tokens")

    def __init__(self) -> None:
        self._tokens = BURST
        self._at = monotonic()

    def take(self) -> bool:
        """Whether one more is within the rate."""
        at = monotonic()
        self._tokens = min(BURST, self._tokens + (at - self._at) * RATE)
        self._at = at
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Rejections:
    """The writer of rejected ones."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._waiting: list[Rejection] = []
        self._waiting_bytes = 0
        self._arrived = asyncio.Event()
        self._stopping = asyncio.Event()
        self._allowances: dict[UUID, _Allowance] = {}

    def keep(self, rejection: Rejection) -> None:
        """Keep this soon, unless too many come."""
        allowance = self._allowances.setdefault(rejection.place, _Allowance())
        full = len(self._waiting) >= MAX_WAITING or self._waiting_bytes + len(rejection.body) > MAX_WAITING_BYTES
        if full or not allowance.take():
            metrics.REJECTED_UNKEPT.inc()
            return
        self._waiting.append(rejection)
        self._waiting_bytes += len(rejection.body)
        self._arrived.set()

    async def run(self) -> None:
        """Write until `stop`, then what is left."""
        while self._waiting or not self._stopping.is_set():
            if not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            await set_within(self._stopping, FLUSH_SECONDS)
            batch, self._waiting, self._waiting_bytes = self._waiting, [], 0
            if batch:
                await self._settle(batch)

    def stop(self) -> None:
        """End `run` when nothing waits any more."""
        self._stopping.set()
        self._arrived.set()

    async def _settle(self, batch: list[Rejection]) -> None:
        """Write these; what Postgres does not take is lost, without the others."""
        try:
            await self._write(batch)
        except (*CONNECTION_ERRORS, asyncpg.PostgresError, UnicodeError) as error:
            if len(batch) > 1 and isinstance(error, (*CONTENT_ERRORS, UnicodeError)):
                middle = len(batch) // 2
                await self._settle(batch[:middle])
                await self._settle(batch[middle:])
                return
            metrics.REJECTED_UNKEPT.inc(len(batch))
            _LOG.warning("rejections.lost", count=len(batch), reason=str(error) or type(error).__name__)

    async def _write(self, batch: list[Rejection]) -> None:
        async with transaction(self._pool) as connection:
            await connection.execute(
                """
                INSERT INTO hookledger.rejected
                    (id, org, app, source, origin, status, reason, headers, body, size, at)
                SELECT u.id, u.org, u.app, u.source, u.origin, u.status, u.reason, u.headers::jsonb, u.body, u.size,
                    u.at
                FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::smallint[], $7::text[],
                    $8::text[], $9::bytea[], $10::int[], $11::timestamptz[])
                    AS u (id, org, app, source, origin, status, reason, headers, body, size, at)
                """,
                [each.id for each in batch],
                [each.org for each in batch],
                [each.app for each in batch],
                [each.source for each in batch],
                [str(each.origin) for each in batch],
                [each.status for each in batch],
                [each.reason for each in batch],
                [orjson.dumps(each.headers).decode() for each in batch],
                [each.body for each in batch],
                [min(each.size, _MAX_INTEGER) for each in batch],
                [each.at for each in batch],
            )
            for place in {each.place for each in batch}:
                await _trim(connection, place)


async def _trim(connection: Connection, place: UUID) -> None:
    """Delete all but the newest of a place, in number and bytes."""
    # The sum reads sizes, not bytes: octet_length of a stored value looks at its header alone.
    await connection.execute(
        """
        DELETE FROM hookledger.rejected WHERE id = ANY (ARRAY(
            SELECT k.id FROM (
                SELECT r.id, row_number() OVER newest AS place, sum(octet_length(r.body)) OVER newest AS bytes
                FROM hookledger.rejected r
                WHERE coalesce(r.source, r.app, r.org) = $1
                WINDOW newest AS (ORDER BY r.id DESC)
            ) k WHERE k.place > $2 OR k.bytes > $3))
        """,
        place,
        KEPT_PER_SOURCE,
        KEPT_BYTES_PER_SOURCE,
    )


async def forget_old(pool: Pool, *, most: int) -> int:
    """Delete at most `most` that are older than `KEPT_FOR`; how many it took."""
    status = await pool.execute(
        """
        DELETE FROM hookledger.rejected WHERE id = ANY (ARRAY(
            SELECT id FROM hookledger.rejected WHERE at < clock_timestamp() - $1::interval ORDER BY at LIMIT $2))
        """,
        KEPT_FOR,
        most,
    )
    return int(status.rpartition(" ")[2])
