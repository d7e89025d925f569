"""`POST /in/{source}`: what providers send. Verified on its raw bytes, then read, then committed, then answered."""

from dataclasses import dataclass
from typing import Final

from aiohttp import web

from libs.common.contracts import strictjson
from libs.common.contracts.registry import RegistryObject, SourceDocument
from libs.common.domain import ids
from libs.common.domain.facts import Origin
from libs.common.domain.ids import Prefix
from libs.common.domain.message import MAX_BODY_BYTES
from libs.common.domain.providers import SCHEMES, Identity, Provider, Scheme, Unreadable, UnreadableReason
from libs.common.domain.signatures.rules import Headers
from libs.common.domain.signatures.verdict import RefusalReason, Refused
from libs.common.runtime.clock import now
from libs.common.runtime.http import ApiError, json_response
from services.ingress import metrics
from services.ingress.accept import Acceptor, UnstorableError
from services.ingress.body import BodyError, continue_unless_too_large, read_body
from services.ingress.candidate import Accepted, Candidate, Claim, Duplicate, Forbidden, KeyKind, claim
from services.ingress.directory import Directory
from services.ingress.rejections import Rejection, Rejections, kept_headers

REPLAYED: Final = "Idempotent-Replayed"
_CREDIBLE_BUT_LATE: Final = frozenset({RefusalReason.STALE, RefusalReason.FUTURE})
_LONGEST_CONTENT_TYPE: Final = 256


class RejectedError(ApiError):
    """A request to an existing source that is refused, and kept under this reason.

    Args:
        status: of the answer.
        reason: for the operator, with a stable first word.
        detail: for the sender.
    """

    def __init__(self, status: int, reason: str, detail: str) -> None:
        super().__init__(status, detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class _Arrived:
    """A request as its signature sees it."""

    headers: Headers
    body: bytes


class Inbound:
    """The handlers of `/in`."""

    def __init__(
        self, acceptor: Acceptor, directory: Directory, rejections: Rejections, *, body_seconds: float
    ) -> None:
        self._acceptor = acceptor
        self._directory = directory
        self._rejections = rejections
        self._body_seconds = body_seconds

    def add_routes(self, app: web.Application) -> None:
        """Add the route; other methods on it get 405."""

        async def expect(request: web.Request) -> None:
            await continue_unless_too_large(request, MAX_BODY_BYTES)

        app.router.add_post("/in/{source}", self.receive, expect_handler=expect)
        app.router.add_post("/in/{source}/", self.receive, expect_handler=expect)

    async def receive(self, request: web.Request) -> web.Response:
        """Accept one request, or keep it with the reason of its refusal."""
        source = await self._directory.source(request.match_info["source"])
        body = b""
        try:
            _check_encoding(request)
            body = await read_body(request, most=MAX_BODY_BYTES, seconds=self._body_seconds)
            return await self._accept(source, _Arrived(_headers(request), body))
        except BodyError as error:
            reason = f"body: {error.detail}"
            self._keep(request, source, status=error.status, reason=reason, body=error.read, size=error.size)
            raise
        except RejectedError as error:
            self._keep(request, source, status=error.status, reason=error.reason, body=body, size=len(body))
            raise

    async def _accept(self, source: RegistryObject, arrived: _Arrived) -> web.Response:
        source = self._directory.known_source(source.id)  # as it is now: the body may have taken its time
        scheme = _scheme(source)
        source, refusal = await self._verify_fresh(source, scheme, arrived)
        if refusal is not None:
            raise refusal
        identity, content_type = _read(scheme, arrived)
        acceptance = await self._commit(source, scheme, arrived, identity, content_type)
        match acceptance:
            case Accepted(message=message):
                return _answer(scheme, ids.encode(Prefix.MESSAGE, message.id))
            case Duplicate(first=first):
                return _answer(scheme, ids.encode(Prefix.MESSAGE, first), {REPLAYED: "true"})
            case Forbidden(error=error):
                raise error

    async def _commit(
        self, source: RegistryObject, scheme: Scheme, arrived: _Arrived, identity: Identity, content_type: str
    ) -> Accepted | Duplicate | Forbidden:
        assert source.app is not None, "a source belongs to an application"
        assert isinstance(source.document, SourceDocument)
        claims: tuple[Claim, ...] = ()
        if identity.event_id is not None:
            parts = source.id.bytes, identity.event_id.encode()
            claims = (claim(source.app, KeyKind.PROVIDER_EVENT, parts, arrived.body),)
        candidate = Candidate(
            org=source.org,
            app=source.app,
            event_type=identity.event_type,
            body=arrived.body,
            origin=Origin.SOURCE,
            registry_version=self._directory.snapshot.version,
            authorise=lambda: self._authorise(source, scheme, arrived),
            content_type=content_type,
            source=source.id,
            publish=source.document.publish_accepted or self._directory.publishes_accepted(source.app),
            claims=claims,
        )
        try:
            return await self._acceptor.accept(candidate)
        except UnstorableError as error:
            raise RejectedError(400, f"unstorable: {error}", str(error)) from error

    async def _verify_fresh(
        self, source: RegistryObject, scheme: Scheme, arrived: _Arrived
    ) -> tuple[RegistryObject, RejectedError | None]:
        """The source and why it does not believe the request, by the secrets that it has now."""
        refusal = self._verify(source, scheme, arrived)
        if refusal is None or not refusal.reason.startswith(RefusalReason.MISMATCH):
            return source, refusal
        await self._directory.refresh()
        fresh = self._directory.known_source(source.id)
        if fresh.version == source.version:
            return source, refusal
        return fresh, self._verify(fresh, scheme, arrived)

    def _verify(self, source: RegistryObject, scheme: Scheme, arrived: _Arrived) -> RejectedError | None:
        secrets = self._directory.snapshot.secrets(source)
        verdict = scheme.verify(arrived.headers, arrived.body, secrets=secrets, now=now())
        if not isinstance(verdict, Refused):
            return None
        reason = f"{verdict.reason}: {verdict.detail}"
        if verdict.reason in _CREDIBLE_BUT_LATE:
            return RejectedError(400, reason, "the signed timestamp is too far from now")
        # One body for all three, so that a forger learns nothing.
        return RejectedError(401, reason, "the signature is missing or wrong")

    def _authorise(self, source: RegistryObject, scheme: Scheme, arrived: _Arrived) -> ApiError | None:
        try:
            fresh = self._directory.known_source(source.id)
        except ApiError as error:
            return error
        return None if fresh.version == source.version else self._verify(fresh, scheme, arrived)

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
                reason=reason,
                headers=kept_headers(request.headers.items()),
                body=body,
                size=size,
            )
        )


