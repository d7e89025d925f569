"""`POST /api/v1/app/{app}/msg`: what producers publish over HTTP."""

from typing import Final
from uuid import UUID

import msgspec
from aiohttp import web

from libs.common.contracts.front_door import CREATE_MESSAGE
from libs.common.contracts.registry import RegistryObject
from libs.common.domain.facts import Origin
from libs.common.domain.message import MAX_BODY_BYTES
from libs.common.postgres.key_use import KeyUse
from libs.common.runtime.http import REQUEST_ID_KEY, ApiError, invalid, json_response
from services.ingress import message_in, metrics, schemas
from services.ingress.accept import Acceptor, UnstorableError
from services.ingress.body import continue_unless_too_large, read_body
from services.ingress.candidate import Accepted, Candidate, Claim, Duplicate, Forbidden, KeyKind, Violating, claim
from services.ingress.directory import Directory
from services.ingress.inbound import REPLAYED
from services.ingress.message_in import MessageIn
from services.ingress.registry import Registry

_IDEMPOTENCY_KEY: Final = "Idempotency-Key"
_LONGEST_KEY: Final = 256
_TRUTH: Final = {"true": True, "1": True, "false": False, "0": False}


class Messages:
    """The handler of message creation."""

    def __init__(
        self, acceptor: Acceptor, directory: Directory, registry: Registry, key_use: KeyUse, *, body_seconds: float
    ) -> None:
        self._acceptor = acceptor
        self._directory = directory
        self._registry = registry
        self._key_use = key_use
        self._body_seconds = body_seconds

    def add_routes(self, app: web.Application) -> None:
        """Add the route; other methods on it are the registry's."""

        async def expect(request: web.Request) -> None:
            await continue_unless_too_large(request, MAX_BODY_BYTES)

        for path in (CREATE_MESSAGE.full_path, f"{CREATE_MESSAGE.full_path}/"):
            app.router.add_post(path, self.create, expect_handler=expect)

    async def create(self, request: web.Request) -> web.Response:
        """Accept one message."""
        try:
            return await self._create(request)
        except ApiError as refusal:
            metrics.REJECTED.labels(str(Origin.API), refusal.code).inc()
            raise

    async def _create(self, request: web.Request) -> web.Response:
        key_hash = await self._directory.key_hash(request.headers.get("Authorization"))
        with_content = _flag(request, "with_content", default=True)
        if "Content-Encoding" in request.headers:
            raise ApiError(415, "an encoded body is not taken: send it plain")
        body = await read_body(request, most=MAX_BODY_BYTES, seconds=self._body_seconds)
        key = self._directory.known_key(key_hash)
        self._key_use.note(key.id)
        org = key.org
        named = request.match_info["app"]
        app = await self._directory.fresh_application(org, named)
        repetition = None if app is None else self._repetition(request, key_hash, app, body)
        try:
            message = message_in.parse(body)
        except ApiError:
            # The key is judged before the content: under a key that was used, this is another request.
            if repetition is not None and await self._acceptor.holder(repetition) is not None:
                raise _other_request() from None
            raise
        if app is None:
            app = await self._create_application(request, org=org, named=named, message=message)
            repetition = self._repetition(request, key_hash, app, body)
        return await self._accept(message, key_hash, app, repetition, with_content=with_content)

    async def _accept(
        self, message: MessageIn, key_hash: str, app: RegistryObject, repetition: Claim | None, *, with_content: bool
    ) -> web.Response:
        def authorise() -> ApiError | None:
            try:
                key = self._directory.known_key(key_hash)
            except ApiError as error:
                return error
            return None if self._directory.owns(key.org, app.id) else _no_application()

        refusal = authorise()
        if refusal is not None:
            raise refusal
        claims = [] if repetition is None else [repetition]
        if message.event_id is not None:
            claims.append(claim(app.id, KeyKind.EVENT_ID, (message.event_id.encode(),), message.body))
        candidate = Candidate(
            org=app.org,
            app=app.id,
            event_type=message.event_type,
            body=message.body,
            origin=Origin.API,
            registry_version=self._directory.snapshot.version,
            authorise=authorise,
            content_type=message.content_type,
            channels=message.channels,
            event_id=message.event_id,
            publish=self._directory.publishes_accepted(app.id),
            claims=tuple(claims),
        )
        try:
            acceptance = await self._acceptor.accept(candidate)
        except UnstorableError as error:
            raise invalid(["body"], str(error)) from error
        match acceptance:
            case Accepted(message=accepted):
                answer = message.answer(accepted.id, accepted.accepted_at, with_content=with_content)
                return json_response(answer, status=202)
            case Duplicate(kind=KeyKind.IDEMPOTENCY_KEY, same_request=True):
                answer = message.answer(acceptance.first, acceptance.accepted_at, with_content=with_content)
                return json_response(answer, status=202, headers={REPLAYED: "true"})
            case Duplicate(kind=KeyKind.IDEMPOTENCY_KEY):
                raise _other_request()
            case Duplicate():
                raise ApiError(409, "a message with this eventId was accepted already")
            case Forbidden(error=forbidden):
                raise forbidden
            case Violating(violations=violations):
                raise schemas.refusal(violations, "body", "payload")

    def _repetition(self, request: web.Request, key_hash: str, app: RegistryObject, body: bytes) -> Claim | None:
        """The claim of the request's `Idempotency-Key`, of that API key and path."""
        given = request.headers.getall(_IDEMPOTENCY_KEY, [])
        if not given:
            return None
        if len(given) > 1 or not 1 <= len(given[0]) <= _LONGEST_KEY:
            raise invalid(["header", _IDEMPOTENCY_KEY.lower()], f"one text of 1 to {_LONGEST_KEY} characters")
        key = self._directory.known_key(key_hash)
        parts = key.id.bytes, request.path.rstrip("/").encode(), given[0].encode("utf-8", "surrogateescape")
        return claim(app.id, KeyKind.IDEMPOTENCY_KEY, parts, body)

    async def _create_application(
        self, request: web.Request, *, org: UUID, named: str, message: MessageIn
    ) -> RegistryObject:
        """The application that the message brings along, created by the registry on the caller's behalf."""
        if message.application is None:
            raise _no_application()
        document = _application(message.application, named)
        await self._registry.create_application(
            document, authorization=request.headers["Authorization"], request_id=request[REQUEST_ID_KEY]
        )
        app = await self._directory.fresh_application(org, named)
        if app is None:
            raise _no_application()
        return app


def _application(data: bytes, named: str) -> bytes:
    """The application's document, under the name that the path gives it."""
    try:
        document = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        uid = msgspec.json.decode(document.get("uid", b"null"), type=str | None)
    except msgspec.ValidationError:
        raise invalid(["body", "application"], "not an application") from None
    if uid is None:
        document["uid"] = msgspec.Raw(msgspec.json.encode(named))
    elif uid != named:
        raise invalid(["body", "application", "uid"], "not the application of the path")
    return msgspec.json.encode(document)


def _flag(request: web.Request, name: str, *, default: bool) -> bool:
    text = request.query.get(name)
    if text is None:
        return default
    value = _TRUTH.get(text.lower())
    if value is None:
        raise invalid(["query", name], "true or false", "type_error.bool")
    return value


def _no_application() -> ApiError:
    return ApiError(404, "there is no such application")


def _other_request() -> ApiError:
    return ApiError(409, "this Idempotency-Key was used for another request")
