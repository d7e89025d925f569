"""How an endpoint fares: its deliveries by status, and its attempts hour by hour."""

from collections import Counter
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg

from libs.common.contracts.operations import Time
from libs.common.domain import ids
from libs.common.domain.attempts import ABANDONED, UNKNOWN
from libs.common.domain.delivery import Status
from libs.common.runtime.clock import now
from libs.common.runtime.http import ApiError, unavailable
from services.registry import endpoints, statuses
from services.registry.answers import Answer, ok
from services.registry.calls import Call
from services.registry.fields import Out
from services.registry.parameters import time
from services.registry.statuses import MessageStatus

LONGEST_RANGE: Final = timedelta(days=28)
COUNT_SECONDS: Final = 5.0
"""How long deliveries are counted, one by one: what takes longer shall not hold a connection that others wait for."""
_MILLISECOND: Final = timedelta(milliseconds=1)
_EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


SINCE: Final = time("since", "Where the range begins: by default 28 days before its end, which is the most.")
UNTIL: Final = time("until", "Where the range ends: now by default.")


class HourOut(Out):
    """The attempts that ended within an hour. `average_ms` is over those that have an outcome."""

    hour: Time
    attempts: int
    succeeded: int
    failed: int
    average_ms: float | None


class EndpointStatsOut(Out):
    """The deliveries of messages accepted within the range, and the hours that it touches."""

    success: int
    pending: int
    sending: int
    fail: int
    canceled: int
    hours: list[HourOut]


async def get(call: Call) -> Answer:
    """Count how an endpoint fares: its deliveries by status, its attempts by hour."""
    since, until = _read_range(call)
    endpoint = await endpoints.endpoint(call)
    deliveries = await _count_deliveries(call, endpoint.id, since, until)
    hours = await call.connection.fetch(
        """
        SELECT hour, sum(attempts)::bigint AS attempts,
            coalesce(sum(attempts) FILTER (WHERE result = ANY($5)), 0)::bigint AS succeeded,
            sum(total_us)::float8 / 1000 / sum(attempts) FILTER (WHERE result <> ALL($6)) AS average_ms
        FROM projection_1.endpoint_hour
        WHERE app = $1 AND endpoint = $2 AND hour >= date_trunc('hour', $3::timestamptz, 'UTC') AND hour <= $4
        GROUP BY hour ORDER BY hour
        """,
        endpoint.app,
        endpoint.id,
        since,
        until,
        statuses.results(MessageStatus.SUCCESS),
        [ABANDONED, UNKNOWN],
    )
    return ok(_out(deliveries, hours))


async def _count_deliveries(call: Call, endpoint: UUID, since: datetime, until: datetime) -> list[asyncpg.Record]:
    """How many deliveries there are in each status.

    Raises:
        ApiError: 503, it takes longer than `COUNT_SECONDS`.
    """
    try:
        return await call.connection.fetch(
            """
            SELECT status, least(attempts, 1) AS attempts, count(*) AS deliveries FROM projection_1.delivery_state
            WHERE endpoint = $1 AND delivery >= $2 AND delivery < $3 GROUP BY 1, 2
            """,
            endpoint,
            ids.lowest(_milliseconds(since)),
            ids.lowest(_milliseconds(until) + 1),
            timeout=COUNT_SECONDS,
        )
    except TimeoutError:
        raise unavailable("the deliveries of this range take too long to count; ask for a shorter one") from None


def _read_range(call: Call) -> tuple[datetime, datetime]:
    """The range asked for.

    Raises:
        ApiError: 400, it is too long or runs backwards; 422, a time is none.
    """
    until = max(_EPOCH, call.asked(UNTIL) or now())  # ids, and so deliveries, begin there
    since = max(_EPOCH, call.asked(SINCE) or until - LONGEST_RANGE)
    if not timedelta(0) <= until - since <= LONGEST_RANGE:
        raise ApiError(400, "since is before until, by 28 days at most", code="invalid_range")
    return since, until


def _milliseconds(time: datetime) -> int:
    """Since 1970, as ids count them."""
    return (time - _EPOCH) // _MILLISECOND


def _out(deliveries: list[asyncpg.Record], hours: list[asyncpg.Record]) -> EndpointStatsOut:
    counted: Counter[MessageStatus] = Counter()
    canceled = 0
    for row in deliveries:
        status = Status(row["status"])
        if status is Status.CANCELLED:
            canceled += row["deliveries"]
        else:
            counted[statuses.of_delivery(status, row["attempts"])] += row["deliveries"]
    return EndpointStatsOut(
        success=counted[MessageStatus.SUCCESS],
        pending=counted[MessageStatus.PENDING],
        sending=counted[MessageStatus.SENDING],
        fail=counted[MessageStatus.FAIL],
        canceled=canceled,
        hours=[
            HourOut(
                hour=row["hour"],
                attempts=row["attempts"],
                succeeded=row["succeeded"],
                failed=row["attempts"] - row["succeeded"],
                average_ms=None if row["average_ms"] is None else round(row["average_ms"], 3),
            )
            for row in hours
        ],
    )
