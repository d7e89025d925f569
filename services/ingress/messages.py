"""`POST /api/v1/app/{app}/msg` and `…/msg/batch`: what producers publish over HTTP."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final
from uuid import UUID

import msgspec
from aiohttp import web

from libs.common.contracts.front_door import CREATE_BATCH, CREATE_MESSAGE
from libs.common.contracts.registry import RegistryObject
from libs.common.domain import ids
from libs.common.domain.facts import Origin
from libs.common.domain.ids import Prefix
from libs.common.domain.message import MAX_BODY_BYTES
from libs.common.postgres.key_use import KeyUse
from libs.common.runtime.clock import now
from libs.common.runtime.http import REQUEST_ID_KEY, ApiError, Reply, invalid, json_response
from services.ingress import message_in, metrics, schemas
from services.ingress.accept import Acceptor, UnstorableError
from services.ingress.batch_in import MAX_BATCH_BYTES, Batch, read_items
from services.ingress.body import continue_unless_too_large, read_body
from services.ingress.candidate import Acceptance, Accepted, Claim, Duplicate, Forbidden, KeyKind, Violating
from services.ingress.directory import Directory
from services.ingress.inbound import REPLAYED
from services.ingress.message_in import MessageIn
from services.ingress.publication import Publication, no_application, repetition, repetitions
from services.ingress.registry import Registry
from services.ingress.throttle import Throttle

IDEMPOTENCY_KEY: Final = "Idempotency-Key"
_LONGEST_KEY: Final = 256
_OF_THE_CALLER: Final = (401, 403)
"""An API key that was revoked while its request was read is told nothing, not even what was accepted before."""
_TRUTH: Final = {"true": True, "1": True, "false": False, "0": False}


class Messages:
    """The handlers of message creation."""

    def __init__(
        self,
        acceptor: Acceptor,
        directory: Directory,
        registry: Registry,
        throttle: Throttle,
        key_use: KeyUse,
        *,
        body_seconds: float,
    ) -> None:
        self._acceptor = acceptor
        self._directory = directory
        self._registry = registry
        self._throttle = throttle
        self._key_use = key_use
        self._body_seconds = body_seconds

    def add_routes(self, app: web.Application) -> None:
        """Add the routes; other methods on them are the registry's."""

        async def expect(request: web.Request) -> None:
            await continue_unless_too_large(request, MAX_BODY_BYTES)

        async def expect_batch(request: web.Request) -> None:
            await continue_unless_too_large(request, MAX_BATCH_BYTES)

        for slash in ("", "/"):
            app.router.add_post(f"{CREATE_MESSAGE.full_path}{slash}", self.create, expect_handler=expect)
            app.router.add_post(f"{CREATE_BATCH.full_path}{slash}", self.create_batch, expect_handler=expect_batch)

    async def create(self, request: web.Request) -> web.Response:
        """Accept one message."""
        with _counted():
            return await self._create(request)

    async def _create(self, request: web.Request) -> web.Response:
        key_hash = await self._directory.key_hash(request.headers.get("Authorization"))
        with_content = _flag(request, "with_content", default=True)
        body = await self._read(request, MAX_BODY_BYTES)
        key = self._directory.known_key(key_hash)
        self._key_use.note(key.id)
        try:
            return await self._publish(request, key, key_hash, body, with_content=with_content)
        except ApiError as refusal:
            if refusal.status in _OF_THE_CALLER:
                raise
            # An Idempotency-Key is judged before all else: what was accepted under it is not refused later.
            [first] = await self._acceptor.holders(self._claims_again(request, key, body)) or [None]
            if first is None:
                raise
            if not first.same_request:
                raise _other_request() from None
            return reply_to(first, message_in.parse(body, now), with_content=with_content).response()

    async def _publish(
        self, request: web.Request, key: RegistryObject, key_hash: str, body: bytes, *, with_content: bool
    ) -> web.Response:
        await self._throttle.spend_key(key)
        message = message_in.parse(body, now)
        named = request.match_info["app"]
        app = await self._directory.fresh_application(key.org, named)
        if app is None:
            app = await self._create_application(request, key.org, named, message.application)
        claims = _claims(request, key, app.id, body)
        await self._throttle.spend_application(app)
        publication = Publication(directory=self._directory, key_hash=key_hash, app=app)
        return await self._accept(publication, message, claims, with_content=with_content)

    async def create_batch(self, request: web.Request) -> web.Response:
        """Accept many messages in one transaction; each has its own result."""
        with _counted():
            return await self._create_batch(request)

    async def _create_batch(self, request: web.Request) -> web.Response:
        key_hash = await self._directory.key_hash(request.headers.get("Authorization"))
        with_content = _flag(request, "with_content", default=False)
        body = await self._read(request, MAX_BATCH_BYTES)
        key = self._directory.known_key(key_hash)
        self._key_use.note(key.id)
        items = read_items(body)
        try:
            return await self._publish_batch(request, key, key_hash, body, items, with_content=with_content)
        except ApiError as refusal:
            if refusal.status in _OF_THE_CALLER:
                raise
            firsts = await self._acceptor.holders(self._claims_again(request, key, body, places=len(items)))
            _refuse_another_request(firsts)
            if not any(firsts):
                raise
            batch = Batch()
            await batch.read(items, now)
            acceptances = [first for place in batch.messages if (first := firsts[place]) is not None]
            if len(acceptances) < len(batch.messages):
                raise
            return json_response(batch.answer(acceptances, with_content=with_content), headers={REPLAYED: "true"})

    async def _publish_batch(
        self,
        request: web.Request,
        key: RegistryObject,
        key_hash: str,
        body: bytes,
        items: Sequence[msgspec.Raw],
        *,
        with_content: bool,
    ) -> web.Response:
        await self._throttle.spend_key(key, len(items))
        batch = Batch()
        await batch.read(items, now)
        named = request.match_info["app"]
        app = await self._directory.fresh_application(key.org, named)
        if app is None:
            app = await self._create_application(request, key.org, named, batch.application)
        claims = _claims(request, key, app.id, body, places=len(items))
        _refuse_another_request(await self._acceptor.holders(claims))
        await self._throttle.spend_application(app, len(items))
        publication = Publication(directory=self._directory, key_hash=key_hash, app=app)
        refusal = publication.authorise()
        if refusal is not None:
            raise refusal
        group = [
            publication.candidate(message, *claims[place : place + 1]) for place, message in batch.messages.items()
        ]
        try:
            acceptances = await self._acceptor.accept_together(group) if group else []
        except UnstorableError as error:
            raise invalid(["body"], f"one of {len(group)} messages cannot be stored, and so none was") from error
        answer = batch.answer(acceptances, with_content=with_content)
        return json_response(answer, headers={REPLAYED: "true"} if _all_replayed(acceptances) else None)

    async def _accept(
        self, publication: Publication, message: MessageIn, claims: list[Claim], *, with_content: bool
    ) -> web.Response:
        refusal = publication.authorise()
        if refusal is not None:
            raise refusal
        try:
            acceptance = await self._acceptor.accept(publication.candidate(message, *claims))
        except UnstorableError as error:
            raise unstorable(error) from error
        return reply_to(acceptance, message, with_content=with_content).response()

    def _claims_again(
        self, request: web.Request, key: RegistryObject, body: bytes, *, places: int | None = None
    ) -> list[Claim]:
        """The claims of a request that is refused: its application may be gone by now."""
        named = request.match_info["app"]
        app = self._directory.application(key.org, named)
        identity = None if app is None else app.id
        if app is None:
            with suppress(ids.BadIdError):
                identity = ids.decode(Prefix.APPLICATION, named)
        return [] if identity is None else _claims(request, key, identity, body, places=places)

    async def _read(self, request: web.Request, most: int) -> bytes:
        if "Content-Encoding" in request.headers:
            raise ApiError(415, "an encoded body is not taken: send it plain")
        return await read_body(request, most=most, seconds=self._body_seconds)

    async def _create_application(
        self, request: web.Request, org: UUID, named: str, given: bytes | None
    ) -> RegistryObject:
        """The application that the message brings along, created by the registry on the caller's behalf."""
        if given is None:
            raise no_application()
        document = _application(given, named)
        try:
            await self._registry.create_application(
                document,
                authorization=request.headers["Authorization"],
                request_id=request[REQUEST_ID_KEY],
            )
        except ApiError as refusal:
            raise _within_the_message(refusal) from None
        app = await self._directory.fresh_application(org, named)
        if app is None:
            raise no_application()
        return app


