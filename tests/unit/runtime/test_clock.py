"""The clock: the database's, as far as it has been asked."""

import os
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


def test_entropy_is_never_given_twice() -> None:
    given = [clock.entropy(count) for count in (10, 16, 4000, 10, 4096, 1) for _ in range(50)]
    assert [len(each) for each in given] == [count for count in (10, 16, 4000, 10, 4096, 1) for _ in range(50)]
    long = [each for each in given if len(each) >= 10]
    assert len(set(long)) == len(long)


def test_a_forked_process_has_entropy_of_its_own() -> None:
    clock.entropy(1)  # so that there is some left
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, clock.entropy(16))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 16) != clock.entropy(16)
    os.close(reading)
    os.close(writing)
