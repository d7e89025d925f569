"""A command that is interrupted stops what it has started, and says so."""

import signal
import subprocess
import sys

import pytest

COMMAND = """
import asyncio, contextlib, signal, sys, uvloop
from deploy.stack.interrupts import interruptible

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has it ignored by what runs in its background

async def work():
    print("working", flush=True)
    await asyncio.sleep(60)

def command():
    with contextlib.ExitStack() as stack:
        stack.callback(print, "stopped", flush=True)
        {cleaning}
        with asyncio.Runner(loop_factory={loop}) as runner:
            runner.run(work())
    return 0

sys.exit(interruptible("command", command))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("loop", ["None", "uvloop.new_event_loop"], ids=["asyncio", "uvloop"])
def test_an_interrupted_command_stops_what_it_has_started_and_shows_no_traceback(
    number: signal.Signals, loop: str
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND.format(loop=loop, cleaning="")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as command:
        assert command.stdout is not None
        assert command.stdout.readline() == "working\n"
        command.send_signal(number)
        command.send_signal(number)
        said, complained = command.communicate(timeout=20)
    assert (command.returncode, said) == (130, "stopped\n")
    assert complained.splitlines() == [
        "command: interrupted: stopping what was started",
        "command: everything that was started is stopped",
    ]


def test_what_goes_wrong_then_is_a_line_and_no_traceback() -> None:
    command = COMMAND.format(loop="None", cleaning="stack.callback(int, 'rubbish')")
    with subprocess.Popen(
        [sys.executable, "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "working\n"
        running.terminate()
        said, complained = running.communicate(timeout=20)
    assert (running.returncode, said) == (130, "stopped\n")
    assert complained.splitlines()[1:] == [
        "command: ValueError: invalid literal for int() with base 10: 'rubbish'",
        "command: everything that was started is stopped",
    ]
