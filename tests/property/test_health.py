"""An endpoint's health under any sequence of attempts."""

from datetime import UTC, datetime, timedelta
from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from libs.common.domain import health as healths
from libs.common.domain.health import BUCKETS, Ended, Failed, Health, Limits, Succeeded, Verdict, fold, judge

NOON = datetime(2026, 8, 21, 12, tzinfo=UTC)
LIMITS = Limits(failing_after=timedelta(hours=1), disabled_after=timedelta(hours=5))
TIMES = st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=3)).map(lambda passed: NOON + passed)
LATENCIES = st.none() | st.timedeltas(min_value=timedelta(0), max_value=timedelta(seconds=60))
SUCCESSES = st.builds(Succeeded, at=TIMES, latency=LATENCIES)
FAILURES = st.builds(Failed, at=TIMES, latency=LATENCIES, config_version=st.integers(1, 3), gone=st.booleans())
ATTEMPTS = st.lists(SUCCESSES | FAILURES, max_size=30).map(lambda found: sorted(found, key=lambda attempt: attempt.at))
VERSIONS = st.integers(1, 4)


def _after(health: Health, attempt: Ended) -> Health:
    return fold([attempt], health)


def _run(attempts: list[Ended]) -> list[Failed]:
    """The failures since the last success that the newest configuration among them met with."""
    last = max((index for index, attempt in enumerate(attempts) if isinstance(attempt, Succeeded)), default=-1)
    newest = max((attempt.config_version for attempt in attempts if isinstance(attempt, Failed)), default=0)
    since = [attempt for attempt in attempts[last + 1 :] if isinstance(attempt, Failed)]
    return [attempt for attempt in since if attempt.config_version == newest]


@given(st.lists(SUCCESSES | FAILURES, max_size=30), st.integers(0, 30))
def test_it_makes_no_difference_into_which_batches_attempts_are_cut(attempts: list[Ended], cut: int) -> None:
    """Whatever their times are: those of a ledger may go back a little."""
    assert fold(attempts) == fold(attempts[cut:], fold(attempts[:cut])) == reduce(_after, attempts, Health())


@given(ATTEMPTS)
def test_a_run_is_the_failures_of_the_newest_configuration_since_the_last_success(attempts: list[Ended]) -> None:
    health, run = fold(attempts), _run(attempts)
    assert health.failures == len(run)
    assert health.failing_since == (run[0].at if run else None)
    assert (health.gone_at is not None) == any(failed.gone for failed in run)


@given(attempts=ATTEMPTS, version=VERSIONS, failing=st.booleans())
def test_nothing_follows_from_what_an_earlier_configuration_met_with(
    attempts: list[Ended], version: int, *, failing: bool
) -> None:
    health = fold(attempts)
    verdict = judge(health, config_version=version, failing=failing, limits=LIMITS)
    if verdict in {Verdict.GONE, Verdict.FAILED, Verdict.FAILING}:
        assert health.config_version >= version


@given(ATTEMPTS, VERSIONS)
def test_only_a_run_as_long_as_the_limit_makes_an_endpoint_failing_or_disables_it(
    attempts: list[Ended], version: int
) -> None:
    health = fold(attempts)
    verdict = judge(health, config_version=version, failing=False, limits=LIMITS)
    if verdict in {Verdict.FAILED, Verdict.FAILING}:
        assert health.last_failure_at is not None
        assert health.failing_since is not None
        assert health.last_failure_at - health.failing_since >= timedelta(hours=5 if verdict is Verdict.FAILED else 1)
    never = judge(health, config_version=version, failing=False, limits=Limits(failing_after=None, disabled_after=None))
    assert never in {None, Verdict.GONE}


@given(ATTEMPTS, SUCCESSES)
def test_a_success_ends_every_run_and_recovers_an_endpoint_that_was_failing(
    attempts: list[Ended], success: Succeeded
) -> None:
    health = fold([success], fold(attempts))
    assert (health.failures, health.failing_since, health.gone_at) == (0, None, None)
    assert judge(health, config_version=health.config_version, failing=True, limits=LIMITS) is Verdict.RECOVERED
    assert judge(health, config_version=health.config_version, failing=False, limits=LIMITS) is None


@given(ATTEMPTS, ATTEMPTS)
def test_the_histograms_count_each_answer_of_the_last_two_days_once(first: list[Ended], later: list[Ended]) -> None:
    moved = [_moved(attempt) for attempt in later]
    health = fold([*first, *moved])
    counted = sum(health.latencies) + sum(health.latencies_before)
    days = {attempt.at.date() for attempt in (*first, *moved) if attempt.latency is not None}
    kept = {day for day in days if (max(days) - day).days <= 1}
    assert counted == sum(attempt.latency is not None and attempt.at.date() in kept for attempt in (*first, *moved))
    assert len(health.latencies) == len(health.latencies_before) == BUCKETS


@given(st.lists(st.timedeltas(min_value=timedelta(milliseconds=1), max_value=timedelta(seconds=40)), min_size=1))
def test_a_quantile_is_right_within_a_fifth(latencies: list[timedelta]) -> None:
    health = fold(Succeeded(at=NOON, latency=latency) for latency in latencies)
    for part in (0.5, 0.95, 1.0):
        exact = sorted(latencies)[max(0, -(-int(part * 1000) * len(latencies) // 1000) - 1)]
        found = healths.quantile(health.latencies, part)
        assert found is not None
        assert exact <= found + timedelta(microseconds=1)
        assert found <= exact * 1.2 + timedelta(microseconds=1)


def test_without_answers_there_is_no_quantile() -> None:
    assert healths.quantile(Health().latencies, 0.5) is None


def _moved(attempt: Ended) -> Ended:
    at = attempt.at + timedelta(days=1)
    if isinstance(attempt, Succeeded):
        return Succeeded(at=at, latency=attempt.latency)
    return Failed(at=at, latency=attempt.latency, config_version=attempt.config_version, gone=attempt.gone)
