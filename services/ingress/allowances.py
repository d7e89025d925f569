"""Rates at which messages are accepted: of a key, and of an application.

The bucket of each stands in Postgres, so that a rate holds over all replicas; a replica takes a tenth of a second's
worth at a time and spends that by itself, so that a busy key costs ten statements a second and no more. What a replica
does not spend within a second is lost: a rate is met from below. An application or key without a rate costs nothing.
"""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import asyncpg

from libs.common.postgres.pool import CONNECTION_ERRORS, Pool
from libs.common.runtime.clock import monotonic
from libs.common.runtime.http import ApiError
from services.ingress import metrics
from services.ingress.accept import UnavailableError

SHARE_SECONDS: Final = 0.1
KEPT_SECONDS: Final = 1.0
MOST_REMEMBERED: Final = 10_000
_LONGEST_RETRY_SECONDS: Final = 3600
_LEAST_REFUSED_SECONDS: Final = 0.05


@dataclass(slots=True)
class _Share:
    """What this replica may still spend of a subject's tokens, or until when it knows that there are none."""

    tokens: int = 0
    spent_by: float = 0.0
    refused_until: float = 0.0
    retry_at: float = 0.0
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)


_NOTHING: Final = _Share()


class Allowances:
    """Spends tokens of keys and applications that have a rate.

    Args:
        pool: of the role `ingress`.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._shares: dict[UUID, _Share] = {}

    async def spend(self, subject: UUID, rate: float, *, count: int = 1, whose: str) -> None:
        """Take `count` tokens of a subject's.

        A batch is let in when there is one token, and runs up a debt that the next ones wait for.

        Args:
            subject: id of the key or the application.
            rate: messages a second; as many may come at once.
            count: messages.
            whose: limit it is, for the sender: `key` or `application`.

        Raises:
            ApiError: 429, with the seconds after which there will be one.
            UnavailableError: Postgres does not answer.
        """
        share = self._shares.get(subject)
        if share is None:
            share = self._remember(subject)
        if not self._spend(share, count):
            async with share.asking:
                if not self._spend(share, count):
                    if share.refused_until <= monotonic():
                        await self._ask(subject, share, rate, count)
                    if not self._spend(share, count):
                        raise _too_many(share, rate, whose)

    def spend_at_once(self, subjects: Sequence[UUID]) -> bool:
        """Take a token of each, if this replica has one of each; whether it took them."""
        at = monotonic()
        shares = [self._shares.get(subject, _NOTHING) for subject in subjects]
        if any(share.tokens < 1 or share.spent_by < at for share in shares):
            return False
        for share in shares:
            share.tokens -= 1
        return True

    @staticmethod
    def _spend(share: _Share, count: int) -> bool:
        if share.tokens < count or share.spent_by < monotonic():
            return False
        share.tokens -= count
        return True

    async def _ask(self, subject: UUID, share: _Share, rate: float, count: int) -> None:
        """Take a share from the bucket."""
        wanted = max(count, math.ceil(rate * SHARE_SECONDS))
        burst = max(1.0, rate)
        try:
            row = await self._pool.fetchrow(
                """
                INSERT INTO hookledger.allowance AS a (subject, tokens, granted, filled_at)
                VALUES ($1, $3::float8 - $4, true, clock_timestamp())
                ON CONFLICT (subject) DO UPDATE SET (tokens, granted, filled_at) = (
                    SELECT CASE WHEN f.tokens >= 1 THEN f.tokens - $4 ELSE f.tokens END, f.tokens >= 1, f.at
                    FROM (
                        SELECT least($3, a.tokens + $2::float8 * greatest(0, extract(epoch FROM n.at - a.filled_at))),
                            greatest(n.at, a.filled_at)
                        FROM (SELECT clock_timestamp()) AS n (at)
                    ) AS f (tokens, at))
                RETURNING tokens, granted
                """,
                subject,
                rate,
                burst,
                float(wanted),
            )
        except (*CONNECTION_ERRORS, asyncpg.PostgresError) as error:
            raise UnavailableError(str(error) or type(error).__name__) from error
        assert row is not None
        at = monotonic()
        if row["granted"]:
            share.tokens, share.spent_by = wanted, at + KEPT_SECONDS
        else:
            share.tokens = 0
            share.retry_at = at + (1 - row["tokens"]) / rate
            share.refused_until = min(share.retry_at, at + max(_LEAST_REFUSED_SECONDS, SHARE_SECONDS))

    def _remember(self, subject: UUID) -> _Share:
        if len(self._shares) >= MOST_REMEMBERED:
            at = monotonic()
            self._shares = {
                each: share for each, share in self._shares.items() if share.spent_by > at or share.asking.locked()
            }
        return self._shares.setdefault(subject, _Share())


def _too_many(share: _Share, rate: float, whose: str) -> ApiError:
    metrics.LIMITED.labels(whose).inc()
    seconds = min(max(1, math.ceil(share.retry_at - monotonic())), _LONGEST_RETRY_SECONDS)
    detail = f"more than {rate:g} messages a second: that is the limit of this {whose}"
    return ApiError(429, detail, headers={"Retry-After": str(seconds)})
