"""The delivery machine under any sequence of commands, true and stale ones."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from libs.common.contracts import ledger
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
    DeliveryFact,
    DeliveryHeld,
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
from libs.common.domain.operational import DELIVERY_FACTS, News, of_delivery
from libs.common.domain.outcome import Answer, Failure
from libs.common.domain.retry import MOST_UNKNOWN_IN_A_ROW, RetryPolicy

APP, MESSAGE, ENDPOINT, PROCESS, JOB = (UUID(int=number) for number in range(1, 6))
NOON = datetime(2026, 8, 21, 12, tzinfo=UTC)

# Clocks may step backwards between replicas.
STEPS = st.timedeltas(min_value=timedelta(seconds=-5), max_value=timedelta(hours=5))
DURATIONS = st.timedeltas(min_value=timedelta(0), max_value=timedelta(hours=10))
STATUSES = st.integers(min_value=100, max_value=599) | st.sampled_from([200, 404, 410, 429, 500, 503])
ANSWERS = st.builds(Answer, status=STATUSES, retry_after=st.none() | DURATIONS) | st.builds(
    Answer, failure=st.sampled_from(Failure)
)


class DeliveryMachine(RuleBasedStateMachine):
    """One delivery, from its schedule on."""

    @initialize(
        schedule=st.lists(DURATIONS, max_size=4).map(tuple), retry_client_errors=st.booleans(), holds=st.booleans()
    )
    def schedule(self, schedule: tuple[timedelta, ...], *, retry_client_errors: bool, holds: bool) -> None:
        self.policy = RetryPolicy(schedule=schedule, retry_client_errors=retry_client_errors, holds=holds)
        self.now = NOON
        self.started = 0
        first = DeliveryScheduled(
            at=NOON, app=APP, message=MESSAGE, endpoint=ENDPOINT, config_version=1, rule=Rule.ALL, due_at=NOON
        )
        self.facts: list[DeliveryFact] = [first]
        self.state = fold(self.facts)

    @rule(step=STEPS)
    def start(self, step: timedelta) -> None:
        self.started += 1
        self.issue(
            step,
            StartAttempt(
                at=self.now, attempt=attempt(self.started), config_version=1, signing_key=None, process=PROCESS
            ),
        )

    @rule(step=STEPS, answer=ANSWERS, jitter=st.floats(min_value=-1, max_value=1), stale=st.integers(0, 2))
    def record(self, step: timedelta, answer: Answer, jitter: float, stale: int) -> None:
        self.issue(
            step,
            RecordAnswer(
                at=self.now,
                attempt=attempt(self.started - stale),
                answer=answer,
                policy=self.policy,
                jitter=jitter,
                url="https://example.com/",
                peer=None,
                sends=1,
                timings=Timings(),
            ),
        )

    @rule(step=STEPS, stale=st.integers(0, 2))
    def abandon(self, step: timedelta, stale: int) -> None:
        self.issue(step, AbandonAttempt(at=self.now, attempt=attempt(self.started - stale)))

    @rule(step=STEPS, stale=st.integers(0, 2))
    def declare_unknown(self, step: timedelta, stale: int) -> None:
        self.issue(step, DeclareUnknown(at=self.now, attempt=attempt(self.started - stale), holds=self.policy.holds))

    @rule(step=STEPS, reason=st.sampled_from(CancelReason), chance=st.integers(0, 9))
    def cancel(self, step: timedelta, reason: CancelReason, chance: int) -> None:
        if chance == 0:  # seldom, so that most lives are long ones
            self.issue(step, Cancel(at=self.now, reason=reason))

    @rule(step=STEPS, chance=st.integers(0, 9))
    def skip(self, step: timedelta, chance: int) -> None:
        if chance == 0:
            self.issue(step, Skip(at=self.now, actor="key:1"))

    @rule(step=STEPS, chance=st.integers(0, 9))
    def expire(self, step: timedelta, chance: int) -> None:
        if chance == 0:
            self.issue(step, Expire(at=self.now))

    @rule(step=STEPS, chance=st.integers(0, 9))
    def let_go(self, step: timedelta, chance: int) -> None:
        if chance == 0:
            self.issue(step, LetGo(at=self.now))

    @rule(step=STEPS)
    def request_resend(self, step: timedelta) -> None:
        self.issue(step, RequestResend(at=self.now, job=JOB))

    @rule(step=STEPS, reason=st.sampled_from(DropReason), chance=st.integers(0, 3))
    def drop_resend(self, step: timedelta, reason: DropReason, chance: int) -> None:
        if chance == 0:
            self.issue(step, DropResend(at=self.now, reason=reason))

    @rule(step=STEPS, ahead=DURATIONS)
    def reopen(self, step: timedelta, ahead: timedelta) -> None:
        self.issue(step, Reopen(at=self.now, due_at=self.now + ahead, job=JOB))

    def issue(self, step: timedelta, command: Command) -> None:
        before = self.state
        self.now += step
        try:
            facts = decide(before, command)
        except NotWaitingError:
            assert before.status is not Status.WAITING or isinstance(command, DropResend | LetGo)
            return
        except UnderWayError:
            assert before.resend_at is not None or not before.status.terminal
            return
        except StaleAttemptError:
            assert before.status is not Status.SENDING or before.attempt != getattr(command, "attempt", None)
            return
        if before.status.terminal and not isinstance(command, Reopen | RequestResend):
            assert before.resend_at is not None, "terminal states absorb"
            assert isinstance(command, StartAttempt | DropResend)
        assert facts == decide(before, command), "a decision depends on nothing but its arguments"
        assert facts, "an accepted command leaves a fact"
        for fact in facts:
            self.state = evolve(self.state, fact)
        self.facts += facts

    @invariant()
    def folding_is_deterministic(self) -> None:
        assert fold(self.facts) == self.state

    @invariant()
    def folding_what_was_stored_comes_to_the_same(self) -> None:
        assert fold(map(stored, self.facts)) == self.state

    @invariant()
    def the_version_counts_the_facts(self) -> None:
        assert self.state.version == len(self.facts)

    @invariant()
    def time_does_not_run_backwards(self) -> None:
        times = [fact.at for fact in self.facts]
        assert times == sorted(times)
        assert self.state.updated_at == times[-1]

    @invariant()
    def attempts_are_numbered_from_one_without_gaps(self) -> None:
        for run, facts in enumerate(self.runs(), start=1):
            started = [fact for fact in facts if isinstance(fact, AttemptStarted)]
            assert {fact.run for fact in started} <= {run}
            numbers = [fact.number for fact in started if fact.trigger is Trigger.SCHEDULED]
            assert numbers == list(range(1, len(numbers) + 1))
            assert {fact.number for fact in started if fact.trigger is Trigger.MANUAL} <= {0}
        assert self.state.run == run
        assert self.state.attempts == len(numbers)

    @invariant()
    def a_run_starts_nothing_after_its_end(self) -> None:
        state = fold(self.facts[:1])
        for fact in self.facts[1:]:
            if isinstance(fact, AttemptStarted) and fact.trigger is Trigger.SCHEDULED:
                assert state.status is Status.WAITING
            state = evolve(state, fact)

    @invariant()
    def a_manual_attempt_leaves_the_schedule_alone(self) -> None:
        states = self.states()
        for fact, before, after in zip(self.facts[1:], states, states[1:], strict=False):
            if before.beside is None or not isinstance(fact, AttemptEnded | AttemptAbandoned | AttemptOutcomeUnknown):
                continue
            schedule = [(state.due_at, state.run, state.attempts, state.failures) for state in (before, after)]
            if after.status is Status.SUCCEEDED and before.beside is not Status.SUCCEEDED:
                assert isinstance(fact, AttemptEnded)
                assert after.due_at is None
            else:
                assert after.status is before.beside or after.status is Status.SUCCEEDED
                assert schedule[0] == schedule[1]

    @invariant()
    def each_manual_attempt_was_asked_for_and_one_is_made_for_each_that_is_not_dropped(self) -> None:
        asked = sum(isinstance(fact, ResendRequested) for fact in self.facts)
        again = sum(isinstance(fact, ResendDelayed) for fact in self.facts)
        manual = sum(isinstance(fact, AttemptStarted) and fact.trigger is Trigger.MANUAL for fact in self.facts)
        assert manual <= asked + again

    @invariant()
    def a_resend_that_was_asked_for_is_made_or_dropped_before_the_next_is_asked_for(self) -> None:
        asked = False
        for fact, before in zip(self.facts[1:], self.states(), strict=False):
            match fact:
                case ResendRequested():
                    assert not asked
                    asked = True
                case AttemptEnded() if before.beside is not None:
                    asked = False
                case ResendDropped() | DeliveryCancelled() | DeliverySkipped():
                    asked = False
                case _:
                    pass
        assert self.state.asked is asked

    @invariant()
    def an_open_delivery_has_its_time_unless_it_flies_or_is_held(self) -> None:
        untimed = self.state.status in {Status.SENDING, Status.HELD}
        assert self.state.open is (self.state.next_at is not None or untimed)

    @invariant()
    def what_is_told_is_found_by_the_kinds_and_versions_that_are_looked_at(self) -> None:
        troubled = False
        for told in of_delivery(self.facts):
            kind = type(self.facts[told.version - 1]).__name__
            assert told.version >= DELIVERY_FACTS[kind]
            assert troubled or told.news is not News.RECOVERED
            troubled = told.news is not News.RECOVERED

    @invariant()
    def attempts_do_not_overlap(self) -> None:
        flying: UUID | None = None
        for fact in self.facts:
            match fact:
                case AttemptStarted(attempt=begun):
                    assert flying is None
                    flying = begun
                case AttemptEnded() | AttemptAbandoned() | AttemptOutcomeUnknown():
                    assert flying == fact.attempt
                    flying = None
        assert self.state.attempt == flying

    @invariant()
    def answered_attempts_are_no_more_than_the_schedule_allows(self) -> None:
        for run in self.runs():
            manual = {fact.attempt for fact in run if isinstance(fact, AttemptStarted) and not fact.number}
            ended = [fact for fact in run if isinstance(fact, AttemptEnded) and fact.attempt not in manual]
            assert len(ended) <= len(self.policy.schedule) + 1

    @invariant()
    def five_unknown_attempts_in_a_row_are_the_end_or_held(self) -> None:
        assert self.state.unknowns <= MOST_UNKNOWN_IN_A_ROW
        if self.state.unknowns == MOST_UNKNOWN_IN_A_ROW:
            status = self.state.beside or self.state.status
            assert status.at_rest if self.policy.holds else status is Status.EXHAUSTED

    @invariant()
    def every_schedule_that_is_folded_was_decided(self) -> None:
        places = iter(self.policy.schedule)
        states = self.states()
        for fact, decision, before in zip(self.facts[1:], self.facts[2:], states, strict=False):
            if isinstance(decision, DeliveryReopened):
                places = iter(self.policy.schedule)
                continue
            if before.beside is not None:
                assert not isinstance(fact, AttemptEnded) or fact.jitter is None
                continue
            match fact, decision:
                case AttemptEnded(jitter=float(jitter)), RetryScheduled():
                    decided = RetryPolicy(schedule=(next(places),)).wait(1, jitter=jitter, retry_after=fact.retry_after)
                    assert decided is not None
                    assert (decided.base, decided.delay) == (fact.base_delay, decision.due_at - fact.at)
                case AttemptEnded(), RetryScheduled():
                    raise AssertionError("a retry says from which chance it was decided")
                case AttemptEnded(), DeliveryExhausted():
                    assert next(places, None) is None
                    assert not self.policy.holds
                case AttemptEnded(), DeliveryHeld():
                    assert self.policy.holds
                case ((AttemptAbandoned() | AttemptOutcomeUnknown()), RetryScheduled()):
                    assert decision.due_at == fact.at

    @invariant()
    def what_is_due_waits_and_what_is_owned_flies(self) -> None:
        waits = Status.WAITING in {self.state.status, self.state.beside}
        assert (self.state.due_at is not None) is waits
        assert self.state.beside is None or self.state.status is Status.SENDING
        assert (self.state.attempt is not None) is (self.state.status is Status.SENDING)
        assert (self.state.process is not None) is (self.state.status is Status.SENDING)

    @invariant()
    def a_delivery_keeps_its_message_and_endpoint(self) -> None:
        first = fold(self.facts[:1])
        for name in ("app", "message", "endpoint", "created_at"):
            assert getattr(self.state, name) == getattr(first, name)

    def states(self) -> list[Delivery]:
        """The state after each fact."""
        states = [fold(self.facts[:1])]
        for fact in self.facts[1:]:
            states.append(evolve(states[-1], fact))
        return states

    def runs(self) -> list[list[DeliveryFact]]:
        """The facts of each run."""
        runs: list[list[DeliveryFact]] = [[]]
        for fact in self.facts:
            if isinstance(fact, DeliveryReopened):
                runs.append([])
            runs[-1].append(fact)
        return runs


def attempt(number: int) -> UUID:
    return UUID(int=1000 + number)


def stored(fact: DeliveryFact) -> DeliveryFact:
    """The fact after its way into the ledger and out again."""
    found = ledger.decode(*ledger.encode(fact), at=fact.at, app=APP, endpoint=ENDPOINT)
    assert isinstance(found, DeliveryFact)
    return found


TestDeliveryMachine = DeliveryMachine.TestCase
TestDeliveryMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
