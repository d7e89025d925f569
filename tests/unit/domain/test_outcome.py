"""What a receiver's answer means."""

from datetime import UTC, datetime, timedelta

import pytest

from libs.common.domain.outcome import Answer, Failure, Outcome, classify, describe, parse_retry_after

NOW = datetime(2026, 8, 21, 10, 0, 0, tzinfo=UTC)
YEAR = timedelta(days=365)


# Statuses


@pytest.mark.parametrize("status", [200, 201, 202, 204, 207, 299])
def test_any_2xx_is_success(status: int) -> None:
    assert classify(Answer(status=status)) is Outcome.SUCCEEDED


def test_410_asks_us_to_stop() -> None:
    assert classify(Answer(status=410)) is Outcome.GONE


@pytest.mark.parametrize("status", [408, 425, 429])
def test_a_4xx_that_means_later_is_tried_again(status: int) -> None:
    assert classify(Answer(status=status)) is Outcome.RETRYABLE


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 413, 418, 422, 451, 499])
def test_any_other_4xx_is_final(status: int) -> None:
    assert classify(Answer(status=status)) is Outcome.REFUSED


@pytest.mark.parametrize("status", [400, 401, 404, 422, 499])
def test_an_endpoint_may_have_its_4xx_tried_again(status: int) -> None:
    assert classify(Answer(status=status), retry_client_errors=True) is Outcome.RETRYABLE


def test_410_stops_even_where_4xx_are_tried_again() -> None:
    assert classify(Answer(status=410), retry_client_errors=True) is Outcome.GONE


@pytest.mark.parametrize("status", [500, 501, 502, 503, 504, 599])
def test_a_5xx_is_tried_again(status: int) -> None:
    assert classify(Answer(status=status)) is Outcome.RETRYABLE


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
def test_a_redirect_is_a_failure_and_tried_again(status: int) -> None:
    assert classify(Answer(status=status)) is Outcome.RETRYABLE


@pytest.mark.parametrize("status", [100, 101, 199, 600, 999])
def test_a_status_that_is_no_answer_is_tried_again(status: int) -> None:
    assert classify(Answer(status=status)) is Outcome.RETRYABLE


# No status


@pytest.mark.parametrize("failure", Failure)
def test_a_failure_to_get_an_answer_is_tried_again(failure: Failure) -> None:
    expected = Outcome.REFUSED if failure is Failure.TRANSFORMATION else Outcome.RETRYABLE
    assert classify(Answer(failure=failure)) is expected


@pytest.mark.parametrize("failure", Failure)
def test_every_failure_can_be_told_to_a_person(failure: Failure) -> None:
    phrase = describe(Answer(failure=failure))
    assert phrase
    assert phrase != describe(Answer())


def test_a_status_is_told_as_it_is() -> None:
    assert describe(Answer(status=503)) == "HTTP 503"


# Retry-After


@pytest.mark.parametrize("status", [429, 503])
def test_an_overloaded_receiver_may_name_seconds(status: int) -> None:
    assert parse_retry_after("120", status=status, now=NOW) == timedelta(minutes=2)


def test_an_overloaded_receiver_may_name_a_date() -> None:
    asked = parse_retry_after("Fri, 21 Aug 2026 10:05:00 GMT", status=503, now=NOW)
    assert asked == timedelta(minutes=5)


def test_a_date_in_the_past_asks_for_no_wait() -> None:
    assert parse_retry_after("Fri, 21 Aug 2026 09:00:00 GMT", status=503, now=NOW) == timedelta(0)


@pytest.mark.parametrize("status", [200, 301, 400, 404, 408, 410, 425, 500, 502, 504])
def test_no_other_status_may_ask(status: int) -> None:
    assert parse_retry_after("120", status=status, now=NOW) is None


@pytest.mark.parametrize(
    "value", [None, "", " ", "soon", "-1", "1.5", "1e3", "0x10", "²", "١٢", "10 seconds", "Fri, 99 Aug 2026", "\ud800"]
)
def test_nonsense_counts_as_absent(value: str | None) -> None:
    assert parse_retry_after(value, status=503, now=NOW) is None


def test_white_space_around_a_number_is_no_matter() -> None:
    assert parse_retry_after(" 7 ", status=503, now=NOW) == timedelta(seconds=7)


@pytest.mark.parametrize("value", ["9" * 12, "9" * 5000, "Fri, 21 Aug 9999 10:00:00 GMT"])
def test_nobody_can_ask_for_more_than_a_year(value: str) -> None:
    assert parse_retry_after(value, status=429, now=NOW) == YEAR
