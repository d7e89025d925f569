"""What the demo prints: a line for each thing that happens, and at the end a table of every delivery."""

import sys
from itertools import groupby
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deploy.demo.evidence import Delivery, Evidence
from deploy.stack.report import coloured

_WIDTH_ELSEWHERE: Final = 100
_END_STYLES: Final = {"succeeded": "green", "exhausted": "red"}


def say(line: str) -> None:
    """Print a line of progress."""
    print(_prefixed(line, "36"), flush=True)


def complain(line: str) -> None:
    """Print what went wrong."""
    print(f"demo: {line}", file=sys.stderr, flush=True)


def show_table(evidence: Evidence) -> None:
    """Print each delivery with its attempts and its end."""
    console = Console(
        color_system="auto" if coloured(sys.stdout) else None,
        highlight=False,
        width=None if sys.stdout.isatty() else _WIDTH_ELSEWHERE,
    )
    table = Table(title="deliveries, from the registry", title_justify="left", title_style="", header_style="bold")
    for heading in ("message", "receiver", "attempts", "end"):
        table.add_column(heading)
    previous = None
    for delivery in evidence.deliveries:
        if previous not in {None, delivery.message}:
            table.add_section()
        first = delivery.event_type if previous != delivery.message else ""
        table.add_row(first, delivery.receiver, _attempts(delivery), _end(delivery))
        previous = delivery.message
    console.print(table)


def show_totals(evidence: Evidence) -> None:
    """Print the last lines."""
    totals = {
        "accepted": len(evidence.messages),
        "delivered": evidence.delivered,
        "retried": evidence.retried,
        "exhausted": evidence.exhausted,
        "duplicates": evidence.duplicates,
        "rejected": evidence.rejected,
        "lost": evidence.lost,
    }
    print("demo: " + ", ".join(f"{name} {count}" for name, count in totals.items()))
    if evidence.verified[1]:
        print("ledger: verified", flush=True)


def _attempts(delivery: Delivery) -> Text:
    shown = []
    for result, group in groupby(delivery.attempts, key=lambda attempt: attempt.result):
        count = len(list(group))
        text = result.replace("_", " ") + (f" \N{MULTIPLICATION SIGN} {count}" if count > 1 else "")
        shown.append(Text(text, style="green" if result.startswith("2") else "yellow"))
    return Text(", ").join(shown)


def _end(delivery: Delivery) -> Text:
    return Text(delivery.status, style=_END_STYLES.get(delivery.status, ""))


def _prefixed(line: str, colour: str) -> str:
    return f"\033[{colour}mdemo:\033[0m {line}" if coloured(sys.stdout) else f"demo: {line}"
