"""From an HTTP request to a handler and back: authentication, the transaction, idempotency, the announcement."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import asyncpg
from aiohttp import web
from aiohttp.typedefs import Handler

from libs.common.contracts.operations import Access, Operation, QueryParameter
from libs.common.domain.addresses import AddressPolicy
from libs.common.postgres.pool import CONNECT_SECONDS, Connection, Pool, transaction
from libs.common.postgres.registry import Changes, changing
from libs.common.runtime.failpoints import Failpoint, reach
from libs.common.runtime.http import ApiError, unavailable
from libs.common.runtime.logs import logger
from libs.common.runtime.sealing import MasterKeys
from services.registry.access import ACCESS
from services.registry.announcing import Announcer
from services.registry.answers import Answer, Claim
from services.registry.authentication import Authentication, Caller
from services.registry.parameters import Parameter
from services.registry.parsing import conflict, parse_body
from services.registry.waiting import Waiting

Value = TypeVar("Value")
Answered = TypeVar("Answered", bound="Answer | None")

_LOG: Final = logger("calls")
MAX_BODY_BYTES: Final = 1024 * 1024
BODY_SECONDS: Final = 30.0
READ_SECONDS: Final = 10.0
"""Less than what the SDKs and the front door wait for: who has given up is worked for no longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """What the handlers work with."""

    pool: Pool
    master_keys: MasterKeys
    addresses: AddressPolicy
    authentication: Authentication
    announcer: Announcer
    public_url: str
    """How users reach the platform, without a trailing slash; empty: as the request came."""
    idempotency: timedelta
    """So long a request under an `Idempotency-Key` gets its first answer again."""
    waiting: Waiting = field(default_factory=Waiting)
    read_seconds: float = READ_SECONDS
    """So long a GET may take in the database."""


