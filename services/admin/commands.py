"""The commands, as the operator types them: what they take and print."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Annotated, TypeVar

import msgspec
import typer
from msgspec import Meta

from libs.common.contracts.registry import OrganisationDocument, Scope, SecretReveal
from libs.common.domain import ids
from libs.common.domain.ids import BadIdError, Prefix
from libs.common.postgres import migrate as migrations
from libs.common.postgres.pool import Pool, open_pool
from libs.common.postgres.rebuild import rebuild_database
from libs.common.postgres.retaining import retain as retain_weeks
from libs.common.postgres.verify import verify_database
from libs.common.runtime import failpoints
from libs.common.runtime.settings import load
from services.admin.creation import CreationError, create_key, create_organisation
from services.admin.dead_letter_commands import dead_letters
from services.admin.errors import NOT_ALL, operator_errors
from services.admin.listen_command import listen
from services.admin.progress import showing
from services.admin.secret_commands import secrets

commands = typer.Typer(
    help="Hookledger's command for operators. The database is named by HOOKLEDGER_DATABASE_URL (or …_URL_FILE),"
    " the broker by HOOKLEDGER_AMQP_URL.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
organisations = typer.Typer(help="Organisations: each owns its applications and keys.", no_args_is_help=True)
keys = typer.Typer(help="API keys.", no_args_is_help=True)
commands.command()(listen)
commands.add_typer(organisations, name="organisation")
commands.add_typer(keys, name="key")
commands.add_typer(dead_letters, name="dead-letter")
commands.add_typer(secrets, name="secrets")


class AdminSettings(msgspec.Struct, kw_only=True, frozen=True):
    """What the command takes from the environment."""

    database_url: Annotated[
        str, Meta(description="Postgres 15 or newer, as postgresql://user:password@host:port/database")
    ]
    failpoints: Annotated[
        str, Meta(description="folder of armed failpoints, for fault tests only: who writes there can kill the process")
    ] = ""


Result = TypeVar("Result")


@commands.command()
def migrate() -> None:
    """Bring the database to this version's schema."""
    with operator_errors():
        taken = asyncio.run(migrations.migrate(_database_url(), typer.echo))
    typer.echo(f"migrate: done, {taken} applied" if taken else "migrate: nothing to do")


@commands.command()
def rebuild() -> None:
    """Project everything again from the ledgers, while the services run; then verify."""
    with operator_errors():
        url = _database_url()
        with showing("rebuild", typer.echo) as progress:
            done = asyncio.run(rebuild_database(url, progress, typer.echo))
    typer.echo(
        f"rebuild: {done.facts} ledger events, {done.deliveries} deliveries ({done.mended} rows mended),"
        f" {done.registry_objects} registry objects ({done.mended_objects} mended)"
    )
    if done.mended_objects:
        typer.echo("rebuild: restart the services: they keep the registry objects that they have read")
    verify()


@commands.command()
def verify() -> None:
    """Compare every projected row with the fold of its facts; exit 1 where one differs."""
    with operator_errors():
        found = _on_database(lambda pool: verify_database(pool, typer.echo))
    if found.differences:
        typer.echo(f"ledger: {found.differences} differences ({found.counted})")
        raise typer.Exit(NOT_ALL)
    typer.echo(f"ledger: verified ({found.counted})")


@commands.command()
def retain(
    days: Annotated[
        int, typer.Option(min=91, max=36_500, help="What is younger stays; payloads have up to 90 days of their own.")
    ] = 400,
) -> None:
    """Drop the weeks of the ledger that ended so many days ago and are over, with their messages and attempts."""
    with operator_errors():
        done = asyncio.run(retain_weeks(_database_url(), keep=timedelta(days=days), say=typer.echo))
    if done.weeks:
        typer.echo(f"retain: done, {done.facts} ledger events dropped")
    elif done.kept is None:
        typer.echo(f"retain: no week of the ledger ended more than {days} days ago")
    if done.kept is not None:
        begins, why = done.kept
        typer.echo(f"retain: the week of {begins:%Y-%m-%d} stays, and with it all that follow: {why}")
        raise typer.Exit(NOT_ALL)


@organisations.command("create")
def organisation_create(
    name: Annotated[str, typer.Argument(help="What people call it.")],
    amqp_user: Annotated[str | None, typer.Option(help="The broker's user that publishes for it.")] = None,
    secret_reveal: Annotated[
        SecretReveal, typer.Option(help="Whether endpoint secrets can be read again later.")
    ] = SecretReveal.ONCE,
    https_only: Annotated[bool, typer.Option(help="Whether endpoints must have https URLs.")] = True,  # noqa: FBT002  how typer spells a flag
) -> None:
    """Create an organisation; prints its id."""
    document = OrganisationDocument(name=name, secret_reveal=secret_reveal, endpoint_https_only=https_only)
    with operator_errors():
        created = _on_database(lambda pool: create_organisation(pool, document, amqp_user))
    typer.echo(ids.encode(Prefix.ORGANISATION, created.id))


@keys.command("create")
def key_create(
    organisation_id: Annotated[str, typer.Argument(help="As `hookledger organisation create` printed it.")],
    scope: Annotated[list[Scope] | None, typer.Option(help="May be repeated; admin by default.")] = None,
    name: Annotated[str, typer.Option(help="What the key is for.")] = "",
    expires_days: Annotated[int | None, typer.Option(min=1, max=36_500, help="Days until it expires.")] = None,
) -> None:
    """Create an API key; prints the key, which is not shown again."""
    expiry = timedelta(days=expires_days) if expires_days is not None else None
    scopes = tuple(dict.fromkeys(scope or [Scope.ADMIN]))
    with operator_errors():
        try:
            org = ids.decode(Prefix.ORGANISATION, organisation_id)
        except BadIdError as error:
            raise CreationError(f"{organisation_id!r} is {error}") from error
        text = _on_database(lambda pool: create_key(pool, org, name=name, scopes=scopes, expiry=expiry))
    typer.echo(text)


def _database_url() -> str:
    settings = load(AdminSettings, os.environ)
    failpoints.enable(settings.failpoints)
    return settings.database_url


def _on_database(work: Callable[[Pool], Awaitable[Result]]) -> Result:
    """Do `work` with a connection that has the registry's role."""
    url = _database_url()

    async def run() -> Result:
        pool = await open_pool(url, "registry", size=1)
        try:
            return await work(pool)
        finally:
            await pool.close()

    return asyncio.run(run())