def reply_to(acceptance: Acceptance, message: MessageIn, *, with_content: bool) -> Reply:
    """What the sender of one message hears of what became of it.

    Raises:
        ApiError: it was refused.
    """
    match acceptance:
        case Accepted(message=accepted):
            return Reply(status=202, body=message.answer(accepted.id, accepted.accepted_at, with_content=with_content))
        case Duplicate(kind=KeyKind.IDEMPOTENCY_KEY, same_request=True):
            answer = message.answer(acceptance.first, acceptance.accepted_at, with_content=with_content)
            return Reply(status=202, body=answer, headers={REPLAYED: "true"})
        case Duplicate(kind=KeyKind.IDEMPOTENCY_KEY):
            raise _other_request()
        case Duplicate():
            raise ApiError(409, "a message with this eventId was accepted already")
        case Forbidden(error=forbidden):
            raise forbidden
        case Violating(violations=violations):
            raise schemas.refusal(violations, "body", "payload")


def unstorable(error: UnstorableError) -> ApiError:
    """A 422 for what Postgres does not take."""
    return invalid(["body"], str(error))


@contextmanager
def _counted() -> Iterator[None]:
    try:
        yield
    except ApiError as refusal:
        count(refusal)
        raise


def count(refusal: ApiError) -> None:
    """Count a refusal by its code."""
    metrics.REJECTED.labels(str(Origin.API), refusal.code).inc()


