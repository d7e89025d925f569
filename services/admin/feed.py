"""The messages of an application over the HTTP API, as a developer's machine reads them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

SECONDS: Final = 40.0
"""Longer than the registry waits for a message."""

Content = TypeVar("Content")


class FeedError(Exception):
    """The platform refuses, and will again: the line says what to mend."""


class FeedAwayError(Exception):
    """The platform cannot be reached, or cannot answer now: try again."""


class _Named(msgspec.Struct, kw_only=True):
    id: str
    name: str
    uid: str | None = None


class _NamedPage(msgspec.Struct, kw_only=True):
    data: list[_Named]
    iterator: str | None
    done: bool


class Item(msgspec.Struct, kw_only=True, rename="camel"):
    """A message; without a body where that was erased."""

    id: str
    event_type: str
    content_type: str
    body_base64: str | None
    iterator: str


class Items(msgspec.Struct, kw_only=True):
    """Messages in the order in which they were committed, and where to go on."""

    data: list[Item]
    iterator: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """What is listened to: an application, or one source of it."""

    app: str
    source: str | None
    title: str


class Api:
    """The HTTP API, under a key."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key: str) -> None:
        self._session = session
        self._url = url.rstrip("/")
        self._key = key

    async def feed(self, app: str | None, source: str | None) -> Feed:
        """The application, and the source in it, by id, uid or name.

        Raises:
            FeedError: there is none, or there are several.
        """
        apps = await self._all("/app")
        if app is not None:
            apps = [_only(apps, app, "application")]
        if source is None:
            assert app is not None, "one of both is given"
            return Feed(app=apps[0].id, source=None, title=f"application {apps[0].name}")
        owners: dict[str, _Named] = {}
        sources: list[_Named] = []
        for each in apps:
            of_this = await self._all(f"/app/{each.id}/source")
            owners |= {found.id: each for found in of_this}
            sources += of_this
        found = _only(sources, source, "source")
        owner = owners[found.id]
        return Feed(app=owner.id, source=found.id, title=f"source {found.name} of {owner.name}")

    async def after(self, feed: Feed, iterator: str | None) -> Items:
        """What came after the iterator; without one, nothing, and the iterator of now."""
        asked = {"iterator": iterator, "source": feed.source}
        return await self._get(f"/app/{feed.app}/listen", {k: v for k, v in asked.items() if v is not None}, Items)

    async def _all(self, path: str) -> list[_Named]:
        found: list[_Named] = []
        asked = {"limit": "250"}
        while True:
            page = await self._get(path, asked, _NamedPage)
            found += page.data
            if page.done or page.iterator is None:
                return found
            asked["iterator"] = page.iterator

    async def _get(self, path: str, asked: Mapping[str, str], kind: type[Content]) -> Content:
        headers = {"Authorization": f"Bearer {self._key}"}
        timeout = aiohttp.ClientTimeout(total=None, connect=10, sock_read=SECONDS)
        try:
            async with self._session.get(
                f"{self._url}/api/v1{quote(path)}", params=asked, headers=headers, timeout=timeout
            ) as response:
                body = await response.read()
                status = response.status
        except aiohttp.InvalidURL as error:
            raise FeedError(f"HOOKLEDGER_URL is no URL: {error}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise FeedAwayError(f"{self._url} does not answer: {str(error) or type(error).__name__}") from error
        if status != HTTPStatus.OK:
            raise _refusal(status, body)
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.DecodeError as error:
            raise FeedError(f"{self._url} does not answer as Hookledger does: {error}") from error


def _only(found: Sequence[_Named], name: str, what: str) -> _Named:
    """The one that has this id, else this uid, else this name."""
    for field in ("id", "uid", "name"):
        those = [each for each in found if getattr(each, field) == name]
        if len(those) > 1:
            raise FeedError(f"several are the {what} {name!r}: say which by id, {', '.join(each.id for each in those)}")
        if those:
            return those[0]
    raise FeedError(f"there is no {what} {name!r}, by id, uid or name")


def _refusal(status: int, body: bytes) -> FeedError | FeedAwayError:
    try:
        document: Any = msgspec.json.decode(body)
        detail = document["detail"]
    except (msgspec.DecodeError, KeyError, TypeError):
        detail = body[:200].decode(errors="replace")
    if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return FeedAwayError(f"HTTP {status}: {detail}")
    if status == HTTPStatus.UNAUTHORIZED:
        return FeedError("the API key is not accepted: set HOOKLEDGER_API_KEY")
    return FeedError(f"HTTP {status}: {detail}")
