"""Progress: a bar where somebody watches, a line at each tenth where a file does."""

import pytest

from services.admin.progress import Bar, Lines, showing


def lines(total: int, *steps: int) -> list[str]:
    said: list[str] = []
    with showing("rebuild", said.append) as progress:
        assert isinstance(progress, Lines)
        progress.begin(total)
        for step in steps:
            progress.advance(step)
    return said


def test_a_file_gets_one_line_for_each_tenth() -> None:
    assert lines(1000, *[1] * 1000) == [f"rebuild: {percent} %" for percent in range(10, 101, 10)]


def test_a_large_step_is_one_line() -> None:
    assert lines(1000, 99, 1, 350, 550) == ["rebuild: 10 %", "rebuild: 40 %", "rebuild: 100 %"]


def test_steps_that_came_in_addition_are_not_more_than_all() -> None:
    assert lines(10, 9, 9, 9) == ["rebuild: 90 %", "rebuild: 100 %"]


def test_nothing_to_do_is_all_done() -> None:
    assert lines(0, 0) == ["rebuild: 100 %"]


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with showing("rebuild", pytest.fail) as progress:
        assert isinstance(progress, Bar)
        progress.begin(200)
        progress.advance(150)
        progress.advance(50)
    shown = capsys.readouterr().out
    assert "200/200" in shown
    assert "━" in shown
