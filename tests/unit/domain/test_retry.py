"""When a failed delivery is tried again."""

from datetime import timedelta

import pytest

from libs.common.domain.retry import STANDARD_SCHEDULE, RetryPolicy, Wait

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


def wait(
    failures: int, *schedule: timedelta, jitter: float = 0.0, retry_after: timedelta | None = None
) -> timedelta | None:
    """The delay alone."""
    decided = RetryPolicy(schedule=schedule).wait(failures, jitter=jitter, retry_after=retry_after)
    return None if decided is None else decided.delay


# The schedule


def test_the_default_schedule_is_that_of_standard_webhooks() -> None:
    decided = [RetryPolicy().wait(failures, jitter=0, retry_after=None) for failures in range(1, 9)]
    hours = [2 * HOUR, 5 * HOUR, 10 * HOUR, 10 * HOUR]
    assert [found and found.delay for found in decided] == [5 * SECOND, 5 * MINUTE, 30 * MINUTE, *hours, None]
    assert RetryPolicy().schedule == STANDARD_SCHEDULE


def test_each_failure_takes_the_next_wait_of_the_schedule() -> None:
    assert [wait(n, SECOND, MINUTE, HOUR) for n in (1, 2, 3)] == [SECOND, MINUTE, HOUR]


def test_a_schedule_of_n_waits_allows_n_retries() -> None:
    assert wait(2, SECOND, MINUTE) == MINUTE
    assert wait(3, SECOND, MINUTE) is None


def test_an_empty_schedule_allows_no_retry() -> None:
    assert wait(1) is None


def test_a_spent_schedule_is_not_stretched_by_retry_after() -> None:
    assert wait(2, SECOND, retry_after=HOUR) is None


# Jitter


@pytest.mark.parametrize(("jitter", "seconds"), [(-1.0, 80), (-0.5, 90), (0.0, 100), (0.5, 110), (1.0, 120)])
def test_jitter_spreads_a_wait_by_a_fifth_of_itself_either_way(jitter: float, seconds: float) -> None:
    assert wait(1, 100 * SECOND, jitter=jitter) == timedelta(seconds=seconds)


@pytest.mark.parametrize(("jitter", "seconds"), [(-7.0, 80), (7.0, 120)])
def test_chance_beyond_its_range_spreads_no_further(jitter: float, seconds: float) -> None:
    assert wait(1, 100 * SECOND, jitter=jitter) == timedelta(seconds=seconds)


# Retry-After


def test_a_receiver_may_lengthen_the_wait() -> None:
    assert wait(1, 5 * SECOND, retry_after=90 * SECOND) == 90 * SECOND


@pytest.mark.parametrize("asked", [timedelta(0), SECOND, 100 * SECOND])
def test_a_receiver_never_shortens_the_wait(asked: timedelta) -> None:
    assert wait(1, 100 * SECOND, jitter=0.5, retry_after=asked) == 110 * SECOND


def test_a_short_wait_is_lengthened_by_an_hour_at_most() -> None:
    assert wait(1, 5 * SECOND, retry_after=100 * HOUR) == HOUR + 5 * SECOND


def test_a_long_wait_is_lengthened_by_twice_itself_at_most() -> None:
    assert wait(1, 10 * HOUR, retry_after=100 * HOUR) == 30 * HOUR


# What the ledger is told


def test_a_decided_wait_says_what_it_was_decided_from() -> None:
    policy = RetryPolicy(schedule=(SECOND, MINUTE))
    assert policy.wait(2, jitter=-0.25, retry_after=HOUR) == Wait(
        delay=HOUR, base=MINUTE, jitter=-0.25, retry_after=HOUR
    )