def _scheme(source: RegistryObject) -> Scheme:
    assert isinstance(source.document, SourceDocument)
    return SCHEMES[Provider(source.document.provider)]


def _headers(request: web.Request) -> dict[str, list[str]]:
    headers: dict[str, list[str]] = {}
    for name, value in request.headers.items():
        headers.setdefault(name.lower(), []).append(value)
    return headers


def _check_encoding(request: web.Request) -> None:
    if "Content-Encoding" in request.headers:
        raise RejectedError(415, "content-encoding: the body is encoded", "an encoded body is not taken: send it plain")


def _read(scheme: Scheme, arrived: _Arrived) -> tuple[Identity, str]:
    """What the verified request is about, and its content type."""
    document = scheme.extract_document(arrived.headers, arrived.body)
    if isinstance(document, Unreadable):
        raise _unreadable(document)
    [content_type] = arrived.headers["content-type"]  # extract_document has seen exactly one
    if len(content_type) > _LONGEST_CONTENT_TYPE or not (content_type.isascii() and content_type.isprintable()):
        raise RejectedError(415, "content-type: not printable ASCII", "the content type cannot be read")
    try:
        parsed = strictjson.parse(document)
    except strictjson.BadJsonError as error:
        raise RejectedError(400, f"json: {error}", str(error)) from None
    identity = scheme.identify(arrived.headers, parsed)
    if isinstance(identity, Unreadable):
        raise _unreadable(identity)
    return identity, content_type


def _unreadable(unreadable: Unreadable) -> RejectedError:
    status = 415 if unreadable.reason is UnreadableReason.CONTENT_TYPE else 400
    return RejectedError(status, f"{unreadable.reason}: {unreadable.detail}", unreadable.detail)


def _answer(scheme: Scheme, identity: str, headers: dict[str, str] | None = None) -> web.Response:
    return json_response({"id": identity}, status=scheme.success_status, headers=headers)
