"""Attempts that have ended, as rows: the fold of a delivery's stream."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from libs.common.domain import delivery
from libs.common.domain.attempts import attempt_rows
from libs.common.domain.commands import AbandonAttempt, DeclareUnknown, RecordAnswer, StartAttempt
from libs.common.domain.endpoint import Rule
from libs.common.domain.facts import AttemptAbandoned, DeliveryFact, DeliveryScheduled, Timings
from libs.common.domain.outcome import Answer, Failure
from libs.common.domain.retry import RetryPolicy

T0 = datetime(2026, 1, 2, tzinfo=UTC)
APP, MESSAGE, ENDPOINT, DELIVERY, PROCESS, KEY = (UUID(int=number) for number in range(1, 7))
SECOND = timedelta(seconds=1)
SCHEDULED = DeliveryScheduled(
    at=T0, app=APP, message=MESSAGE, endpoint=ENDPOINT, config_version=1, rule=Rule.ALL, due_at=T0
)


def started(facts: Sequence[DeliveryFact], number: int) -> list[DeliveryFact]:
    begin = StartAttempt(
        at=T0 + number * SECOND, attempt=UUID(int=100 + number), config_version=3, signing_key=KEY, process=PROCESS
    )
    return [*facts, *delivery.decide(delivery.fold(facts), begin)]


def answered(facts: Sequence[DeliveryFact], number: int, answer: Answer) -> list[DeliveryFact]:
    record = RecordAnswer(
        at=T0 + number * SECOND + SECOND / 2,
        attempt=UUID(int=100 + number),
        answer=answer,
        policy=RetryPolicy(),
        jitter=0.0,
        url="https://example.com/",
        peer="192.0.2.1",
        sends=2,
        timings=Timings(total=timedelta(microseconds=1_234_567)),
    )
    return [*facts, *delivery.decide(delivery.fold(facts), record)]


def test_an_attempt_that_ended_is_a_row_with_what_was_seen() -> None:
    (row,) = attempt_rows(DELIVERY, answered(started([SCHEDULED], 1), 1, Answer(status=204)))
    assert (row.delivery, row.attempt, row.app, row.message, row.endpoint) == (
        DELIVERY,
        UUID(int=101),
        APP,
        MESSAGE,
        ENDPOINT,
    )
    assert (row.run, row.number, row.trigger, row.config_version) == (1, 1, "scheduled", 3)
    assert (row.signing_key, row.process, row.peer, row.url) == (KEY, PROCESS, "192.0.2.1", "https://example.com/")
    assert (row.result, row.status, row.failure, row.sends, row.total_us) == ("succeeded", 204, None, 2, 1_234_567)
    assert (row.started_at, row.ended_at) == (T0 + SECOND, T0 + SECOND * 1.5)


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (Answer(status=500), "retryable"),
        (Answer(failure=Failure.TIMEOUT), "retryable"),
        (Answer(status=404), "refused"),
        (Answer(status=410), "gone"),
    ],
)
def test_a_result_is_the_outcome(answer: Answer, result: str) -> None:
    (row,) = attempt_rows(DELIVERY, answered(started([SCHEDULED], 1), 1, answer))
    assert (row.result, row.status, row.failure) == (result, answer.status, answer.failure)


def test_an_abandoned_attempt_sent_nothing_and_an_unknown_one_perhaps_once() -> None:
    facts = started([SCHEDULED], 1)
    facts += delivery.decide(delivery.fold(facts), AbandonAttempt(at=T0 + SECOND * 2, attempt=UUID(int=101)))
    facts = started(facts, 3)
    facts += delivery.decide(
        delivery.fold(facts), DeclareUnknown(at=T0 + SECOND * 4, attempt=UUID(int=103), holds=False)
    )
    abandoned, unknown = attempt_rows(DELIVERY, facts)
    assert (abandoned.result, abandoned.sends) == ("abandoned", 0)
    assert (unknown.result, unknown.sends) == ("unknown", 1)
    for row in (abandoned, unknown):
        assert (row.url, row.peer, row.status, row.failure, row.total_us) == (None, None, None, None, None)


def test_an_attempt_in_flight_is_no_row() -> None:
    assert attempt_rows(DELIVERY, started([SCHEDULED], 1)) == []


def test_rows_come_in_the_order_of_their_ends() -> None:
    facts = answered(started([SCHEDULED], 1), 1, Answer(status=500))
    facts = answered(started(facts, 2), 2, Answer(status=200))
    assert [row.number for row in attempt_rows(DELIVERY, facts)] == [1, 2]


def test_an_end_without_a_beginning_is_a_broken_stream() -> None:
    with pytest.raises(ValueError, match="without having been started"):
        attempt_rows(DELIVERY, [SCHEDULED, AttemptAbandoned(at=T0, attempt=UUID(int=1))])
