"""The HTTP API as the demo uses it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import orjson

from deploy.stack.errors import StackError

_ANSWER_SECONDS: Final = 15.0
_PAGE: Final = "250"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Status, headers and body of an answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """The `id` in the body."""
        return str(orjson.loads(self.body)["id"])


class Api:
    """A session with the front door."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key: str) -> None:
        self._session = session
        self._url = url
        self._key = key

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """A POST, whatever its answer."""
        timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS)
        async with self._session.post(self._url + path, data=body, headers=headers, timeout=timeout) as response:
            return Answer(status=response.status, headers=response.headers, body=await response.read())

    async def create(self, path: str, document: Mapping[str, Any]) -> Answer:
        """A POST under the API key that has to succeed."""
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        return _success("POST", path, await self.post(f"/api/v1{path}", orjson.dumps(document), headers))

    async def send(self, app: str, event_type: str, payload: bytes) -> Answer:
        """Send a message whose payload is these bytes."""
        body = b'{"eventType":' + orjson.dumps(event_type) + b',"payload":' + payload + b"}"
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        return _success("POST", f"/app/{app}/msg", await self.post(f"/api/v1/app/{app}/msg", body, headers))

    async def get(self, path: str, **parameters: str) -> Any:
        """A document."""
        timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS)
        headers = {"Authorization": f"Bearer {self._key}"}
        url = f"{self._url}/api/v1{path}"
        async with self._session.get(url, params=parameters, headers=headers, timeout=timeout) as response:
            answer = Answer(status=response.status, headers=response.headers, body=await response.read())
        return orjson.loads(_success("GET", path, answer).body)

    async def list(self, path: str) -> list[dict[str, Any]]:
        """All items of a list, page by page, the oldest first."""
        found: list[dict[str, Any]] = []
        parameters = {"limit": _PAGE, "order": "ascending"}
        while True:
            page = await self.get(path, **parameters)
            found += page["data"]
            if page["done"]:
                return found
            parameters["iterator"] = page["iterator"]


def _success(method: str, path: str, answer: Answer) -> Answer:
    if not 200 <= answer.status < 300:
        said = answer.body[:300].decode(errors="replace")
        raise StackError(f"{method} /api/v1{path} was answered {answer.status}: {said}")
    return answer
