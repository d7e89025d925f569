"""What circuit breakers promise, whatever comes: who answers is never shut out, who is down gets one probe at a time."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from libs.common.domain.breaker import (
    WINDOW,
    Breaker,
    BreakerPolicy,
    Circuit,
    Ended,
    Evidence,
    Run,
    Sign,
    circuit,
    is_suspicious,
    note,
    opened,
    sign,
)
from libs.common.domain.outcome import Answer, Failure
from libs.common.domain.retry import QUICK_SCHEDULE, STANDARD_SCHEDULE

NOON = datetime(2026, 8, 21, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
POLICY = BreakerPolicy()

seconds = st.floats(0, 600).map(lambda value: timedelta(seconds=value))
policies = st.builds(
    BreakerPolicy,
    failures=st.integers(1, 50),
    after=st.floats(0, 30).map(lambda value: timedelta(seconds=value)),
    wait=st.floats(0.1, 60).map(lambda value: timedelta(seconds=value)),
    longest_wait=st.floats(0.1, 3600).map(lambda value: timedelta(seconds=value)),
)
schedules = st.lists(seconds, max_size=8)


def ended(at: float, found: Sign = Sign.DOWN, *, began: float | None = None, version: int = 1) -> Ended:
    return Ended(
        config_version=version,
        started_at=NOON + (at if began is None else began) * SECOND,
        ended_at=NOON + at * SECOND,
        sign=found,
    )


def run_of(*attempts: Ended) -> Run | None:
    run: Run | None = None
    for attempt in attempts:
        run = note(run, attempt)
    return run


@given(st.integers(100, 599))
def test_whoever_answers_below_500_is_up(status: int) -> None:
    assert sign(Answer(status=status)) is (Sign.UP if status < 500 else Sign.DOWN)


def test_failures_of_our_own_making_say_nothing_of_the_receiver() -> None:
    nothing = {failure for failure in Failure if sign(Answer(failure=failure)) is None}
    assert nothing == {Failure.CONFIGURATION, Failure.TRANSFORMATION}
    assert sign(Answer(failure=Failure.TIMEOUT)) is Sign.DOWN


@given(policies, st.lists(st.tuples(st.floats(0, 5), st.sampled_from(Sign)), max_size=60), st.integers(1, 10))
def test_suspicion_needs_failures_alone_for_long_enough(
    policy: BreakerPolicy, ends: list[tuple[float, Sign]], dispatchers: int
) -> None:
    run: Run | None = None
    since_answer: list[datetime] = []
    at = 0.0
    for pause, found in ends:
        at += pause
        attempt = ended(at, found)
        run = note(run, attempt)
        since_answer = [] if found is Sign.UP else [*since_answer, attempt.ended_at]
        if run is not None and is_suspicious(run, policy, dispatchers):
            assert len(since_answer) >= max(1, policy.failures // dispatchers)
            assert since_answer[-1] - since_answer[0] >= policy.after
        assert (run is None) == (not since_answer)


def test_failures_that_are_far_apart_are_not_held_together() -> None:
    run = run_of(*(ended(number * (WINDOW / SECOND + 1)) for number in range(20)))
    assert run is not None
    assert run.failures == 1


def test_an_endpoint_with_one_connection_on_which_everything_times_out_is_found() -> None:
    timeouts = [ended(number * 30, began=(number - 1) * 30) for number in range(1, POLICY.failures + 1)]
    run = run_of(*timeouts)
    assert run is not None
    assert is_suspicious(run, POLICY, 1)
    assert run.since == NOON


def test_what_an_earlier_configuration_met_with_says_nothing_of_the_present_one() -> None:
    run = run_of(ended(1), ended(2), ended(3, version=2), ended(4), ended(5, Sign.UP))
    assert run == run_of(ended(3, version=2))


def test_a_run_reaches_back_to_the_first_beginning_whichever_ends_first() -> None:
    run = run_of(ended(5, began=4), ended(6, began=0))
    assert run is not None
    assert (run.since, run.first_at, run.last_at) == (NOON, NOON + 5 * SECOND, NOON + 6 * SECOND)


@given(policies, st.integers(0, 100), st.floats(0, 60))
def test_it_opens_after_so_many_failures_that_went_on_for_so_long(
    policy: BreakerPolicy, down: int, lasted: float
) -> None:
    evidence = Evidence(down=down, lasted=lasted * SECOND)
    assert evidence.is_down(policy) == (down >= policy.failures and evidence.lasted >= policy.after)


@given(policies, schedules, st.integers(1, 10_000))
def test_waits_grow_up_to_a_bound_and_never_beyond_the_retry_schedules_longest(
    policy: BreakerPolicy, schedule: list[timedelta], openings: int
) -> None:
    wait, later = (policy.wait_after(number, schedule) for number in (openings, openings + 1))
    assert wait <= later <= policy.longest_wait
    assert later <= max(schedule, default=policy.wait)


def test_by_default_the_wait_doubles_from_10_seconds_to_5_minutes() -> None:
    waits = [POLICY.wait_after(number, STANDARD_SCHEDULE) / SECOND for number in range(1, 8)]
    assert waits == [10, 20, 40, 80, 160, 300, 300]
    assert [POLICY.wait_after(number, QUICK_SCHEDULE) / SECOND for number in range(1, 5)] == [10, 20, 30, 30]


@given(policies, schedules, st.lists(st.tuples(st.sampled_from([*Sign, None]), seconds), max_size=30))
def test_nothing_goes_while_it_is_open_or_a_probe_is_under_way_and_an_answer_closes_it(
    policy: BreakerPolicy, schedule: list[timedelta], probes: list[tuple[Sign | None, timedelta]]
) -> None:
    now = NOON
    breaker: Breaker | None = opened(1, now, policy, schedule)
    for found, took in probes:
        assert breaker is not None
        if now < breaker.open_until:
            assert circuit(breaker.open_until, now) is Circuit.OPEN
            assert breaker.gate(now).heads == 0
        now = max(now, breaker.gate(now).look_at if now < breaker.open_until else now)
        assert circuit(breaker.open_until, now) is Circuit.HALF_OPEN
        assert breaker.gate(now).heads > 0
        probing = Breaker(
            config_version=breaker.config_version,
            openings=breaker.openings,
            opened_at=breaker.opened_at,
            open_until=breaker.open_until,
            probing=True,
        )
        assert probing.gate(now).heads == 0
        now += took
        after = probing.after_probe(found, now, policy, schedule)
        assert (after is None) == (found is Sign.UP)
        if after is None:
            return
        assert not after.probing
        assert after.openings == breaker.openings + (found is Sign.DOWN)
        assert (after.open_until > breaker.open_until) <= (found is Sign.DOWN)
        breaker = after


def test_a_newer_configuration_is_tried_afresh() -> None:
    breaker = opened(2, NOON, POLICY, STANDARD_SCHEDULE)
    assert breaker.concerns(1), "somebody may not have heard of the newer one yet"
    assert breaker.concerns(2)
    assert not breaker.concerns(3)
