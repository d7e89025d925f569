"""`hookledger listen`, as a developer types it. It needs the HTTP API only: neither database nor broker."""

import asyncio
import os
import signal
from typing import Annotated

import aiohttp
import msgspec
import typer
from msgspec import Meta
from yarl import URL

from libs.common.domain.signatures import standard
from libs.common.domain.signatures.standard import InvalidSecretError
from libs.common.runtime.clock import random_bytes
from libs.common.runtime.settings import load
from services.admin.errors import operator_errors
from services.admin.feed import Api, FeedAwayError, FeedError
from services.admin.listening import Listener, Target

_KEY_BYTES = 24


class ListenSettings(msgspec.Struct, kw_only=True, frozen=True):
    """What the command takes from the environment."""

    url: Annotated[str, Meta(pattern=r"^https?://[^\s/]+", description="the front door, as http://host:port")]
    api_key: Annotated[str, Meta(min_length=1, description="an API key of scope read or admin")]


def listen(
    forward_to: Annotated[str, typer.Option(help="Where to send them, such as http://localhost:3000/hooks.")],
    app: Annotated[str | None, typer.Option(help="The application, by id, uid or name.")] = None,
    source: Annotated[str | None, typer.Option(help="Only what this source received: id, uid or name.")] = None,
    secret: Annotated[str | None, typer.Option(help="whsec_… to sign with; by default a new one, shown.")] = None,
    after: Annotated[str | None, typer.Option(help="Go on where an earlier listen ended, as it said.")] = None,
) -> None:
    """Forward messages to a server on this machine, as they are accepted, until Ctrl-C.

    The front door is named by HOOKLEDGER_URL, the key by HOOKLEDGER_API_KEY. Nothing is recorded or retried.
    """
    with operator_errors():
        settings = load(ListenSettings, os.environ)
        if app is None and source is None:
            raise FeedError("say what to listen to: --app APP, --source NAME, or both")
        if not (target := _url(forward_to)):
            raise FeedError(f"--forward-to is no http URL: {forward_to!r}")
        text = secret or standard.format_secret(random_bytes(_KEY_BYTES))
        try:
            key = standard.parse_secret(text)
        except InvalidSecretError as error:
            raise FeedError(f"--secret: {error}") from error
        try:
            asyncio.run(_listen(settings, (app, source), Target(url=target, key=key), text, after))
        except FeedAwayError as error:
            raise FeedError(f"{error}; check HOOKLEDGER_URL") from error


async def _listen(
    settings: ListenSettings, names: tuple[str | None, str | None], target: Target, secret: str, after: str | None
) -> None:
    """Listen until a signal comes."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False) as session:
        api = Api(session, settings.url, settings.api_key)
        feed = await api.feed(*names)
        listener = Listener(session, api, feed, target, typer.echo)
        await listener.begin(after)
        typer.echo(f"listening to {feed.title}, forwarding to {target.url} (Ctrl-C ends)")
        typer.echo(f"signed after Standard Webhooks with the secret {secret}")
        running = asyncio.ensure_future(listener.run())
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, running.cancel)
        await asyncio.wait([running])
        if not running.cancelled():
            running.result()
        typer.echo(f"ended; to go on from here: --after {listener.reached}")


def _url(text: str) -> str | None:
    try:
        url = URL(text)
    except ValueError:
        return None
    return str(url) if url.scheme in {"http", "https"} and url.host else None
