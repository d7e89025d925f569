"""The clock: the database's, as far as it has been asked."""

from datetime import UTC, datetime, timedelta

import pytest

from libs.common.domain.ids import born_ms
from libs.common.runtime import clock

DATABASE = datetime(2031, 5, 1, 12, 0, tzinfo=UTC)
A_MOMENT = timedelta(seconds=1)


@pytest.fixture(autouse=True)
def unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_reference", None)


def test_until_the_database_was_asked_the_machines_clock_counts() -> None:
    assert abs(clock.now() - datetime.now(UTC)) < A_MOMENT


def test_once_it_was_asked_its_clock_counts() -> None:
    clock.follow(DATABASE, asked=clock.monotonic())
    assert DATABASE <= clock.now() < DATABASE + A_MOMENT


def test_it_goes_on_by_itself_between_the_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = clock.monotonic()
    clock.follow(DATABASE, asked=asked)
    monkeypatch.setattr(clock, "monotonic", lambda: asked + 60)
    assert abs(clock.now() - DATABASE - timedelta(minutes=1)) < A_MOMENT


def test_a_step_of_the_machines_clock_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "clock_step", lambda: timedelta(hours=1))
    clock.follow(DATABASE, asked=clock.monotonic())
    assert DATABASE <= clock.now() < DATABASE + A_MOMENT


def test_an_answer_that_took_long_is_not_believed_when_there_is_a_better_one() -> None:
    clock.follow(DATABASE, asked=clock.monotonic())
    clock.follow(DATABASE + timedelta(seconds=30), asked=clock.monotonic() - 5)
    assert clock.now() < DATABASE + A_MOMENT


def test_new_ids_carry_that_time() -> None:
    clock.follow(DATABASE, asked=clock.monotonic())
    assert 0 <= born_ms(clock.new_id()) - DATABASE.timestamp() * 1000 < 1000
