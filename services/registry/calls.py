"""From an HTTP request to a handler and back: authentication, the transaction, idempotency, the announcement."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import asyncpg
from aiohttp import web
from aiohttp.typedefs import Handler

from libs.common.contracts.registry import Scope
from libs.common.domain.addresses import AddressPolicy
from libs.common.postgres.pool import CONNECT_SECONDS, Connection, Pool, transaction
from libs.common.postgres.registry import Changes, changing
from libs.common.runtime.failpoints import Failpoint, reach
from libs.common.runtime.http import ApiError
from libs.common.runtime.logs import logger
from libs.common.runtime.sealing import MasterKeys
from services.registry.announcing import Announcer
from services.registry.answers import Answer, Claim
from services.registry.authentication import Authentication, Caller
from services.registry.parsing import conflict

_LOG: Final = logger("calls")
MAX_BODY_BYTES: Final = 1024 * 1024
BODY_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """What the handlers work with."""

    pool: Pool
    master_keys: MasterKeys
    addresses: AddressPolicy
    authentication: Authentication
    announcer: Announcer


REGISTRY: Final = web.AppKey("registry", Registry)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One authenticated request."""

    registry: Registry
    caller: Caller
    request: web.Request
    connection: Connection
    body: bytes = b""

    def named(self, name: str) -> str:
        """The part of the path that the route calls `name`."""
        return self.request.match_info[name]


Read: TypeAlias = Callable[[Call], Awaitable[Answer]]
Write: TypeAlias = Callable[[Call, Changes], Awaitable[Answer]]


def reading(handler: Read) -> Handler:
    """A route that only reads; it takes the scope `read`."""

    async def handle(request: web.Request) -> web.StreamResponse:
        registry = request.app[REGISTRY]
        caller = await registry.authentication.caller(request.headers.get("Authorization"), Scope.READ)
        async with registry.pool.acquire(timeout=CONNECT_SECONDS) as connection:
            call = Call(registry=registry, caller=caller, request=request, connection=connection)
            try:
                answer = await handler(call)
            except asyncpg.DataError as error:
                raise _unstorable(error) from error
        return answer.response()

    return handle


def writing(handler: Write) -> Handler:
    """A route that changes the registry; it takes the scope `admin`."""

    async def handle(request: web.Request) -> web.StreamResponse:
        registry = request.app[REGISTRY]
        caller = await registry.authentication.caller(request.headers.get("Authorization"), Scope.ADMIN)
        body = await _read_body(request)
        claim = Claim.of(request, body, key=caller.key, org=caller.org) if request.method == "POST" else None
        version = 0
        async with transaction(registry.pool) as connection:
            if claim is not None:
                first = await claim.take(connection, registry.master_keys)
                if first is not None:
                    return first.response()
            call = Call(registry=registry, caller=caller, request=request, connection=connection, body=body)
            try:
                async with changing(connection, f"key:{caller.key}") as changes:
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
            _LOG.info("registry.changed", version=version, key=str(caller.key), method=request.method)
            registry.announcer.announce(version)
        return answer.response()

    return handle


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