def claim_of(given: str, key: RegistryObject, path: str, app: UUID, body: bytes) -> Claim:
    """The claim of a request's `Idempotency-Key`.

    Raises:
        ApiError: 422.
    """
    return repetition(key.id, path, _checked(given), app, body)


def _claims(
    request: web.Request, key: RegistryObject, app: UUID, body: bytes, *, places: int | None = None
) -> list[Claim]:
    """The claims of the request's `Idempotency-Key`: one, or one for each place in its batch."""
    given = request.headers.getall(IDEMPOTENCY_KEY, [])
    if not given:
        return []
    if len(given) > 1:
        raise _no_key()
    if places is None:
        return [claim_of(given[0], key, request.path, app, body)]
    return repetitions(key.id, request.path, _checked(given[0]), app, body, places=places)


def _refuse_another_request(firsts: Sequence[Duplicate | None]) -> None:
    if any(first is not None and not first.same_request for first in firsts):
        raise _other_request()


def _checked(given: str) -> str:
    if not 1 <= len(given) <= _LONGEST_KEY or not (given.isascii() and given.isprintable()):
        raise _no_key()
    return given


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


def _within_the_message(refusal: ApiError) -> ApiError:
    """The registry's refusal of an application, whose body is a member of the caller's."""
    if isinstance(refusal.detail, str):
        return refusal
    detail = [item | {"loc": ["body", "application", *item["loc"][1:]]} for item in refusal.detail]
    return ApiError(refusal.status, detail, code=refusal.code, headers=refusal.headers)


def _all_replayed(acceptances: list[Acceptance]) -> bool:
    return bool(acceptances) and all(
        isinstance(each, Duplicate) and each.kind is KeyKind.IDEMPOTENCY_KEY and each.same_request
        for each in acceptances
    )


def _flag(request: web.Request, name: str, *, default: bool) -> bool:
    text = request.query.get(name)
    if text is None:
        return default
    value = _TRUTH.get(text.lower())
    if value is None:
        raise invalid(["query", name], "true or false", "type_error.bool")
    return value


def _no_key() -> ApiError:
    return invalid(["header", IDEMPOTENCY_KEY.lower()], f"one text of 1 to {_LONGEST_KEY} printable ASCII characters")


def _other_request() -> ApiError:
    return ApiError(409, "this Idempotency-Key was used for another request")
