"""A small client of the HTTP API, for tests that are not about an SDK."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
from multidict import CIMultiDictProxy

from tests.support import documented
from tests.support.patience import PATIENCE_SECONDS, eventually

_OPEN = {"waiting", "sending"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back, whatever its status."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return orjson.loads(self.body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A created endpoint or source, and its secret as a user sees it."""

    id: str
    secret: str


class Client:
    """The API at `url` under an API key. Methods that return a document raise for an answer that is no 2xx."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key: str) -> None:
        self._session = session
        self.url = url
        self.key = key

    async def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request; paths begin with `/`. Without headers of its own it carries the API key.

        What comes back is held against the API's document.
        """
        sent = {"Authorization": f"Bearer {self.key}"} | dict(headers or {})
        if json is not None:
            data = orjson.dumps(json)
            sent.setdefault("Content-Type", "application/json")
        target = self.url + path
        async with self._session.request(
            method, target, data=data, headers=sent, params=params, allow_redirects=False
        ) as response:
            answer = Answer(status=response.status, headers=response.headers, body=await response.read())
        documented.check(method, path, answer.status, answer.headers.get("Content-Type", ""), answer.body)
        return answer

    async def get(self, path: str, **params: str) -> Any:
        """The document at a path of the API."""
        return _success(await self.request("GET", f"/api/v1{path}", params=params))

    async def post(self, path: str, json: Any) -> Any:
        """What a POST to a path of the API answers."""
        return _success(await self.request("POST", f"/api/v1{path}", json=json))

    async def patch(self, path: str, json: Any) -> Any:
        """What a PATCH answers."""
        return _success(await self.request("PATCH", f"/api/v1{path}", json=json))

    async def delete(self, path: str) -> None:
        """DELETE."""
        _success(await self.request("DELETE", f"/api/v1{path}"))

    # What most tests begin with

    async def create_application(self, name: str = "tests", **fields: Any) -> str:
        """A new application's id."""
        return str((await self.post("/app", {"name": name, **fields}))["id"])

    async def create_endpoint(self, app: str, url: str, **fields: Any) -> Registered:
        """A new endpoint; unless told otherwise, it retries twice and soon."""
        made = await self.post(f"/app/{app}/endpoint", {"url": url, "retrySchedule": [0.05, 0.1], **fields})
        secret = await self.get(f"/app/{app}/endpoint/{made['id']}/secret")
        return Registered(id=made["id"], secret=secret["key"])

    async def create_source(self, app: str, provider: str, secret: str) -> Registered:
        """A new source with the sender's secret."""
        made = await self.post(f"/app/{app}/source", {"name": provider, "provider": provider, "secret": secret})
        return Registered(id=made["id"], secret=secret)

    async def send(self, app: str, event_type: str, payload: Any, **fields: Any) -> str:
        """Send a message; its id."""
        return str((await self.post(f"/app/{app}/msg", {"eventType": event_type, "payload": payload, **fields}))["id"])

    # What most tests end with

    async def deliveries(self, app: str) -> list[dict[str, Any]]:
        """All deliveries of an application, page by page."""
        found: list[dict[str, Any]] = []
        params = {"limit": "250"}
        while True:
            page = await self.get(f"/app/{app}/delivery", **params)
            found += page["data"]
            if page["done"]:
                return found
            params["iterator"] = page["iterator"]

    async def settled(self, app: str, count: int, *, within: float = PATIENCE_SECONDS) -> list[dict[str, Any]]:
        """The deliveries of an application, once there are `count` and all of them are over."""
        return await eventually(
            lambda: self.deliveries(app),
            lambda found: len(found) >= count and not any(delivery["status"] in _OPEN for delivery in found),
            within=within,
        )

    async def ledger(self, app: str, delivery: str) -> list[dict[str, Any]]:
        """The facts of one delivery, in their order."""
        found = await self.get(f"/app/{app}/delivery/{delivery}/ledger")
        facts: list[dict[str, Any]] = found["data"]
        return facts


@asynccontextmanager
async def connected(url: str, key: str, *, patience: float = PATIENCE_SECONDS) -> AsyncIterator[Client]:
    """A client with a session of its own; `patience` in seconds, for an answer and for the turn to ask."""
    timeout = aiohttp.ClientTimeout(total=patience)
    connector = aiohttp.TCPConnector(limit=200)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
    ) as session:
        yield Client(session, url, key)


def _success(answer: Answer) -> Any:
    assert 200 <= answer.status < 300, f"HTTP {answer.status}: {answer.body[:500]!r}"
    return answer.json if answer.body else None