REGISTRY: Final = web.AppKey("registry", Registry)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One authenticated request."""

    registry: Registry
    caller: Caller
    request: web.Request
    connection: Connection
    operation: Operation
    body: bytes = b""

    def named(self, name: str) -> str:
        """The part of the path that the route calls `name`."""
        return self.request.match_info[name]

    def asked(self, parameter: Parameter[Value]) -> Value:
        """The value of a parameter that the operation declares.

        Raises:
            ApiError: 422.
        """
        assert parameter in self.operation.query, f"{self.operation.id} does not declare {parameter.name}"
        return parameter.read(self.request.query)

    def content(self, kind: type[Value]) -> Value:
        """The request's body, as the operation declares it.

        Raises:
            ApiError: 422.
        """
        assert self.operation.body is kind, f"{self.operation.id} does not declare {kind.__name__}"
        if not self.operation.body_required and not self.body.strip():
            return kind()
        return parse_body(self.body, kind)


Read: TypeAlias = Callable[[Call], Awaitable[Answer]]


class Look(Protocol):
    """A read that may have no answer yet; the `last` time it has one."""

    async def __call__(self, call: Call, *, last: bool) -> Answer | None:
        """The answer to the call, if there is one yet."""


Write: TypeAlias = Callable[[Call, Changes], Awaitable[Answer]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """An operation, and what carries it out."""

    operation: Operation
    handler: Handler


def read(
    path: str,
    handler: Read,
    id: str,  # noqa: A002  OpenAPI's word
    answer: Any,
    *,
    query: tuple[QueryParameter, ...] = (),
    refusals: tuple[int, ...] = (),
) -> Route:
    """GET: it only reads."""
    operation = replace(_get(path, handler, id, answer, query), refusals=refusals)
    return Route(operation=operation, handler=_reading(operation, handler))


def wait(
    path: str,
    handler: Look,
    id: str,  # noqa: A002  OpenAPI's word
    answer: Any,
    *,
    query: tuple[QueryParameter, ...] = (),
) -> Route:
    """GET that waits for what is not there yet: it looks every half second, for ten at most."""
    operation = _get(path, handler, id, answer, query)
    return Route(operation=operation, handler=_waiting(operation, handler))


def _get(
    path: str,
    handler: Read | Look,
    id: str,  # noqa: A002  OpenAPI's word
    answer: Any,
    query: tuple[QueryParameter, ...],
) -> Operation:
    return Operation(
        method="GET",
        path=path,
        id=id,
        summary=_summary(handler),
        description=_description(handler),
        access=ACCESS["GET", path],
        answers={200: answer},
        query=query,
    )


def write(
    method: str,
    path: str,
    handler: Write,
    id: str,  # noqa: A002  OpenAPI's word
    answers: Mapping[int, Any],
    *,
    body: type | None = None,
    body_required: bool = True,
    query: tuple[QueryParameter, ...] = (),
    refusals: tuple[int, ...] = (),
) -> Route:
    """Another method: it changes the registry."""
    access = ACCESS[method, path]
    operation = Operation(
        method=method,
        path=path,
        id=id,
        summary=_summary(handler),
        description=_description(handler),
        access=access,
        answers=answers,
        body=body,
        body_required=body_required,
        query=query,
        refusals=refusals,
    )
    return Route(operation=operation, handler=_writing(operation, access, handler))


def _reading(operation: Operation, handler: Read) -> Handler:

    async def handle(request: web.Request) -> web.StreamResponse:
        return (await _look(request, operation, handler)).response()

    return handle


def _waiting(operation: Operation, handler: Look) -> Handler:

    async def handle(request: web.Request) -> web.StreamResponse:
        with request.app[REGISTRY].waiting.place() as pause:
            going_on = True
            while True:
                # Each look is a request of its own to everything but HTTP: a key may be revoked in between.
                answer = await _look(request, operation, partial(handler, last=not going_on))
                if answer is not None:
                    return answer.response()
                going_on = await pause() and request.transport is not None

    return handle


async def _look(request: web.Request, operation: Operation, handler: Callable[[Call], Awaitable[Answered]]) -> Answered:
    """One turn of a handler that reads."""
    registry = request.app[REGISTRY]
    assert operation.access is not None, "who reads is known"
    caller = await registry.authentication.caller(request.headers.get("Authorization"), operation.access)
    async with registry.pool.acquire(timeout=CONNECT_SECONDS) as connection:
        call = Call(registry=registry, caller=caller, request=request, connection=connection, operation=operation)
        try:
            async with asyncio.timeout(registry.read_seconds):
                return await handler(call)
        except asyncpg.DataError as error:
            raise _unstorable(error) from error
        except (TimeoutError, asyncpg.QueryCanceledError) as error:
            _LOG.warning("registry.too_slow", path=request.path, reason=str(error) or type(error).__name__)
            raise unavailable("the database did not find this in time; try again, or ask for less") from error


def _writing(operation: Operation, access: Access, handler: Write) -> Handler:

    async def handle(request: web.Request) -> web.StreamResponse:
        registry = request.app[REGISTRY]
        authorization = request.headers.get("Authorization")
        caller = await registry.authentication.caller(authorization, access)
        body = await _read_body(request)
        claim = Claim.of(request, body, key=caller.id, org=caller.org) if request.method == "POST" else None
        version = 0
        async with transaction(registry.pool) as connection:
            if claim is not None:
                first = await claim.take(connection, registry.master_keys, registry.idempotency)
                if first is not None:
                    return first.response()
            call = Call(
                registry=registry,
                caller=caller,
                request=request,
                connection=connection,
                operation=operation,
                body=body,
            )
            try:
                async with changing(connection, caller.actor) as changes:
                    # Once more, now that nobody else changes the registry: it may have been revoked since.
                    await registry.authentication.caller(authorization, access, within=connection)
                    answer = await handler(call, changes)
                version = changes.made[-1].registry_version if changes.made else 0
            except ApiError as refusal:
                answer = _refused(refusal)
            except asyncpg.UniqueViolationError:
                answer = _refused(conflict("another one has this uid or name"))
            except asyncpg.DataError as error:
                answer = _refused(_unstorable(error))
            if claim is not None:
                await claim.keep(connection, registry.master_keys, answer)
        if version:
            reach(Failpoint.CHANGE_COMMITTED)
            _LOG.info("registry.changed", version=version, actor=caller.actor, method=request.method)
            registry.announcer.announce(version)
        return answer.response()

    return handle


def _summary(handler: Read | Write | Look) -> str:
    """The first sentence of a handler's docstring, which is what the document says of it."""
    return (inspect.getdoc(handler) or "").partition("\n")[0].removesuffix(".")


def _description(handler: Read | Write | Look) -> str:
    """What a handler's docstring says beyond its first line."""
    return (inspect.getdoc(handler) or "").partition("\n")[2].strip()


async def _read_body(request: web.Request) -> bytes:
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ApiError(415, "the body has a Content-Encoding; send it as it is")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except TimeoutError:
        raise ApiError(408, f"the body did not arrive within {BODY_SECONDS:.0f} s") from None


def _refused(refusal: ApiError) -> Answer:
    if refusal.status >= 500:  # noqa: PLR2004  the class of server errors, which are never remembered
        raise refusal
    response = refusal.response()
    assert isinstance(response.body, bytes)
    return Answer(status=refusal.status, body=response.body, headers=refusal.headers)


def _unstorable(error: asyncpg.DataError) -> ApiError:
    """What the parsers let through and Postgres cannot hold, such as a number of 10,000 digits."""
    detail = f"a value cannot be stored: {str(error).splitlines()[0]}"
    return ApiError(422, [{"loc": ["body"], "msg": detail, "type": "value_error"}])
