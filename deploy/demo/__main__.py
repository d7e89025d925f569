"""`make demo`: exits with 0 only if everything that it claims is true, and stops all that it started."""

import asyncio
import contextlib
import os
import sys
import time

from deploy.demo import report
from deploy.demo.errors import DemoError
from deploy.demo.evidence import Evidence
from deploy.demo.story import tell
from deploy.stack.errors import StackError
from deploy.stack.installation import Installation
from deploy.stack.interrupts import ending_undisturbed, interruptible
from deploy.stack.isolation import isolated
from deploy.stack.report import say
from deploy.stack.servers import session_servers
from deploy.stack.services import log_folder, stop_services

_GRACE_S = 5.0


def main() -> int:
    """Run the demo; returns its exit code."""
    try:
        return _demonstrate()
    except DemoError as error:
        report.complain(str(error))
        return 1
    except StackError as error:
        for line in getattr(error, "__notes__", []):
            print(f"  {line}", file=sys.stderr)
        report.complain(str(error))
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on: end without a word
        return 1


def _demonstrate() -> int:
    began = time.monotonic()
    evidence = _run()
    report.say(f"stopped everything that was started; {time.monotonic() - began:.1f} s in all")
    problems = list(evidence.problems())
    for problem in problems:
        report.complain(problem)
    report.show_totals(evidence)
    return 1 if problems else 0


def _run() -> Evidence:
    """Start the stack, tell the story on it, and stop the stack, also when the story breaks off."""
    with contextlib.ExitStack() as stack:
        servers = stack.enter_context(session_servers("demo", say=say))
        corner = stack.enter_context(isolated(servers, label="demo"))
        installation = Installation(folder=servers.folder / "platform", corner=corner)
        stack.callback(stop_services, installation.folder, grace_s=_GRACE_S)
        installation.migrate()
        services = installation.services()
        began = time.monotonic()
        for service in services.values():
            service.start()
        key = installation.create_key()
        for service in services.values():
            service.wait_ready()
        say(
            f"registry, ingress and dispatcher  {time.monotonic() - began:.1f} s"
            f" (their logs: {os.path.relpath(log_folder(installation.folder))})"
        )
        stack.enter_context(ending_undisturbed())
        evidence = asyncio.run(tell(installation, services, key))
        report.show_table(evidence)
        return evidence


if __name__ == "__main__":
    sys.exit(interruptible("demo", main))
