"""What an organisation is told of an endpoint, and of a delivery: the whole stream given, then the news at each fact."""

from collections.abc import Iterable
from datetime import UTC, datetime
from uuid import UUID

import pytest

from libs.common.domain.commands import (
    AbandonAttempt,
    Cancel,
    Command,
    DeclareUnknown,
    Expire,
    LetGo,
    RecordAnswer,
    Reopen,
    RequestResend,
    StartAttempt,
)
from libs.common.domain.delivery import decide, fold
from libs.common.domain.endpoint import Rule
from libs.common.domain.facts import CancelReason, DeliveryFact, DeliveryScheduled, Timings
from libs.common.domain.operational import News, Told, of_delivery, of_endpoint
from libs.common.domain.outcome import Answer, Failure
from libs.common.domain.retry import STANDARD_SCHEDULE, RetryPolicy

NOON = datetime(2026, 8, 21, 12, tzinfo=UTC)
APP, MESSAGE, ENDPOINT, PROCESS, JOB = (UUID(int=number) for number in range(1, 6))
SCHEDULED = DeliveryScheduled(
    at=NOON, app=APP, message=MESSAGE, endpoint=ENDPOINT, config_version=1, rule=Rule.ALL, due_at=NOON
)
RESEND = RequestResend(at=NOON, job=JOB)
REPLAY = Reopen(at=NOON, due_at=NOON, job=JOB)
FULL = RetryPolicy(schedule=STANDARD_SCHEDULE)
OK, DOWN = 204, 503


# Endpoints


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("EndpointCreated", "endpoint.created"),
        ("EndpointUpdated", "endpoint.updated"),
        ("EndpointSecretRotated", "endpoint.updated"),
        ("EndpointEnabled", "endpoint.updated"),
        ("EndpointDisabled", "endpoint.updated"),
        ("EndpointDeleted", "endpoint.deleted"),
        ("ApplicationCreated", None),
        ("JobCreated", None),
    ],
)
def test_what_somebody_did_to_an_endpoint_is_told_as_the_reference_has_it(kind: str, told: str | None) -> None:
    assert of_endpoint(kind, fail_since=None) == told


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("EndpointFailing", "endpoint.failing"),
        ("EndpointRecovered", "endpoint.recovered"),
        ("EndpointDisabled", "endpoint.disabled"),
    ],
)
def test_what_followed_from_failures_is_told_by_its_own_name(kind: str, told: str) -> None:
    assert of_endpoint(kind, fail_since=NOON) == told


# Deliveries


def test_a_delivery_that_succeeds_at_once_or_after_a_few_failures_is_not_told_of() -> None:
    assert news(OK) == []
    assert news(DOWN, DOWN, DOWN, OK) == []


def test_the_fourth_failure_is_told_once_however_many_follow() -> None:
    assert news(*[DOWN] * 3) == []
    assert news(*[DOWN] * 4) == ["message.attempt.failing"]
    assert news(*[DOWN] * 7) == ["message.attempt.failing"]


def test_the_last_failure_is_told_as_exhausted() -> None:
    assert news(*[DOWN] * 8) == ["message.attempt.failing", "message.attempt.exhausted"]


def test_a_fourth_failure_that_is_the_last_is_exhausted_and_not_failing() -> None:
    short = RetryPolicy(schedule=STANDARD_SCHEDULE[:3])
    assert news(*[DOWN] * 4, policy=short) == ["message.attempt.exhausted"]


@pytest.mark.parametrize("status", [404, 410])
def test_a_final_answer_is_told_as_exhausted(status: int) -> None:
    assert news(status) == ["message.attempt.exhausted"]


def test_a_success_after_failing_was_told_is_a_recovery() -> None:
    assert news(*[DOWN] * 4, OK) == ["message.attempt.failing", "message.attempt.recovered"]


def test_a_success_sent_by_hand_after_exhausted_was_told_is_a_recovery_once() -> None:
    assert news(404, RESEND, OK, RESEND, OK) == ["message.attempt.exhausted", "message.attempt.recovered"]


