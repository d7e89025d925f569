"""Who watches the watchers: each broken invariant is seen."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from libs.common.domain.endpoint import Rule
from libs.common.domain.facts import (
    AttemptEnded,
    AttemptOutcomeUnknown,
    AttemptStarted,
    DeliveryExhausted,
    DeliveryFact,
    DeliveryScheduled,
    RetryScheduled,
    Timings,
    Trigger,
)
from libs.common.domain.ids import Prefix, encode
from libs.common.domain.outcome import Failure, Outcome
from tests.support.invariants import Seen, broken, disagreements

NOON = datetime(2026, 8, 21, 12, tzinfo=UTC)
APP, MESSAGE, ENDPOINT, PROCESS = (UUID(int=number) for number in range(1, 5))
SCHEDULED = DeliveryScheduled(
    at=NOON, app=APP, message=MESSAGE, endpoint=ENDPOINT, config_version=1, rule=Rule.ALL, due_at=NOON
)
RETRY = RetryScheduled(at=NOON, due_at=NOON)
EXHAUSTED = DeliveryExhausted(at=NOON)


def started(number: int) -> AttemptStarted:
    return AttemptStarted(
        at=NOON,
        attempt=UUID(int=10 + number),
        run=1,
        number=number,
        trigger=Trigger.SCHEDULED,
        config_version=1,
        signing_key=None,
        process=PROCESS,
    )


def ended(number: int, answer: int | Failure, *, sends: int = 1) -> AttemptEnded:
    status, failure = (None, answer) if isinstance(answer, Failure) else (answer, None)
    return AttemptEnded(
        at=NOON,
        attempt=UUID(int=10 + number),
        outcome=Outcome.SUCCEEDED if status is not None and status < 300 else Outcome.RETRYABLE,
        status=status,
        failure=failure,
        url="http://127.0.0.1/",
        peer=None,
        sends=sends,
        timings=Timings(),
        base_delay=timedelta(0),
        jitter=0.0,
        retry_after=None,
    )


def unknown(number: int) -> AttemptOutcomeUnknown:
    return AttemptOutcomeUnknown(at=NOON, attempt=UUID(int=10 + number))


RIGHT: list[DeliveryFact] = [
    *(SCHEDULED, started(1), unknown(1), RETRY, started(2), ended(2, 500), RETRY, started(3), ended(3, 200)),
]


def findings(*facts: DeliveryFact, schedule: int = 2) -> str:
    return "; ".join(broken([facts], schedule=schedule))


def test_a_stream_as_it_should_be_is_not_complained_about() -> None:
    assert findings(*RIGHT) == ""


@pytest.mark.parametrize(
    ("facts", "number"),
    [
        pytest.param(RIGHT[:-1], "(2)", id="not over"),
        pytest.param(RIGHT[:-1], "(5)", id="an attempt without an end"),
        pytest.param([SCHEDULED, started(2), ended(2, 200)], "(3)", id="a gap"),
        pytest.param(
            [SCHEDULED, started(1), ended(1, 500), RETRY, started(1), ended(1, 200)], "(3)", id="twice the same"
        ),
        pytest.param([*RIGHT, started(4), ended(4, 200)], "(4)", id="after success"),
        pytest.param([SCHEDULED, started(1), ended(1, 500), EXHAUSTED, RETRY], "(4)", id="after exhaustion"),
        pytest.param([SCHEDULED, started(1), unknown(1)], "(5)", id="unknown and left so"),
        pytest.param([SCHEDULED, started(1), started(2), ended(2, 200)], "(6)", id="two at once"),
        pytest.param([SCHEDULED, started(1), ended(2, 200)], "(6)", id="the end of another"),
    ],
)
def test_each_broken_invariant_is_seen(facts: Sequence[DeliveryFact], number: str) -> None:
    assert number in findings(*facts)


def test_more_attempts_than_the_schedule_allows_are_seen() -> None:
    assert "(3)" in findings(*RIGHT, schedule=0)


# Against the receiver's own log


KEY = (encode(Prefix.MESSAGE, MESSAGE), "shop")
NAMES = {encode(Prefix.ENDPOINT, ENDPOINT): "shop"}


def seen(*statuses: int | None, bodies: tuple[bytes, ...] = (b"{}",)) -> dict[tuple[str, str], Seen]:
    return {KEY: Seen(bodies=bodies, statuses=statuses)}


def compared(found: dict[tuple[str, str], Seen], facts: Sequence[DeliveryFact] = tuple(RIGHT)) -> str:
    return "; ".join(disagreements([facts], found, NAMES))


@pytest.mark.parametrize("statuses", [(500, 200), (503, 500, 200), (None, 500, 200), (None, None, 500, 200)])
def test_the_receiver_may_or_may_not_have_seen_an_unknown_attempt(statuses: tuple[int | None, ...]) -> None:
    assert compared(seen(*statuses)) == ""


@pytest.mark.parametrize(
    "statuses",
    [
        pytest.param((), id="nothing seen"),
        pytest.param((500, 500), id="never a 2xx"),
        pytest.param((500, 500, 500, 500, 200), id="once too often"),
        pytest.param((200, 500), id="in another order"),
        pytest.param((503, 200), id="another answer"),
    ],
)
def test_what_the_receiver_did_not_see_so_is_seen(statuses: tuple[int, ...]) -> None:
    assert "(8)" in compared(seen(*statuses))


@pytest.mark.parametrize("statuses", [(200,), (None, 200)])
def test_the_receiver_may_never_have_read_a_send_that_was_given_up(statuses: tuple[int | None, ...]) -> None:
    facts: list[DeliveryFact] = [SCHEDULED, started(1), ended(1, Failure.TIMEOUT), RETRY, started(2), ended(2, 200)]
    assert compared(seen(*statuses), facts) == ""
    assert "(8)" in compared(seen(None, None, 200), facts)


@pytest.mark.parametrize("failure", [Failure.RESET, Failure.PROTOCOL])
def test_any_other_send_that_failed_came_to_the_receiver(failure: Failure) -> None:
    facts: list[DeliveryFact] = [SCHEDULED, started(1), ended(1, failure), RETRY, started(2), ended(2, 200)]
    assert compared(seen(None, 200), facts) == ""
    assert "(8)" in compared(seen(200), facts)


def test_a_send_that_was_repeated_on_a_stale_connection_counts_twice() -> None:
    facts: list[DeliveryFact] = [SCHEDULED, started(1), ended(1, 200, sends=2)]
    assert compared(seen(None, 200), facts) == ""
    assert "(8)" in compared(seen(200), facts)


def test_other_bytes_on_another_attempt_are_seen() -> None:
    assert "(7)" in compared(seen(500, 200, bodies=(b"{}", b"{ }")))


def test_a_request_that_the_ledger_does_not_know_is_seen() -> None:
    stranger = {("msg_other", "shop"): Seen(bodies=(b"{}",), statuses=(200,))}
    assert "unknown to the ledger (8)" in compared(seen(500, 200) | stranger)
