"""How the suite runs its lanes: beside one another, in their order, each told of as a whole."""

import subprocess
import sys
import time
from pathlib import Path

from deploy.stack.lanes import Lane, run_beside
from deploy.stack.places import CHECKOUT


def lane(name: str, program: str) -> Lane:
    return Lane(name=name, command=(sys.executable, "-c", program))


def waits_for(path: Path) -> str:
    return f"import pathlib, time\nwhile not pathlib.Path({str(path)!r}).exists(): time.sleep(0.01)"


def test_of_a_lane_that_does_well_its_last_line_is_shown() -> None:
    said: list[str] = []
    assert run_beside([lane("one", "print('much'); print('2 passed')")], at_once=1, say=said.append) == 0
    begins, ok = said
    assert begins == "test: begins  one"
    assert ok.startswith("test: 1/1 ok  one  ")
    assert ok.endswith(" s: 2 passed")


def test_lanes_run_beside_one_another(tmp_path: Path) -> None:
    said: list[str] = []
    done = tmp_path / "done"
    lanes = [lane("waits", waits_for(done)), lane("helps", f"open({str(done)!r}, 'w')")]
    assert run_beside(lanes, at_once=2, say=said.append) == 0
    assert said[:2] == ["test: begins  waits", "test: begins  helps"]


def test_no_more_run_at_once_than_are_allowed() -> None:
    said: list[str] = []
    assert run_beside([lane(name, "print()") for name in "abc"], at_once=1, say=said.append) == 0
    assert [line.split("  ")[1] for line in said] == ["a", "a", "b", "b", "c", "c"]


def test_a_lane_that_fails_is_shown_whole_and_fails_all_and_no_other_begins(tmp_path: Path) -> None:
    said: list[str] = []
    done = tmp_path / "done"
    lanes = [
        lane("waits", waits_for(done)),
        lane("fails", f"import sys; print('much'); open({str(done)!r}, 'w'); sys.exit('why')"),
        lane("next", "print()"),
    ]
    assert run_beside(lanes, at_once=2, say=said.append) == 1
    assert not any("next" in line for line in said)
    [failed] = [line for line in said if "FAILED" in line]
    assert failed.endswith(" s\nmuch\nwhy")
    assert any("ok  waits" in line for line in said), "what runs is waited for"


def test_meanwhile_it_is_told_how_far_each_has_come(tmp_path: Path) -> None:
    done = tmp_path / "done"
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if line.endswith("tests"):
            done.touch()

    program = f"print('.......s [ 45%]'); print('..', end='', flush=True)\n{waits_for(done)}\nprint('done')"
    assert run_beside([lane("long", program), lane("short", "print()")], at_once=1, say=say, report_s=0) == 0
    assert "test:   long 10 tests" in said


def test_who_is_terminated_has_those_that_run_clean_up(tmp_path: Path) -> None:
    begun, cleaned = tmp_path / "begun", tmp_path / "cleaned"
    cleans_up = f"""
import pathlib, time
try:
    pathlib.Path({str(begun)!r}).touch()
    time.sleep(60)
except KeyboardInterrupt:
    pathlib.Path({str(cleaned)!r}).touch()
"""
    runs = f"""
import signal, sys
from deploy.stack.lanes import Lane, run_beside, terminate
signal.signal(signal.SIGTERM, terminate)
run_beside([Lane(name="one", command=(sys.executable, "-c", {cleans_up!r}))], at_once=1, say=print)
"""
    with subprocess.Popen([sys.executable, "-c", runs], cwd=CHECKOUT, stderr=subprocess.DEVNULL) as process:
        while not begun.exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.terminate()
    assert process.returncode
    assert cleaned.exists()
