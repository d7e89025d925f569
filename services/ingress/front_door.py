"""The front door: an `/api/v1` request that is not the ingress's own goes on to the registry, its answer back.

So do requests for the API's documentation and for the portal.
"""

import asyncio
from collections.abc import AsyncIterator
from functools import cache
from http import HTTPStatus
from typing import Final

import aiohttp
from aiohttp import hdrs, web
from multidict import CIMultiDict, CIMultiDictProxy
from prometheus_client import Counter
from yarl import URL

from libs.common.runtime.http import REQUEST_ID, REQUEST_ID_KEY, ApiError
from libs.common.runtime.logs import logger
from services.ingress import metrics
from services.ingress.body import BodyError, body_chunks, continue_unless_too_large
from services.ingress.registry import Registry, failure

_LOG: Final = logger("front_door")
MAX_BODY_BYTES: Final = 2 * 1024 * 1024
_LONG: Final = 64 * 1024
"""Answers from here on are passed on piece by piece, and so are those that do not say how long they are."""

# RFC 9110, section 7.6.1. `Expect` was answered here already.
_HOP_BY_HOP: Final = frozenset(
    {
        "connection", "expect", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te",
        "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
# What a client says about who it is, is not believed: the address that connected is told instead.
_REPLACED: Final = frozenset(
    {"forwarded", "host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"}
)
_NOT_FORWARDED: Final = _HOP_BY_HOP | _REPLACED


_DOCUMENTATION: Final = ("/openapi.json", "/docs", "/docs/")


class FrontDoor:
    """The handler that forwards."""

    def __init__(self, registry: Registry, *, body_seconds: float) -> None:
        self._registry = registry
        self._body_seconds = body_seconds

    def add_routes(self, app: web.Application) -> None:
        """Add the routes; after those that the ingress answers itself."""

        async def expect(request: web.Request) -> None:
            await continue_unless_too_large(request, MAX_BODY_BYTES)

        app.router.add_get("/api/v1/health", self.health)
        app.router.add_get("/api/v1/health/", self.health)
        app.router.add_route("*", "/api/v1/{rest:.*}", self.forward, expect_handler=expect)
        app.router.add_route("*", "/portal", self.forward, expect_handler=expect)
        app.router.add_route("*", "/portal/{rest:.*}", self.forward, expect_handler=expect)
        for path in _DOCUMENTATION:
            app.router.add_get(path, self.forward)

    async def health(self, _: web.Request) -> web.Response:
        """Say that the front door is open."""
        return web.Response(status=204)

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """Pass the request on and the answer back, both as they come."""
        body = _Body(request, self._body_seconds) if request.body_exists else None
        if body is not None and (request.content_length or 0) > MAX_BODY_BYTES:
            raise BodyError(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
        response: web.StreamResponse | None = None
        try:
            async with self._registry.session.request(
                request.method,
                URL(self._registry.url + request.rel_url.raw_path_qs, encoded=True),
                headers=_forwarded(request),
                data=body.chunks() if body is not None else None,
                timeout=self._registry.timeout,
                allow_redirects=False,
            ) as answer:
                _forwarded_as(answer.status // 100).inc()
                headers = _end_to_end(answer.headers, _HOP_BY_HOP)
                if answer.status == HTTPStatus.METHOD_NOT_ALLOWED:
                    headers["Allow"] = await _allowed(request, headers.get("Allow", ""))
                if request.method != "HEAD" and (answer.content_length or _LONG) < _LONG:
                    # Head and body at once: each write to a socket costs as much as all the rest of this function.
                    return web.Response(
                        status=answer.status,
                        reason=answer.reason,
                        headers=headers,
                        body=await answer.read(),
                    )
                response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
                response.headers.setdefault(REQUEST_ID, request[REQUEST_ID_KEY])
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await self._write(response, chunk)
                await self._write(response, None)
                return response
        except (aiohttp.ClientError, TimeoutError) as error:
            if body is not None and body.refusal is not None:
                raise body.refusal from error
            if response is not None and response.prepared:
                # Half an answer is out; only breaking the connection can say so.
                _LOG.warning("front_door.broken_off", path=request.path, reason=str(error) or type(error).__name__)
                if request.transport is not None:
                    request.transport.abort()
                return response
            metrics.FORWARDED.labels("failed").inc()
            raise failure(error) from error

    async def _write(self, response: web.StreamResponse, chunk: bytes | None) -> None:
        """Write on, or end (None); a client that does not read would keep one of the registry's connections for ever.

        Raises:
            TimeoutError: it did not take this chunk for as long as its own body might have taken.
        """
        async with asyncio.timeout(self._body_seconds):
            await (response.write_eof() if chunk is None else response.write(chunk))


class _Body:
    """The request's body on its way; remembers why it stopped, since the client only says that it did."""

    def __init__(self, request: web.Request, seconds: float) -> None:
        self._request = request
        self._seconds = seconds
        self.refusal: ApiError | None = None

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in body_chunks(self._request, most=MAX_BODY_BYTES, seconds=self._seconds):
                yield chunk
        except ApiError as error:
            self.refusal = error
            raise


@cache
def _forwarded_as(status_class: int) -> Counter:
    return metrics.FORWARDED.labels(f"{status_class}xx")


def _forwarded(request: web.Request) -> CIMultiDict[str]:
    headers = _end_to_end(request.headers, _NOT_FORWARDED)
    headers["X-Forwarded-For"] = request.remote or "unknown"
    headers["X-Forwarded-Host"] = request.host
    headers["X-Forwarded-Proto"] = request.scheme
    headers[REQUEST_ID] = request[REQUEST_ID_KEY]
    return headers


async def _allowed(request: web.Request, by_registry: str) -> str:
    """The methods of that path: those that the registry names, and those that are answered here."""
    allowed = {name.strip() for name in by_registry.split(",")}
    for resource in request.app.router.resources():
        _, methods = await resource.resolve(request)
        allowed |= methods
    return ",".join(sorted(allowed - {"", hdrs.METH_ANY}))


def _end_to_end(headers: CIMultiDictProxy[str], dropped: frozenset[str]) -> CIMultiDict[str]:
    """The headers that are for the other end: neither `dropped` (lower case) nor named as this connection's."""
    if hdrs.CONNECTION in headers:
        values = headers.getall(hdrs.CONNECTION)
        dropped = dropped.union(name.strip().lower() for value in values for name in value.split(","))
    # One pass: to copy them all, and to look for each of a dozen in the copy, costs several times as much.
    return CIMultiDict([(name, value) for name, value in headers.items() if name.lower() not in dropped])
