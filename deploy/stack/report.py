"""How the launcher speaks: one line for each thing that happened, coloured only where that helps."""

import os
import sys
from typing import TextIO

_CYAN, _RED, _PLAIN = "\033[36m", "\033[31m", "\033[0m"


def say(line: str) -> None:
    """Print a line of progress."""
    print(_prefixed(line, colour=_CYAN, stream=sys.stdout), flush=True)


def complain(line: str) -> None:
    """Print what went wrong."""
    print(_prefixed(line, colour=_RED, stream=sys.stderr), file=sys.stderr, flush=True)


def coloured(stream: TextIO) -> bool:
    """Whether to use colours there (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _prefixed(line: str, *, colour: str, stream: TextIO) -> str:
    return f"{colour}stack:{_PLAIN} {line}" if coloured(stream) else f"stack: {line}"
