"""`POST /in/{source}`: what providers send. Verified on its raw bytes, then read, then committed, then answered."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final
from uuid import UUID

from aiohttp import web

from libs.common.contracts.front_door import RECEIVE
from libs.common.contracts.registry import RegistryObject
from libs.common.domain import ids
from libs.common.domain.facts import Origin
from libs.common.domain.ids import Prefix
from libs.common.domain.message import MAX_BODY_BYTES
from libs.common.domain.providers.reading import challenge
from libs.common.domain.providers.scheme import Challenge, Identity, Request, Scheme, Unreadable
from libs.common.domain.signatures.verdict import RefusalReason
from libs.common.runtime.clock import now
from libs.common.runtime.http import ApiError, json_response
from services.ingress import metrics, schemas, sender
from services.ingress.accept import Acceptor, UnstorableError
from services.ingress.body import BodyError, continue_unless_too_large, read_body
from services.ingress.candidate import Acceptance, Accepted, Candidate, Duplicate, Forbidden, Violating
from services.ingress.directory import Directory
from services.ingress.rejections import Rejection, Rejections, kept_headers, kept_text
from services.ingress.sender import RejectedError, document_of, scheme_of
from services.ingress.throttle import Throttle

REPLAYED: Final = "Idempotent-Replayed"
_LONGEST_REASON: Final = 500


class Inbound:
    """The handlers of `/in`."""

    def __init__(
        self,
        acceptor: Acceptor,
        directory: Directory,
        rejections: Rejections,
        throttle: Throttle,
        *,
        body_seconds: float,
    ) -> None:
        self._acceptor = acceptor
        self._directory = directory
        self._throttle = throttle
        self._rejections = rejections
        self._body_seconds = body_seconds

    def add_routes(self, app: web.Application) -> None:
        """Add the routes."""

        async def expect(request: web.Request) -> None:
            await continue_unless_too_large(request, MAX_BODY_BYTES)

        for path in (RECEIVE.full_path, f"{RECEIVE.full_path}/"):
            app.router.add_post(path, self.receive, expect_handler=expect)
            app.router.add_route("*", path, self.answer_challenge)

    async def receive(self, request: web.Request) -> web.Response:
        """Accept one request, or keep it with the reason of its refusal."""
        source = await self._directory.source(request.match_info["source"])
        body = b""
        try:
            _check_encoding(request)
            body = await read_body(request, most=MAX_BODY_BYTES, seconds=self._body_seconds)
            arrived = Request(headers=_headers(request), body=body, target=request.raw_path)
            return await self._accept(source, arrived)
        except BodyError as error:
            reason = f"body: {error.detail}"
            self._keep(request, source, status=error.status, reason=reason, body=error.read, size=error.size)
            raise
        except RejectedError as error:
            self._keep(request, source, status=error.status, reason=error.reason, body=body, size=len(body))
            raise

    async def answer_challenge(self, request: web.Request) -> web.Response:
        """Give back what a sender asks for by GET before it sends anything; every other method gets 405."""
        source = await self._directory.source(request.match_info["source"])
        parameter = scheme_of(source).challenge_parameter
        if request.method != "GET" or parameter is None:
            raise web.HTTPMethodNotAllowed(request.method, ["POST"] if parameter is None else ["GET", "POST"])
        texts = request.query.getall(parameter, [])
        answer = challenge(texts[0] if len(texts) == 1 else None)
        if isinstance(answer, Unreadable):
            raise ApiError(400, answer.detail)
        return web.Response(text=answer.answer)

    async def _accept(self, source: RegistryObject, arrived: Request) -> web.Response:
        source = self._directory.known_source(source.id)  # as it is now: the body may have taken its time
        source, refusal = await self._verify_fresh(source, arrived)
        if refusal is not None:
            raise refusal
        scheme = scheme_of(source)
        found, content_type = sender.read(scheme, arrived)
        if isinstance(found, Challenge):
            return web.Response(text=found.answer)
        await self._throttle.spend_application(self._directory.known_application(source.app))
        acceptance = await self._commit(source, arrived, found, content_type)
        bare = found.bare_answer or scheme.success_status is HTTPStatus.NO_CONTENT
        match acceptance:
            case Accepted(message=message):
                if found.occurred_at is not None:
                    age = (message.accepted_at - found.occurred_at).total_seconds()
                    metrics.EVENT_AGE_SECONDS.labels(document_of(source).provider).observe(max(age, 0))
                return _answer(scheme, message.id, bare=bare)
            case Duplicate(first=first):
                return _answer(scheme, first, bare=bare, headers={REPLAYED: "true"})
            case Forbidden(error=error):
                raise error
            case Violating(violations=violations):
                detail = schemas.refusal(violations, "body").detail
                raise RejectedError(422, f"schema: {schemas.told(violations)}"[:_LONGEST_REASON], detail)

    async def _commit(
        self, source: RegistryObject, arrived: Request, identity: Identity, content_type: str
    ) -> Acceptance:
        assert source.app is not None, "a source belongs to an application"
        candidate = Candidate(
            org=source.org,
            app=source.app,
            event_type=identity.event_type,
            body=arrived.body,
            origin=Origin.SOURCE,
            registry_version=self._directory.snapshot.version,
            authorise=lambda: self._authorise(source, arrived),
            content_type=content_type,
            source=source.id,
            publish=document_of(source).publish_accepted or self._directory.publishes_accepted(source.app),
            claims=sender.claims_of(source, arrived, identity),
        )
        try:
            return await self._acceptor.accept(candidate)
        except UnstorableError as error:
            raise RejectedError(400, f"unstorable: {error}", str(error)) from error

    async def _verify_fresh(
        self, source: RegistryObject, arrived: Request
    ) -> tuple[RegistryObject, RejectedError | None]:
        """The source and why it does not believe the request, by the secrets that it has now."""
        refusal = self._verify(source, arrived)
        if refusal is None or not refusal.reason.startswith(RefusalReason.MISMATCH):
            return source, refusal
        await self._directory.refresh()
        fresh = self._directory.known_source(source.id)
        if fresh.version == source.version:
            return source, refusal
        return fresh, self._verify(fresh, arrived)

    def _verify(self, source: RegistryObject, arrived: Request) -> RejectedError | None:
        verdict = sender.refused(self._directory.snapshot, source, arrived, at=now())
        return None if verdict is None else sender.refusal(verdict)

    def _authorise(self, source: RegistryObject, arrived: Request) -> ApiError | None:
        try:
            fresh = self._directory.known_source(source.id)
        except ApiError as error:
            return error
        return None if fresh.version == source.version else self._verify(fresh, arrived)

    def _keep(
        self, request: web.Request, source: RegistryObject, *, status: int, reason: str, body: bytes, size: int
    ) -> None:
        metrics.REJECTED.labels(str(Origin.SOURCE), reason.partition(":")[0]).inc()
        self._rejections.keep(
            Rejection(
                org=source.org,
                app=source.app,
                source=source.id,
                origin=Origin.SOURCE,
                status=status,
                reason=kept_text(reason),
                headers=kept_headers(
                    [(":path", request.raw_path), *request.headers.items()], scheme_of(source).evidence
                ),
                body=body,
                size=size,
            )
        )


def _headers(request: web.Request) -> dict[str, list[str]]:
    headers: dict[str, list[str]] = {}
    for name, value in request.headers.items():
        headers.setdefault(name.lower(), []).append(value)
    return headers


def _check_encoding(request: web.Request) -> None:
    if "Content-Encoding" in request.headers:
        raise RejectedError(415, "content-encoding: the body is encoded", "an encoded body is not taken: send it plain")


def _answer(scheme: Scheme, message: UUID, *, bare: bool, headers: Mapping[str, str] | None = None) -> web.Response:
    if bare:
        return web.Response(status=scheme.success_status, headers=headers)
    body = {"id": ids.encode(Prefix.MESSAGE, message)}
    return json_response(body, status=scheme.success_status, headers=headers)
