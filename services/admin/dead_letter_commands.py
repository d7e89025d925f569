"""`hookledger dead-letter …`, as the operator types it: what it takes and prints."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Final, TypeVar

import typer

from libs.common.rabbitmq.dead_letters import DeadLetter
from libs.common.rabbitmq.topology import Names
from libs.common.runtime.settings import BrokerSettings, load
from services.admin.dead_letters import DeadLetters, dead_letters_of
from services.admin.errors import NOT_ALL, OPERATOR_ERRS, operator_errors

SHOWN_BYTES: Final = 16 * 1024
_HEADER: Final = ("ID", "WHEN", "FROM", "CONTENT TYPE", "BYTES", "REASON")

dead_letters = typer.Typer(help="Dead letters: messages that could not be handled.", no_args_is_help=True)

Result = TypeVar("Result")
Ids = Annotated[
    list[str] | None, typer.Argument(metavar="[ID]...", help="As `hookledger dead-letter list` shows them.")
]


@dead_letters.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most, from the oldest on.")] = 100,
) -> None:
    """List dead letters, oldest first; they stay where they are."""
    with operator_errors():
        letters, count = _with_dead_letters(lambda found: found.oldest(limit))
    if not letters:
        typer.echo("no dead letters")
        return
    for line in _table([_HEADER, *(_row(letter) for letter in letters)]):
        typer.echo(line)
    if count > len(letters):
        typer.echo(f"the oldest {len(letters)} of {count}: see more with --limit", err=True)


@dead_letters.command()
def show(identity: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.")]) -> None:
    """Show a dead letter with its headers and the first 16 KiB of its body; exit 1 if there is none."""
    with operator_errors():
        letter = _with_dead_letters(lambda found: found.find(identity))
    if letter is None:
        typer.echo(f"{identity} is no dead letter", err=True)
        raise typer.Exit(NOT_ALL)
    for line in _described(letter):
        typer.echo(line)


@dead_letters.command()
def redrive(
    identities: Ids = None,
    everything: Annotated[bool, typer.Option("--all", help="All that are there now.")] = False,  # noqa: FBT002  how typer spells a flag
) -> None:
    """Send dead letters back to the queues that they came from; exit 1 if one of them stays."""
    if bool(identities) == everything:
        typer.echo("hookledger: name the dead letters, or say --all", err=True)
        raise typer.Exit(OPERATOR_ERRS)
    wanted = None if everything else frozenset(identities or ())
    with operator_errors():
        complete = _with_dead_letters(lambda found: found.redrive(wanted, typer.echo))
    if not complete:
        raise typer.Exit(NOT_ALL)


@dead_letters.command()
def drop(
    identities: Annotated[list[str], typer.Argument(metavar="ID...", help="As `list` shows them.")],
) -> None:
    """Remove dead letters for good; exit 1 if one of them is not there."""
    with operator_errors():
        complete = _with_dead_letters(lambda found: found.drop(frozenset(identities), typer.echo))
    if not complete:
        raise typer.Exit(NOT_ALL)


def _with_dead_letters(work: Callable[[DeadLetters], Awaitable[Result]]) -> Result:
    settings = load(BrokerSettings, os.environ)

    async def run() -> Result:
        async with dead_letters_of(settings.amqp_url, Names(settings.amqp_prefix)) as found:
            return await work(found)

    return asyncio.run(run())


def _row(letter: DeadLetter) -> tuple[str, ...]:
    return (
        letter.id,
        f"{letter.at:%Y-%m-%dT%H:%M:%SZ}" if letter.at else "-",
        letter.queue or "-",
        letter.content_type or "-",
        str(letter.size),
        letter.reason or "-",
    )


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    rows = [tuple(_visible(cell) for cell in row) for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    widths[-1] = 0
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def _described(letter: DeadLetter) -> list[str]:
    facts = dict(zip((name.lower() for name in _HEADER), _row(letter), strict=True))
    facts |= {"user": letter.user or "-", "routing key": letter.routing_key or "-"}
    facts |= {f"property {name}": str(value) for name, value in letter.properties.items() if value is not None}
    facts |= {f"header {name}": str(value) for name, value in letter.headers.items()}
    lines = [f"{_visible(name)}: {_visible(value)}" for name, value in facts.items()]
    shown = letter.body[:SHOWN_BYTES]
    left = letter.size - len(shown)
    return [*lines, "", *_body(shown), *([f"… and {left} bytes more"] if left else [])]


def _body(body: bytes) -> list[str]:
    """Text by lines, or what is none in hexadecimal digits, 32 bytes to a line."""
    try:
        text = body.decode("utf-8", "strict" if len(body) < SHOWN_BYTES else "ignore")  # cut in a character, perhaps
    except UnicodeDecodeError:
        text = "\0"
    lines = text.split("\n")
    if all(line.replace("\t", " ").replace("\r", " ").isprintable() for line in lines):
        return lines
    return [body[start : start + 32].hex(" ") for start in range(0, len(body), 32)]


def _visible(text: str) -> str:
    """A sender's text on one line, with nothing that a terminal would obey."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
