"""`hookledger secrets …`, as the operator types it: what it takes and prints."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Final, TypeVar

import msgspec
import typer
from msgspec import Meta

from libs.common.postgres import rewrapping
from libs.common.postgres.pool import Pool, open_pool
from libs.common.postgres.rewrapping import Rewrapped
from libs.common.runtime.sealing import MasterKeys
from libs.common.runtime.settings import load, parse_master_keys
from services.admin.errors import NOT_ALL, operator_errors
from services.admin.progress import showing

secrets = typer.Typer(help="What is sealed with the master keys: secrets, stored answers.", no_args_is_help=True)

Result = TypeVar("Result")
Usage = Mapping[str, Mapping[bytes, int]]
_HEADER: Final = ("MASTER KEY", "PLACE", *(store.name.upper() for store in rewrapping.STORES))


class SecretSettings(msgspec.Struct, kw_only=True, frozen=True):
    """What these commands take from the environment."""

    database_url: Annotated[
        str, Meta(description="Postgres 15 or newer, as postgresql://user:password@host:port/database")
    ]
    master_key: Annotated[
        str, Meta(description="all master keys in use: base64 of 32 bytes each, by commas, the first one seals")
    ]


@secrets.command()
def status() -> None:
    """Show what each master key has sealed; exit 1 if one that is not set is in use."""
    with operator_errors():
        used, keys = _with_secrets(lambda pool, _: rewrapping.usage(pool))
    for line in _table(used, keys):
        typer.echo(line)
    missing = _used_keys(used) - set(keys.ids)
    spare = [key.hex() for key in keys.ids[1:] if key not in _used_keys(used)]
    if spare:
        typer.echo(f"no longer in use, can be dropped: {', '.join(spare)}")
    if missing:
        typer.echo(f"in use, and not in HOOKLEDGER_MASTER_KEY: {', '.join(sorted(key.hex() for key in missing))}")
        raise typer.Exit(NOT_ALL)


@secrets.command()
def rewrap() -> None:
    """Seal everything anew with the first master key, while the services run; exit 1 if something stays as it was."""
    with operator_errors(), showing("rewrap", typer.echo) as progress:

        async def work(pool: Pool, keys: MasterKeys) -> tuple[Rewrapped, Usage]:
            before = await rewrapping.usage(pool)
            progress.begin(_sealed_by_others(before, keys))
            done = await rewrapping.rewrap(pool, keys, progress.advance)
            return done, await rewrapping.usage(pool)

        (done, used), keys = _with_secrets(work)
    counted = ", ".join(f"{rows} {name}" for name, rows in done.rows.items())
    typer.echo(f"rewrap: {counted} sealed anew with {keys.ids[0].hex()}")
    left = _sealed_by_others(used, keys)
    if left:
        typer.echo(
            f"rewrap: {left} sealed with another master key: {done.unopened} do not open with those that are set;"
            " the others were written meanwhile: run it again when every service has the new key first"
        )
        raise typer.Exit(NOT_ALL)


def _with_secrets(work: Callable[[Pool, MasterKeys], Awaitable[Result]]) -> tuple[Result, MasterKeys]:
    """Do `work` with a connection that has the registry's role; what came of it, and the master keys."""
    settings = load(SecretSettings, os.environ)
    keys = parse_master_keys(settings.master_key)

    async def run() -> Result:
        pool = await open_pool(settings.database_url, "registry", size=1)
        try:
            return await work(pool, keys)
        finally:
            await pool.close()

    return asyncio.run(run()), keys


def _used_keys(used: Usage) -> set[bytes]:
    return {key for rows in used.values() for key in rows}


def _sealed_by_others(used: Usage, keys: MasterKeys) -> int:
    return sum(count for rows in used.values() for key, count in rows.items() if key != keys.ids[0])


def _table(used: Usage, keys: MasterKeys) -> list[str]:
    places = {key: "first" if number == 1 else str(number) for number, key in enumerate(keys.ids, start=1)}
    known = [*keys.ids, *sorted(_used_keys(used) - set(keys.ids))]
    rows = [
        (key.hex(), places.get(key, "missing"), *(str(counts.get(key, 0)) for counts in used.values())) for key in known
    ]
    return ["".join(f"{cell:<12}" for cell in row).rstrip() for row in (_HEADER, *rows)]
