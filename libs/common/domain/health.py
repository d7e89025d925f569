"""How an endpoint fares: the fold of its attempts in the ledger's order, and what follows from it for the endpoint.

A run is the failures in a row that one configuration met with. What an earlier configuration met with says nothing of
the present one: a failure under a newer configuration begins a run of its own, one under an older adds to none.
Attempts whose outcome nobody knows, and those that sent nothing, say nothing of the endpoint.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from enum import StrEnum
from itertools import accumulate
from typing import Final, TypeAlias, assert_never

from msgspec import Struct
from msgspec.structs import replace

BOUNDS_US: Final = tuple(round(1000 * 2 ** (step / 4)) for step in range(63))
"""Upper bounds of the buckets but the last, in microseconds: a quarter of an octave each, from 1 ms to 46 s."""

BUCKETS: Final = len(BOUNDS_US) + 1
Counts: TypeAlias = tuple[int, ...]
NONE: Final[Counts] = (0,) * BUCKETS
_MICROSECOND: Final = timedelta(microseconds=1)
_DAY: Final = timedelta(days=1)


class Succeeded(Struct, frozen=True, kw_only=True, gc=False):
    """An attempt got its 2xx."""

    at: datetime
    latency: timedelta | None


class Failed(Struct, frozen=True, kw_only=True, gc=False):
    """An attempt ended otherwise; `latency` is None where there was no answer. `gone` says that the answer was 410."""

    at: datetime
    latency: timedelta | None
    config_version: int
    gone: bool


Ended: TypeAlias = Succeeded | Failed


class Health(Struct, frozen=True, kw_only=True, gc=False):
    """A row of the projection.

    `latencies` count the answers of `latency_day` (UTC), `latencies_before` those of the day before.
    """

    config_version: int = 0
    failures: int = 0
    failing_since: datetime | None = None
    gone_at: datetime | None = None
    last_success_at: datetime | None = None
    last_failure_at: datetime | None = None
    latency_day: date | None = None
    latencies: Counts = NONE
    latencies_before: Counts = NONE


class Verdict(StrEnum):
    """What becomes of an endpoint because of its health."""

    GONE = "gone"
    FAILED = "failed"
    FAILING = "failing"
    RECOVERED = "recovered"


class Limits(Struct, frozen=True, kw_only=True, gc=False):
    """How long a run lasts before its endpoint is called failing, and before it is disabled. None: never."""

    failing_after: timedelta | None = timedelta(hours=1)
    disabled_after: timedelta | None = timedelta(hours=120)


def fold(attempts: Iterable[Ended], health: Health = Health()) -> Health:  # noqa: B008  it is frozen
    """The health after these attempts of one endpoint, in the ledger's order.

    Of successes in a row the last one says it all, and latencies are counted in one go: most attempts cost next to
    nothing.
    """
    attempts = tuple(attempts)
    health = _timed(health, attempts)
    succeeded_at: datetime | None = None
    for attempt in attempts:
        match attempt:
            case Succeeded(at=at):
                succeeded_at = _later(succeeded_at, at)
            case Failed():
                health = _after_failure(_after_success(health, succeeded_at), attempt)
                succeeded_at = None
            case _:
                assert_never(attempt)
    return _after_success(health, succeeded_at)


def of_configuration(health: Health, config_version: int) -> Health:
    """The health as far as it concerns a configuration: without the run that an earlier one met with."""
    if health.config_version >= config_version:
        return health
    return replace(health, failures=0, failing_since=None, gone_at=None)


def judge(health: Health, *, config_version: int, failing: bool, limits: Limits) -> Verdict | None:
    """What is to become of an enabled endpoint, or None if it goes on as it is.

    The run is as long as the ledger shows: from its first failure to its last, whatever time it is now.

    Args:
        health: of the endpoint.
        config_version: of the endpoint as it is now.
        failing: whether it is called failing already.
        limits: of the installation.
    """
    now = of_configuration(health, config_version)
    if now.failing_since is None or now.last_failure_at is None:
        return Verdict.RECOVERED if failing and health.failures == 0 else None
    if now.gone_at is not None:
        return Verdict.GONE
    length = now.last_failure_at - now.failing_since
    if limits.disabled_after is not None and length >= limits.disabled_after:
        return Verdict.FAILED
    if limits.failing_after is not None and length >= limits.failing_after and not failing:
        return Verdict.FAILING
    return None


def quantile(counts: Sequence[int], part: float) -> timedelta | None:
    """The time within which `part` (0 to 1) of what is counted came: the upper bound of its bucket, or None."""
    total = sum(counts)
    if not total:
        return None
    bucket = next(index for index, seen in enumerate(accumulate(counts)) if seen >= part * total and seen)
    return timedelta(microseconds=BOUNDS_US[min(bucket, len(BOUNDS_US) - 1)])


def merged(first: Counts, second: Counts) -> Counts:
    """What both count."""
    return tuple(one + other for one, other in zip(first, second, strict=True))


def _after_success(health: Health, at: datetime | None) -> Health:
    """The health after successes, the latest of them `at`; None if there were none."""
    if at is None:
        return health
    last = _later(health.last_success_at, at)
    return replace(health, failures=0, failing_since=None, gone_at=None, last_success_at=last)


def _after_failure(health: Health, failure: Failed) -> Health:
    at, version = failure.at, failure.config_version
    failed = replace(health, last_failure_at=_later(health.last_failure_at, at))
    if version < health.config_version:
        return failed
    run = failed if version == health.config_version else replace(failed, failures=0, gone_at=None)
    return replace(
        run,
        config_version=version,
        failures=run.failures + 1,
        failing_since=run.failing_since if run.failures else at,
        gone_at=run.gone_at or (at if failure.gone else None),
    )


def _timed(health: Health, attempts: Iterable[Ended]) -> Health:
    """Count the times of answers, each in its day; what is older than the day before is counted no more."""
    latest = health.latency_day
    days: dict[date, list[int]] = {}
    if latest is not None:
        days = {latest - _DAY: [*health.latencies_before], latest: [*health.latencies]}
    for attempt in attempts:
        if attempt.latency is None:
            continue
        day = attempt.at.date()
        if latest is None or day > latest:
            latest = day
            days = {day - _DAY: days.get(day - _DAY, [*NONE]), day: [*NONE]}
        counts = days.get(day)
        if counts is not None:
            counts[bisect_left(BOUNDS_US, attempt.latency // _MICROSECOND)] += 1
    if latest is None:
        return health
    return replace(
        health, latency_day=latest, latencies=tuple(days[latest]), latencies_before=tuple(days[latest - _DAY])
    )


def _later(known: datetime | None, at: datetime) -> datetime:
    return at if known is None else max(known, at)
