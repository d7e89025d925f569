"""What the services' HTTP sides share: errors in the API's form, request ids, and health."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, Final

import orjson
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from msgspec import Struct
from prometheus_client import CONTENT_TYPE_LATEST, Histogram, generate_latest

from libs.common.runtime.clock import monotonic, new_id
from libs.common.runtime.logs import logger
from libs.common.runtime.metrics import HTTP_SECONDS

_LOG: Final = logger("http")
REQUEST_ID: Final = "X-Request-Id"
REQUEST_ID_KEY: Final = web.RequestKey("request_id", str)
"""Where a request keeps its id."""
_LONGEST_REQUEST_ID: Final = 128
HEALTH: Final = ("/healthz", "/readyz", "/metrics")
EVERY_ANSWER: Final[Mapping[str, str]] = MappingProxyType(
    {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Server": "hookledger"}
)
"""Headers of an answer, unless it has them with another value."""

CODES: Final = {
    400: "bad_request",
    401: "authentication_failed",
    403: "permission_denied",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    409: "conflict",
    413: "payload_too_large",
    415: "unsupported_media_type",
    422: "validation",
    429: "rate_limited",
    500: "server_error",
    502: "bad_gateway",
    503: "unavailable",
    504: "gateway_timeout",
}

ReadinessCheck = Callable[[], Awaitable[bool]]
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
_NUMBERS: Final = itertools.count(1)


class Reply(Struct, frozen=True, kw_only=True):
    """What is answered: JSON under a status, with headers beside those that every answer has."""

    status: int
    body: bytes
    headers: Mapping[str, str] = _NO_HEADERS

    def response(self) -> web.Response:
        """As aiohttp sends it."""
        return json_response(self.body, status=self.status, headers=self.headers)


class ApiError(Exception):
    """An answer that is not a success: `{code, detail}` with a status.

    Args:
        status: HTTP status, 400 or more.
        detail: what to mend, for a person; or a list of `{loc, msg, type}` where the request did not validate.
        code: a stable name; by default the status's.
        headers: further headers, such as Retry-After.
    """

    def __init__(
        self,
        status: int,
        detail: str | list[dict[str, Any]],
        *,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.code = code or CODES.get(status, "error")
        self.headers = dict(headers or {})

    def reply(self) -> Reply:
        """The answer."""
        body = orjson.dumps({"code": self.code, "detail": self.detail})
        return Reply(status=self.status, body=body, headers=self.headers)

    def response(self) -> web.Response:
        """The answer, as aiohttp sends it."""
        return self.reply().response()


def invalid(location: list[str | int], message: str, kind: str = "value_error") -> ApiError:
    """A 422 for one field, in the API's form. `location` begins with `body`, `query`, `path` or `header`."""
    return ApiError(422, [{"loc": location, "msg": message, "type": kind}])


def unavailable(detail: str = "the database does not answer; try again") -> ApiError:
    """A 503 that asks to come back."""
    return ApiError(503, detail, headers={"Retry-After": "1"})


def json_response(body: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON answer from anything that orjson encodes, or from bytes that are JSON already."""
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    return web.Response(body=data, status=status, headers=headers, content_type="application/json")


def request_id(given: str) -> str:
    """The id of a request: the one that came with it, where that is a short printable text, or else a new one."""
    usable = 0 < len(given) <= _LONGEST_REQUEST_ID and given.isascii() and given.isprintable()
    return given if usable else f"{_process()}-{next(_NUMBERS)}"


def answered(status: int, began: float) -> None:
    """Observe how long an answer took; `began` is by the monotonic clock."""
    _seconds(status // 100).observe(monotonic() - began)


def unreachable(error: BaseException, path: str) -> ApiError:
    """What a request to `path` is answered when a server behind this one does not answer; logs why."""
    _LOG.warning("http.unavailable", path=path, reason=str(error) or type(error).__name__)
    return unavailable()


def failed(method: str, path: str) -> ApiError:
    """What a request is answered that failed by a fault of ours; logs the exception that is being handled."""
    _LOG.exception("http.failed", method=method, path=path)
    return ApiError(500, "something went wrong here; the log has it under the request id")


def middlewares(unavailable_on: tuple[type[BaseException], ...] = ()) -> list[Any]:
    """Request ids outside, errors inside.

    Args:
        unavailable_on: exceptions that mean that a server behind this one does not answer: 503.
    """

    @web.middleware
    async def request_ids(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[REQUEST_ID_KEY] = identity = request_id(request.headers.get(REQUEST_ID, ""))
        began = monotonic()
        # Nothing else runs in a connection's task, and its next request says another id.
        structlog.contextvars.bind_contextvars(request_id=identity)
        response = await handler(request)
        if request.path not in HEALTH:
            answered(response.status, began)
        if not response.prepared:
            response.headers[REQUEST_ID] = identity
            for name, value in EVERY_ANSWER.items():
                response.headers.setdefault(name, value)
        return response

    @web.middleware
    async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except ApiError as error:
            return error.response()
        except web.HTTPException as error:
            allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
            return ApiError(error.status, error.reason, headers=allow).response()
        except unavailable_on as error:
            return unreachable(error, request.path).response()
        except (ConnectionResetError, asyncio.CancelledError):
            raise
        except Exception:  # noqa: BLE001  the boundary of a request
            return failed(request.method, request.path).response()

    return [request_ids, errors]


def add_health(app: web.Application, checks: Mapping[str, ReadinessCheck]) -> None:
    """Add `/healthz`, `/readyz` and `/metrics`.

    `/readyz?exclude=rabbitmq` leaves a dependency out of the verdict, and still names its state: for who asks whether
    to send requests here, where the service serves them without it. Kubernetes' API server has the same parameter.

    Args:
        checks: by name of the dependency, whether it answers; each has 2 seconds.
    """

    async def healthz(_: web.Request) -> web.Response:
        return json_response({"status": "alive"})

    async def readyz(request: web.Request) -> web.Response:
        excluded = request.query.getall("exclude", [])
        unknown = [name for name in excluded if name not in checks]
        if unknown:
            raise invalid(["query", "exclude"], f"{unknown[0]!r} is none of {', '.join(checks)}")
        results = await asyncio.gather(*(_within(check) for check in checks.values()))
        answering = dict(zip(checks, results, strict=True))
        states = {name: "ok" if ok else "unavailable" for name, ok in answering.items()}
        ready = all(ok for name, ok in answering.items() if name not in excluded)
        return json_response({"status": "ready" if ready else "unready", **states}, status=200 if ready else 503)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    for path, handler in zip(HEALTH, (healthz, readyz, metrics), strict=True):
        app.router.add_get(path, handler)


@cache
def _process() -> str:
    return new_id().hex


@cache
def _seconds(status_class: int) -> Histogram:
    # Looking a label up takes a lock and makes texts, for each request.
    return HTTP_SECONDS.labels(f"{status_class}xx")


async def _within(check: ReadinessCheck) -> bool:
    try:
        async with asyncio.timeout(2):
            return await check()
    except TimeoutError:
        return False
