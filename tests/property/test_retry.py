"""What holds of waits, whatever the schedule, chance and receiver."""

from datetime import timedelta

from hypothesis import assume, given
from hypothesis import strategies as st

from libs.common.domain.retry import RetryPolicy

MICROSECOND = timedelta(microseconds=1)
HOUR = timedelta(hours=1)
WAITS = st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=30))
SCHEDULES = st.lists(WAITS, max_size=10).map(tuple)
JITTER = st.floats(min_value=-1, max_value=1)
ASKED = st.none() | st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=365))
FAILURES = st.integers(min_value=1, max_value=12)


@given(SCHEDULES, FAILURES, JITTER, ASKED)
def test_there_is_a_wait_for_each_place_of_the_schedule_and_no_other(
    schedule: tuple[timedelta, ...], failures: int, jitter: float, asked: timedelta | None
) -> None:
    decided = RetryPolicy(schedule=schedule).wait(failures, jitter=jitter, retry_after=asked)
    assert (decided is not None) is (failures <= len(schedule))


@given(WAITS, JITTER)
def test_jitter_moves_a_wait_by_a_fifth_at_most(base: timedelta, jitter: float) -> None:
    decided = RetryPolicy(schedule=(base,)).wait(1, jitter=jitter, retry_after=None)
    assert decided is not None
    assert 0.8 * base - MICROSECOND <= decided.delay <= 1.2 * base + MICROSECOND


@given(WAITS, JITTER, JITTER)
def test_more_jitter_never_means_less_wait(base: timedelta, one: float, other: float) -> None:
    policy = RetryPolicy(schedule=(base,))
    low, high = (policy.wait(1, jitter=jitter, retry_after=None) for jitter in sorted((one, other)))
    assert low is not None
    assert high is not None
    assert low.delay <= high.delay


@given(WAITS, JITTER, ASKED)
def test_retry_after_never_shortens_a_wait(base: timedelta, jitter: float, asked: timedelta | None) -> None:
    policy = RetryPolicy(schedule=(base,))
    own, lengthened = (policy.wait(1, jitter=jitter, retry_after=after) for after in (None, asked))
    assert own is not None
    assert lengthened is not None
    assert lengthened.delay >= own.delay


@given(WAITS, JITTER, ASKED)
def test_retry_after_lengthens_a_wait_by_no_more_than_its_bound(
    base: timedelta, jitter: float, asked: timedelta | None
) -> None:
    assume(asked is not None)
    decided = RetryPolicy(schedule=(base,)).wait(1, jitter=jitter, retry_after=asked)
    assert decided is not None
    assert decided.delay <= max(1.2 * base + MICROSECOND, base + max(2 * base, HOUR))


@given(SCHEDULES, FAILURES, JITTER, ASKED)
def test_a_wait_can_be_decided_again_from_what_was_recorded(
    schedule: tuple[timedelta, ...], failures: int, jitter: float, asked: timedelta | None
) -> None:
    decided = RetryPolicy(schedule=schedule).wait(failures, jitter=jitter, retry_after=asked)
    if decided is not None:
        recorded = RetryPolicy(schedule=(decided.base,))
        assert recorded.wait(1, jitter=decided.jitter, retry_after=decided.retry_after) == decided
