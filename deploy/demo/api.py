"""The HTTP API as the demo uses it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import orjson

from deploy.demo.errors import DemoError

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
        return await self._request("POST", path, data=body, headers=headers)

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
        headers = {"Authorization": f"Bearer {self._key}"}
        answer = await self._request("GET", f"/api/v1{path}", params=parameters, headers=headers)
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

    async def _request(self, method: str, path: str, **options: Any) -> Answer:
        timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS)
        try:
            async with self._session.request(method, self._url + path, timeout=timeout, **options) as response:
                return Answer(status=response.status, headers=response.headers, body=await response.read())
        except (aiohttp.ClientError, TimeoutError) as error:
            raise DemoError(f"{method} {path} was not answered: {error or 'no answer in time'}") from error


def _success(method: str, path: str, answer: Answer) -> Answer:
    if not 200 <= answer.status < 300:
        said = answer.body[:300].decode(errors="replace")
        raise DemoError(f"{method} /api/v1{path} was answered {answer.status}: {said}")
    return answer
