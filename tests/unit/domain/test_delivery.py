"""The life of a delivery, told as given facts, when a command, then facts."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from msgspec.structs import replace

from libs.common.domain.commands import (
    AbandonAttempt,
    Cancel,
    Command,
    DeclareUnknown,
    DropResend,
    Expire,
    LetGo,
    RecordAnswer,
    Reopen,
    RequestResend,
    Skip,
    StartAttempt,
)
from libs.common.domain.delivery import (
    Delivery,
    NotWaitingError,
    StaleAttemptError,
    Status,
    UnderWayError,
    decide,
    evolve,
    fold,
)
from libs.common.domain.endpoint import Rule
from libs.common.domain.facts import (
    AttemptAbandoned,
    AttemptEnded,
    AttemptOutcomeUnknown,
    AttemptStarted,
    CancelReason,
    DeliveryCancelled,
    DeliveryExhausted,
    DeliveryExpired,
    DeliveryFact,
    DeliveryGone,
    DeliveryHeld,
    DeliveryRefused,
    DeliveryReopened,
    DeliveryScheduled,
    DeliverySkipped,
    DropReason,
    ResendDelayed,
    ResendDropped,
    ResendRequested,
    RetryScheduled,
    Timings,
    Trigger,
)
from libs.common.domain.outcome import Answer, Failure, Outcome
from libs.common.domain.retry import RetryPolicy

NOON = datetime(2026, 8, 21, 12, 0, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
APP, MESSAGE, ENDPOINT, PROCESS, KEY = (UUID(int=number) for number in range(1, 6))
POLICY = RetryPolicy(schedule=(10 * SECOND, 20 * SECOND))
TIMINGS = Timings(first_byte=timedelta(milliseconds=3), total=timedelta(milliseconds=4))

SCHEDULED = DeliveryScheduled(
    at=NOON, app=APP, message=MESSAGE, endpoint=ENDPOINT, config_version=3, rule=Rule.ALL, due_at=NOON
)


def attempt(number: int) -> UUID:
    return UUID(int=100 + number)


def start(number: int, *, at: datetime = NOON) -> StartAttempt:
    return StartAttempt(at=at, attempt=attempt(number), config_version=3, signing_key=KEY, process=PROCESS)


def answer(
    number: int,
    status: int | None = None,
    *,
    failure: Failure | None = None,
    retry_after: timedelta | None = None,
    at: datetime = NOON,
    jitter: float = 0.0,
    policy: RetryPolicy = POLICY,
) -> RecordAnswer:
    return RecordAnswer(
        at=at,
        attempt=attempt(number),
        answer=Answer(status=status, failure=failure, retry_after=retry_after),
        policy=policy,
        jitter=jitter,
        url="https://example.com/",
        peer="192.0.2.1",
        sends=1,
        timings=TIMINGS,
    )


def given(*commands: Command) -> Delivery:
    """A delivery that was scheduled, and everything that followed from these commands."""
    state = fold([SCHEDULED])
    for command in commands:
        state = then(state, decide(state, command))
    return state


def then(state: Delivery, facts: Iterable[DeliveryFact]) -> Delivery:
    for fact in facts:
        state = evolve(state, fact)
    return state


def outcome(facts: list[DeliveryFact]) -> Outcome:
    ended = facts[0]
    assert isinstance(ended, AttemptEnded)
    return ended.outcome


# From the beginning


def test_a_scheduled_delivery_waits_for_its_time() -> None:
    assert fold([SCHEDULED]) == Delivery(
        app=APP,
        message=MESSAGE,
        endpoint=ENDPOINT,
        status=Status.WAITING,
        version=1,
        created_at=NOON,
        updated_at=NOON,
        due_at=NOON,
    )


def test_a_stream_begins_with_its_schedule_and_nothing_else() -> None:
    for stream in ([], [DeliveryExpired(at=NOON)]):
        with pytest.raises(ValueError, match="begins with DeliveryScheduled"):
            fold(stream)


def test_starting_an_attempt_says_who_sends_with_which_key_and_configuration() -> None:
    assert decide(given(), start(1)) == [
        AttemptStarted(
            at=NOON,
            attempt=attempt(1),
            run=1,
            number=1,
            trigger=Trigger.SCHEDULED,
            config_version=3,
            signing_key=KEY,
            process=PROCESS,
        )
    ]


def test_a_delivery_in_flight_is_owned_and_no_longer_due() -> None:
    sending = given(start(1))
    assert (sending.status, sending.attempts) == (Status.SENDING, 1)
    assert (sending.attempt, sending.process, sending.due_at) == (attempt(1), PROCESS, None)


# Success


def test_a_2xx_ends_the_delivery_with_one_fact() -> None:
    facts = decide(given(start(1)), answer(1, 204))
    assert facts == [
        AttemptEnded(
            at=NOON,
            attempt=attempt(1),
            outcome=Outcome.SUCCEEDED,
            status=204,
            failure=None,
            url="https://example.com/",
            peer="192.0.2.1",
            sends=1,
            timings=TIMINGS,
            base_delay=None,
            jitter=None,
            retry_after=None,
        )
    ]
    succeeded = then(given(start(1)), facts)
    assert (succeeded.status, succeeded.last_status, succeeded.failures) == (Status.SUCCEEDED, 204, 0)
    assert (succeeded.attempt, succeeded.process, succeeded.due_at) == (None, None, None)


# Failure, and another try


def test_a_failure_is_followed_by_the_schedules_next_wait() -> None:
    facts = decide(given(start(1)), answer(1, 503, at=NOON + SECOND))
    assert outcome(facts) is Outcome.RETRYABLE
    assert facts[1:] == [RetryScheduled(at=NOON + SECOND, due_at=NOON + 11 * SECOND)]


def test_a_failure_records_what_its_wait_was_decided_from() -> None:
    [ended, retry] = decide(given(start(1)), answer(1, 503, jitter=0.5, retry_after=60 * SECOND))
    assert isinstance(ended, AttemptEnded)
    assert (ended.base_delay, ended.jitter, ended.retry_after) == (10 * SECOND, 0.5, 60 * SECOND)
    assert retry == RetryScheduled(at=NOON, due_at=NOON + 60 * SECOND)


def test_no_answer_at_all_is_tried_again() -> None:
    [ended, retry] = decide(given(start(1)), answer(1, failure=Failure.TIMEOUT))
    assert isinstance(ended, AttemptEnded)
    assert (ended.status, ended.failure) == (None, Failure.TIMEOUT)
    assert isinstance(retry, RetryScheduled)


def test_a_delivery_that_waits_again_is_due_and_unowned() -> None:
    waiting = given(start(1), answer(1, 500))
    assert (waiting.status, waiting.due_at, waiting.last_status) == (Status.WAITING, NOON + 10 * SECOND, 500)
    assert (waiting.attempts, waiting.failures) == (1, 1)
    assert (waiting.attempt, waiting.process) == (None, None)


def test_attempts_of_a_run_are_numbered_from_one() -> None:
    [second] = decide(given(start(1), answer(1, 500)), start(2))
    assert isinstance(second, AttemptStarted)
    assert (second.run, second.number) == (1, 2)


def test_a_spent_schedule_exhausts_the_delivery() -> None:
    twice = given(start(1), answer(1, 500), start(2), answer(2, 500), start(3))
    facts = decide(twice, answer(3, 500))
    assert outcome(facts) is Outcome.RETRYABLE
    assert facts[1:] == [DeliveryExhausted(at=NOON)]
    exhausted = then(twice, facts)
    assert (exhausted.status, exhausted.attempts, exhausted.failures) == (Status.EXHAUSTED, 3, 3)


def test_the_policy_in_force_at_the_end_of_an_attempt_decides() -> None:
    shorter = replace(POLICY, schedule=())
    assert decide(given(start(1)), answer(1, 500, policy=shorter))[1:] == [DeliveryExhausted(at=NOON)]


# Answers that end it


def test_410_ends_the_delivery_as_gone() -> None:
    facts = decide(given(start(1)), answer(1, 410))
    assert outcome(facts) is Outcome.GONE
    assert facts[1:] == [DeliveryGone(at=NOON)]
    assert then(given(start(1)), facts).status is Status.GONE


def test_a_final_4xx_refuses_the_delivery() -> None:
    facts = decide(given(start(1)), answer(1, 404))
    assert outcome(facts) is Outcome.REFUSED
    assert facts[1:] == [DeliveryRefused(at=NOON)]
    assert then(given(start(1)), facts).status is Status.REFUSED


def test_an_endpoints_policy_may_have_its_4xx_tried_again() -> None:
    patient = replace(POLICY, retry_client_errors=True)
    assert isinstance(decide(given(start(1)), answer(1, 404, policy=patient))[1], RetryScheduled)


# Attempts without an outcome


def unknown(number: int) -> DeclareUnknown:
    return DeclareUnknown(at=NOON, attempt=attempt(number), holds=False)


def test_an_attempt_whose_process_died_is_declared_unknown_and_followed_at_once() -> None:
    facts = decide(given(start(1)), unknown(1))
    assert facts == [AttemptOutcomeUnknown(at=NOON, attempt=attempt(1)), RetryScheduled(at=NOON, due_at=NOON)]


def test_an_unknown_attempt_uses_no_place_in_the_schedule() -> None:
    state = given(start(1), unknown(1), start(2))
    assert (state.attempts, state.failures, state.unknowns) == (2, 0, 1)
    assert decide(state, answer(2, 500))[1] == RetryScheduled(at=NOON, due_at=NOON + 10 * SECOND)


def test_five_unknown_attempts_in_a_row_exhaust_the_delivery() -> None:
    four = given(*(command for number in range(1, 5) for command in (start(number), unknown(number))))
    assert four.status is Status.WAITING
    facts = decide(then(four, decide(four, start(5))), unknown(5))
    assert facts == [AttemptOutcomeUnknown(at=NOON, attempt=attempt(5)), DeliveryExhausted(at=NOON)]


def test_an_answer_breaks_the_row_of_unknown_attempts() -> None:
    four = [command for number in range(1, 5) for command in (start(number), unknown(number))]
    state = given(*four, start(5), answer(5, 500), start(6))
    assert state.unknowns == 0
    assert isinstance(decide(state, unknown(6))[1], RetryScheduled)


def test_what_was_surely_not_sent_is_abandoned_and_due_again_at_once() -> None:
    facts = decide(given(start(1)), AbandonAttempt(at=NOON, attempt=attempt(1)))
    assert facts == [AttemptAbandoned(at=NOON, attempt=attempt(1)), RetryScheduled(at=NOON, due_at=NOON)]
    waiting = then(given(start(1)), facts)
    assert (waiting.failures, waiting.unknowns) == (0, 0)


# Ends from outside


@pytest.mark.parametrize("reason", CancelReason)
def test_a_waiting_delivery_can_be_cancelled(reason: CancelReason) -> None:
    facts = decide(given(), Cancel(at=NOON, reason=reason))
    assert facts == [DeliveryCancelled(at=NOON, reason=reason)]
    assert then(given(), facts).status is Status.CANCELLED


SKIP = Skip(at=NOON, actor="key:1")


def test_what_somebody_skips_says_who_and_ends_with_the_manual_attempt_that_was_asked_for() -> None:
    facts = decide(given(RESEND), SKIP)
    assert facts == [DeliverySkipped(at=NOON, actor="key:1")]
    skipped = then(given(RESEND), facts)
    assert (skipped.status, skipped.open) == (Status.CANCELLED, False)


def test_what_is_in_flight_is_not_skipped() -> None:
    with pytest.raises(NotWaitingError):
        decide(given(start(1)), SKIP)


def test_a_waiting_delivery_can_expire() -> None:
    facts = decide(given(), Expire(at=NOON))
    assert facts == [DeliveryExpired(at=NOON)]
    assert then(given(), facts).status is Status.EXPIRED


# Held


HOLDING = RetryPolicy(schedule=(), holds=True)
HELD = given(start(1), answer(1, 500, policy=HOLDING))


@pytest.mark.parametrize("status", [404, 500], ids=["refused", "exhausted"])
def test_where_the_endpoint_holds_a_delivery_that_is_spent_keeps_its_place(status: int) -> None:
    facts = decide(given(start(1)), answer(1, status, policy=HOLDING))
    assert facts[1:] == [DeliveryHeld(at=NOON)]
    held = then(given(start(1)), facts)
    assert (held.status, held.due_at, held.status.terminal) == (Status.HELD, None, False)


@pytest.mark.parametrize("status", [200, 410], ids=["succeeded", "gone"])
def test_what_is_delivered_or_gone_is_not_held(status: int) -> None:
    assert given(start(1), answer(1, status, policy=HOLDING)).status.terminal


def test_a_retry_that_is_left_is_made_before_anything_is_held() -> None:
    waiting = given(start(1), answer(1, 500, policy=RetryPolicy(schedule=(SECOND,), holds=True)))
    assert waiting.status is Status.WAITING


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (Cancel(at=NOON, reason=CancelReason.ENDPOINT_DISABLED), Status.CANCELLED),
        (SKIP, Status.CANCELLED),
        (Expire(at=NOON), Status.EXPIRED),
        (LetGo(at=NOON), Status.EXHAUSTED),
    ],
)
def test_a_held_delivery_ends_when_it_is_unwanted_skipped_too_old_or_let_go(command: Command, status: Status) -> None:
    assert then(HELD, decide(HELD, command)).status is status


def test_a_held_delivery_is_not_tried_again() -> None:
    with pytest.raises(NotWaitingError):
        decide(HELD, start(2))


def test_five_unknown_attempts_in_a_row_are_held_where_the_endpoint_holds() -> None:
    state = given(*(command for number in range(1, 5) for command in (start(number), unknown(number))), start(5))
    facts = decide(state, DeclareUnknown(at=NOON, attempt=attempt(5), holds=True))
    assert facts[1:] == [DeliveryHeld(at=NOON)]


def test_a_manual_attempt_of_a_held_delivery_delivers_it_or_leaves_it_held() -> None:
    asked = then(HELD, decide(HELD, RESEND))
    assert asked.next_at == NOON
    begun = then(asked, decide(asked, start(2)))
    assert then(begun, decide(begun, answer(2, 200))).status is Status.SUCCEEDED
    for command in (answer(2, 500), answer(2, 404, policy=HOLDING)):
        failed = then(begun, decide(begun, command))
        assert (failed.status, failed.next_at, failed.failures) == (Status.HELD, None, HELD.failures)


def test_a_replay_begins_the_schedule_of_a_held_delivery_anew() -> None:
    anew = then(HELD, decide(HELD, Reopen(at=NOON, due_at=NOON, job=KEY)))
    assert (anew.status, anew.run, anew.due_at, anew.failures) == (Status.WAITING, 2, NOON, 0)


def test_only_what_is_held_can_be_let_go() -> None:
    with pytest.raises(NotWaitingError):
        decide(given(), LetGo(at=NOON))


# Commands that come too late


TERMINAL = {
    Status.SUCCEEDED: given(start(1), answer(1, 200)),
    Status.EXHAUSTED: given(start(1), answer(1, 500, policy=RetryPolicy(schedule=()))),
    Status.REFUSED: given(start(1), answer(1, 400)),
    Status.GONE: given(start(1), answer(1, 410)),
    Status.CANCELLED: given(Cancel(at=NOON, reason=CancelReason.ENDPOINT_DELETED)),
    Status.EXPIRED: given(Expire(at=NOON)),
}
BEGINNING: list[Command] = [start(9), Cancel(at=NOON, reason=CancelReason.ENDPOINT_DISABLED), Expire(at=NOON)]
ENDING: list[Command] = [answer(1, 200), AbandonAttempt(at=NOON, attempt=attempt(1)), unknown(1)]


@pytest.mark.parametrize("status", Status)
def test_every_status_that_is_not_open_is_terminal(status: Status) -> None:
    assert status.terminal is (status in TERMINAL)
    assert status not in TERMINAL or TERMINAL[status].status is status


@pytest.mark.parametrize("command", BEGINNING, ids=lambda command: type(command).__name__)
@pytest.mark.parametrize("status", TERMINAL)
def test_a_delivery_that_is_over_is_neither_begun_nor_ended_again(status: Status, command: Command) -> None:
    with pytest.raises(NotWaitingError):
        decide(TERMINAL[status], command)


@pytest.mark.parametrize("command", ENDING, ids=lambda command: type(command).__name__)
@pytest.mark.parametrize("status", TERMINAL)
def test_an_attempt_cannot_end_in_a_delivery_that_is_over(status: Status, command: Command) -> None:
    with pytest.raises(StaleAttemptError):
        decide(TERMINAL[status], command)


@pytest.mark.parametrize("command", BEGINNING, ids=lambda command: type(command).__name__)
def test_a_delivery_in_flight_is_not_begun_cancelled_or_expired(command: Command) -> None:
    with pytest.raises(NotWaitingError):
        decide(given(start(1)), command)


@pytest.mark.parametrize("command", ENDING, ids=lambda command: type(command).__name__)
def test_only_the_attempt_in_flight_can_end(command: Command) -> None:
    with pytest.raises(StaleAttemptError):
        decide(given(start(1), unknown(1), start(2)), command)


@pytest.mark.parametrize("command", ENDING, ids=lambda command: type(command).__name__)
def test_a_waiting_delivery_has_no_attempt_to_end(command: Command) -> None:
    with pytest.raises(StaleAttemptError):
        decide(given(start(1), answer(1, 500)), command)


# Time


def test_time_never_runs_backwards_in_a_stream() -> None:
    later = NOON + 5 * SECOND
    sending = given(start(1, at=later))
    [ended, retry] = decide(sending, answer(1, 500, at=NOON))
    assert (ended.at, retry) == (later, RetryScheduled(at=later, due_at=later + 10 * SECOND))


# Beside the schedule


RESEND = RequestResend(at=NOON, job=KEY)
REPLAY = Reopen(at=NOON, due_at=NOON, job=KEY)


def test_a_manual_attempt_that_fails_changes_nothing_of_the_schedule() -> None:
    before = given(start(1), answer(1, 500))
    asked = then(before, decide(before, RESEND))
    flying = then(asked, decide(asked, start(2)))
    assert (flying.status, flying.beside, flying.due_at) == (Status.SENDING, Status.WAITING, before.due_at)
    facts = decide(flying, answer(2, 410))
    assert [type(fact) for fact in facts] == [AttemptEnded]
    after = then(flying, facts)
    for name in ("status", "due_at", "run", "attempts", "failures"):
        assert getattr(after, name) == getattr(before, name)


def test_a_manual_attempt_that_succeeds_ends_what_waited_and_what_was_over() -> None:
    for before in (given(start(1), answer(1, 500)), given(start(1), answer(1, 404))):
        after = then(before, [ResendRequested(at=NOON, job=KEY)])
        for command in (start(2), answer(2, 200)):
            after = then(after, decide(after, command))
        assert (after.status, after.due_at, after.open) == (Status.SUCCEEDED, None, False)


def test_a_second_manual_attempt_is_not_asked_for_before_the_first_was_made() -> None:
    for state in (given(RESEND), given(RESEND, start(1)), given(start(1), RESEND)):
        with pytest.raises(UnderWayError):
            decide(state, RESEND)
    assert decide(given(RESEND, start(1), answer(1, 500)), RESEND) == [ResendRequested(at=NOON, job=KEY)]


def test_a_manual_attempt_that_came_to_no_outcome_is_made_again_but_not_for_ever() -> None:
    state = given(start(1), answer(1, 404), RESEND)
    for number in range(2, 6):
        state = then(state, decide(state, start(number)))
        facts = decide(state, DeclareUnknown(at=NOON, attempt=attempt(number), holds=False))
        assert isinstance(facts[-1], ResendDelayed)
        state = then(state, facts)
    state = then(state, decide(state, start(6)))
    facts = decide(state, DeclareUnknown(at=NOON, attempt=attempt(6), holds=False))
    assert facts[-1] == ResendDropped(at=NOON, reason=DropReason.OUTCOME_UNKNOWN)
    assert then(state, facts).status is Status.REFUSED
    assert not then(state, facts).open


def test_a_manual_attempt_can_be_given_up_only_where_nothing_else_waits() -> None:
    drop = DropResend(at=NOON, reason=DropReason.ENDPOINT_DISABLED)
    over = given(start(1), answer(1, 404), RESEND)
    assert not then(over, decide(over, drop)).open
    for state in (given(), given(RESEND)):
        with pytest.raises(NotWaitingError):
            decide(state, drop)


def test_a_cancelled_delivery_takes_the_manual_attempt_with_it() -> None:
    assert not given(RESEND, Cancel(at=NOON, reason=CancelReason.ENDPOINT_DELETED)).open


def test_a_replay_starts_the_schedule_anew() -> None:
    state = given(start(1), answer(1, 500), start(2), answer(2, 404), Reopen(at=NOON + SECOND, due_at=NOON, job=KEY))
    assert (state.status, state.run, state.attempts, state.failures) == (Status.WAITING, 2, 0, 0)
    assert (state.due_at, state.begun_at) == (NOON + SECOND, NOON + SECOND)
    begun = decide(state, start(3, at=NOON + SECOND))[0]
    assert isinstance(begun, AttemptStarted)
    assert (begun.run, begun.number) == (2, 1)


def test_what_is_not_over_is_not_replayed() -> None:
    for state in (given(), given(start(1))):
        with pytest.raises(UnderWayError):
            decide(state, REPLAY)
    assert isinstance(decide(given(start(1), answer(1, 200)), REPLAY)[0], DeliveryReopened)


def test_a_replay_of_what_is_to_be_delivered_later_waits_for_that() -> None:
    state = given(Cancel(at=NOON, reason=CancelReason.ENDPOINT_DISABLED), replace(REPLAY, due_at=NOON + SECOND))
    assert (state.status, state.next_at) == (Status.WAITING, NOON + SECOND)
