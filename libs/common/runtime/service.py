"""A service's main: read settings, run until told to stop, leave with a code that says how it went."""

import asyncio
import gc
import os
import resource
import signal
import sys
from collections.abc import Awaitable, Callable
from importlib import metadata
from typing import Final, NoReturn, TypeAlias, TypeVar

import uvloop

from libs.common.runtime import failpoints, logs
from libs.common.runtime.metrics import BUILD
from libs.common.runtime.settings import CommonSettings, SettingsError, help_text, load

Settings = TypeVar("Settings", bound=CommonSettings)
Serve: TypeAlias = Callable[[Settings, asyncio.Event], Awaitable[None]]
BAD_USAGE: Final = 2
KILLED: Final = 130
GARBAGE_THRESHOLD: Final = 20_000


class StartError(Exception):
    """The service cannot start; the text is one line for the operator."""


def run(
    name: str,
    purpose: str,
    settings_type: type[Settings],
    program: Callable[[], Serve[Settings]],
) -> None:
    """Run a service and exit.

    Args:
        name: of the program.
        purpose: one sentence for `--help`.
        settings_type: what is read from the environment.
        program: imports what serves, once the settings are known to be good. That runs until the event is set, then
            drains and returns; it raises `StartError` if it cannot begin.

    Exit codes: 0 after a stop that was asked for, 2 for what the operator has to mend, 130 after a second signal.
    """
    arguments = sys.argv[1:]
    if arguments in (["--help"], ["-h"]):
        sys.stdout.write(help_text(settings_type, name, purpose) + "\n")
        return
    if arguments:
        _refuse(name, f"unknown argument {arguments[0]!r}; settings come from the environment, see --help")
    try:
        settings = load(settings_type, os.environ)
    except SettingsError as error:
        _refuse(name, str(error))
    service = name.removeprefix("hookledger-")
    logs.configure(service, settings.log_level)
    BUILD.labels(service, metadata.version("hookledger")).set(1)
    if settings.failpoints:
        failpoints.enable(settings.failpoints)
        logs.logger("service").warning(
            "failpoints", folder=settings.failpoints, means="this process can be killed there"
        )
    _collect_less()
    serve = program()
    gc.freeze()  # what was imported stays for good
    _open_more()
    try:
        uvloop.run(_until_signalled(settings, serve))
    except (StartError, SettingsError) as error:
        _refuse(name, str(error))


async def _until_signalled(settings: Settings, serve: Serve[Settings]) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(received: signal.Signals) -> None:
        if stopping.is_set():
            os._exit(KILLED)
        logs.logger("service").info("service.stopping", signal=received.name)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    await serve(settings, stopping)
    logs.logger("service").info("service.stopped")


def _collect_less() -> None:
    """Keep the garbage collector off every few hundred new objects.

    By default it took a quarter of a busy dispatcher's processor time, for cycles that are hardly there, and a tenth
    of the start's. Frozen values that are made for each message are declared `gc=False`: they are part of no cycle, and
    it passes them over.
    """
    gc.set_threshold(GARBAGE_THRESHOLD, 20, 20)


def _open_more() -> None:
    """Have as many files open as the operator lets us: each send takes one, and shells begin with a thousand."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _refuse(name: str, reason: str) -> NoReturn:
    sys.stderr.write(f"{name}: {reason}\n")
    raise SystemExit(BAD_USAGE)