def test_failures_sent_by_hand_are_not_counted() -> None:
    assert news(DOWN, DOWN, DOWN, RESEND, DOWN, RESEND, DOWN) == []
    assert news(DOWN, DOWN, DOWN, RESEND, DOWN, DOWN) == ["message.attempt.failing"]
    assert news(404, RESEND, DOWN) == ["message.attempt.exhausted"]


def test_a_replay_counts_its_failures_anew() -> None:
    told = [
        "message.attempt.failing",
        "message.attempt.exhausted",
        "message.attempt.failing",
        "message.attempt.recovered",
    ]
    assert news(*[DOWN] * 8, REPLAY, *[DOWN] * 3) == told[:2]
    assert news(*[DOWN] * 8, REPLAY, *[DOWN] * 4, OK) == told


def test_an_attempt_that_nobody_knows_the_end_of_repeats_nothing() -> None:
    assert news(*[DOWN] * 4, unknown, abandoned, DOWN) == ["message.attempt.failing"]


def test_five_unknown_attempts_are_exhausted_with_the_last_of_them() -> None:
    [told] = tell(*[unknown] * 5)
    assert told.news is News.EXHAUSTED
    assert (told.last.id, told.last.status) == (UUID(int=105), None)


def test_what_is_cancelled_is_not_told_of_nor_what_is_sent_by_hand_afterwards() -> None:
    assert news(Cancel(at=NOON, reason=CancelReason.ENDPOINT_DISABLED), RESEND, OK) == []


def test_what_expires_is_exhausted_if_it_was_ever_tried() -> None:
    assert news(DOWN, Expire(at=NOON)) == ["message.attempt.exhausted"]
    assert news(Expire(at=NOON)) == []


def test_what_is_held_is_told_as_exhausted_and_not_again_when_it_is_let_go() -> None:
    holding = RetryPolicy(schedule=(), holds=True)
    assert news(DOWN, LetGo(at=NOON), policy=holding) == ["message.attempt.exhausted"]
    assert news(404, REPLAY, 404, policy=holding) == ["message.attempt.exhausted"] * 2
    assert news(404, REPLAY, OK, policy=holding) == ["message.attempt.exhausted", "message.attempt.recovered"]


def test_each_is_told_at_its_fact_with_the_attempt_that_came_last() -> None:
    failing, recovered = tell(*[DOWN] * 3, Failure.TIMEOUT, OK)
    assert (failing.version, failing.last.id, failing.last.status) == (13, UUID(int=104), None)
    assert (recovered.version, recovered.last.id, recovered.last.status) == (15, UUID(int=105), OK)
    assert recovered.last.at == NOON


unknown, abandoned = object(), object()


def news(*steps: object, policy: RetryPolicy = FULL) -> list[str]:
    """The names of what is told."""
    return [told.news for told in tell(*steps, policy=policy)]


def tell(*steps: object, policy: RetryPolicy = FULL) -> list[Told]:
    """What is told of a delivery. A step is a command, or the end of an attempt: a status, a failure, or the loss."""
    facts: list[DeliveryFact] = [SCHEDULED]
    tries = 100
    for step in steps:
        commands: Iterable[Command]
        if isinstance(step, Cancel | Expire | LetGo | RequestResend | Reopen):
            commands = [step]
        else:
            tries += 1
            commands = [_started(UUID(int=tries)), _ended(UUID(int=tries), step, policy)]
        for command in commands:
            facts += decide(fold(facts), command)
    return of_delivery(facts)


def _started(attempt: UUID) -> StartAttempt:
    return StartAttempt(at=NOON, attempt=attempt, config_version=1, signing_key=None, process=PROCESS)


def _ended(attempt: UUID, step: object, policy: RetryPolicy) -> Command:
    if step is unknown:
        return DeclareUnknown(at=NOON, attempt=attempt, holds=policy.holds)
    if step is abandoned:
        return AbandonAttempt(at=NOON, attempt=attempt)
    answer = Answer(failure=step) if isinstance(step, Failure) else Answer(status=step)  # type: ignore[arg-type]
    return RecordAnswer(
        at=NOON,
        attempt=attempt,
        answer=answer,
        policy=policy,
        jitter=0.0,
        url="https://example.com/",
        peer=None,
        sends=1,
        timings=Timings(),
    )
