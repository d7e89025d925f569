"""The HTTP API as the portal asks it: over this service's own door, under the visitor's token."""

from typing import Any, Final
from urllib.parse import quote

import aiohttp
import msgspec
from aiohttp import web
from yarl import URL

from libs.common.contracts.operations import API
from libs.common.runtime.http import REQUEST_ID, REQUEST_ID_KEY

TIMEOUT: Final = aiohttp.ClientTimeout(total=20, connect=2)
SESSION: Final = web.AppKey("portal_session", aiohttp.ClientSession)
BUSY: Final = "The server is busy. Try again in a moment."
SHOWN_CHARACTERS: Final = 64 * 1024
"""How much of a payload a page shows."""


class _Payload(msgspec.Struct):
    payload: msgspec.Raw


class RefusedError(Exception):
    """The API answered with a refusal.

    Attributes:
        status: its HTTP status.
        problems: what is to be mended, by the field of the body; under `""` what concerns no field.
    """

    def __init__(self, status: int, problems: dict[str, str]) -> None:
        super().__init__(status, problems)
        self.status = status
        self.problems = problems

    @property
    def detail(self) -> str:
        """All of it in one line."""
        return "; ".join(self.problems.values())


class Api:
    """Asks the registry that serves `request`.

    Args:
        request: the visitor's.
        token: the visitor's application token.
    """

    def __init__(self, request: web.Request, token: str) -> None:
        assert request.transport is not None
        host, port = request.transport.get_extra_info("sockname")[:2]
        self._root = URL.build(scheme="http", host=host, port=port)
        self._session = request.config_dict[SESSION]
        self._headers = {"Authorization": f"Bearer {token}", REQUEST_ID: request[REQUEST_ID_KEY]}

    async def get(self, *path: str, **query: str | None) -> Any:
        """The document at `path`.

        Raises:
            RefusedError: the API refuses, or does not answer.
        """
        asked = {name: text for name, text in query.items() if text is not None}
        return await self._ask("GET", path, asked, None, {})

    async def message(self, app: str, message: str) -> dict[str, Any]:
        """A message whose `payload` is the text that came, character by character.

        Raises:
            RefusedError: see `get`.
        """
        content = await self._content("GET", ("app", app, "msg", message), {}, None, {})
        found: dict[str, Any] = msgspec.json.decode(content)
        payload = bytes(msgspec.json.decode(content, type=_Payload).payload).decode("utf-8", "replace")
        cut = len(payload) - SHOWN_CHARACTERS
        found["payload"] = payload if cut <= 0 else f"{payload[:SHOWN_CHARACTERS]}\n… and {cut} characters more"
        return found

    async def send(self, method: str, *path: str, body: Any = None, once: str = "") -> Any:
        """Change something; the document that the API answers with, if it does.

        Args:
            method: of HTTP.
            path: below the API's root, unquoted.
            body: the document to send.
            once: under which name to do it once, however often it is asked; empty: each time.

        Raises:
            RefusedError: see `get`.
        """
        document = {} if body is None and method != "DELETE" else body
        return await self._ask(method, path, {}, document, {"Idempotency-Key": once} if once else {})

    async def _ask(
        self, method: str, path: tuple[str, ...], query: dict[str, str], body: Any, headers: dict[str, str]
    ) -> Any:
        content = await self._content(method, path, query, body, headers)
        return msgspec.json.decode(content) if content else None

    async def _content(
        self, method: str, path: tuple[str, ...], query: dict[str, str], body: Any, headers: dict[str, str]
    ) -> bytes:
        below = "/".join(quote(part, safe="") for part in path)
        url = self._root.with_path(f"{API}/{below}", encoded=True).with_query(query)
        data = None if body is None else msgspec.json.encode(body)
        try:
            async with self._session.request(
                method, url, data=data, headers=self._headers | headers, timeout=TIMEOUT
            ) as answer:
                content = await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise RefusedError(503, {"": BUSY}) from error
        if answer.status >= 400:  # noqa: PLR2004  HTTP's line between answers and refusals
            raise RefusedError(answer.status, _problems(content))
        return content


def _problems(content: bytes) -> dict[str, str]:
    detail = msgspec.json.decode(content)["detail"]
    if isinstance(detail, str):
        return {"": detail}
    found: dict[str, str] = {}
    for problem in detail:
        place = [part for part in problem["loc"] if part != "body"]
        found.setdefault(str(place[0]) if place else "", problem["msg"])
    return found
