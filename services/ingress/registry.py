"""The registry, as the ingress asks it over HTTP: one session for everything."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import orjson

from libs.common.runtime.http import REQUEST_ID, ApiError
from libs.common.runtime.logs import logger

_LOG: Final = logger("registry")
CONNECT_SECONDS: Final = 3.0
CONNECTIONS: Final = 256
_SUCCESS: Final = frozenset({200, 201})


class Registry:
    """The registry's HTTP side.

    Args:
        session: as `open_session` makes it.
        url: where it listens, without a trailing slash.
        seconds: how long it may take to answer.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str, *, seconds: float) -> None:
        self.session = session
        self.url = url.rstrip("/")
        self.timeout: Final = aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS, sock_read=seconds)
        """Deadlines of one request: to connect, and for each silence."""

    async def create_application(self, document: bytes, *, authorization: str, request_id: str) -> None:
        """Have it create this application, unless there is one with that uid.

        Raises:
            ApiError: as the registry answers, or because it does not.
        """
        headers = {"Authorization": authorization, "Content-Type": "application/json", REQUEST_ID: request_id}
        try:
            async with self.session.post(
                f"{self.url}/api/v1/app?get_if_exists=true",
                data=document,
                headers=headers,
                timeout=self.timeout,
                allow_redirects=False,
            ) as response:
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise failure(error) from error
        if response.status not in _SUCCESS:
            raise _passed_on(response.status, body)


@asynccontextmanager
async def open_session() -> AsyncIterator[aiohttp.ClientSession]:
    """A session that changes nothing on its way: no cookies, no redirects, no decompression, no proxies."""
    async with aiohttp.ClientSession(
        auto_decompress=False,
        trust_env=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        connector=aiohttp.TCPConnector(limit=CONNECTIONS),
        skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
    ) as session:
        yield session


def failure(error: Exception) -> ApiError:
    """What the caller hears when the registry does not answer."""
    _LOG.warning("registry.failed", reason=str(error) or type(error).__name__)
    match error:
        case aiohttp.ConnectionTimeoutError() | aiohttp.ClientConnectorError():
            return ApiError(503, "the registry cannot be reached; try again", headers={"Retry-After": "1"})
        case TimeoutError():
            return ApiError(504, "the registry did not answer in time")
        case _:
            return ApiError(502, "the registry broke off; try again")


def _passed_on(status: int, body: bytes) -> ApiError:
    try:
        said: Any = orjson.loads(body)
        return ApiError(status, said["detail"], code=said["code"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return ApiError(502, "the registry's answer cannot be read")
