"""`POST …/rejected/{id}/re-verify` and `…/admit`: a second look at what was refused, once its cause is mended.

A request is judged as of the moment when it arrived, by the secrets that its source has now. To admit it is an
operator's decision whatever the judgement: it becomes a message like any other, deduplicated by its provider's event
id. Each is a fact with its actor.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg
import msgspec
import orjson
from aiohttp import web

from libs.common.contracts.front_door import ADMIT, REVERIFY, ReverifyIn
from libs.common.contracts.registry import RegistryObject, Scope
from libs.common.domain import ids
from libs.common.domain.facts import Origin
from libs.common.domain.ids import BadIdError, Prefix
from libs.common.domain.providers.scheme import Challenge, Request
from libs.common.postgres.key_use import KeyUse
from libs.common.postgres.pool import CONNECTION_ERRORS, Pool
from libs.common.postgres.registry import RejectedFact
from libs.common.runtime.http import ApiError, invalid, json_response
from services.ingress import schemas, sender
from services.ingress.accept import Acceptor, UnavailableError, UnstorableError
from services.ingress.admission import record_act
from services.ingress.body import read_body
from services.ingress.candidate import Accepted, Admission, Candidate, Duplicate, Forbidden, KeyKind, Violating, claim
from services.ingress.directory import Directory
from services.ingress.inbound import REPLAYED
from services.ingress.publication import no_application
from services.ingress.sender import CREDIBLE_BUT_LATE, RejectedError

MAX_BODY_BYTES: Final = 4096


_DECODER: Final = msgspec.json.Decoder(ReverifyIn)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """A rejected request, whole, and its source as it is now; `message` is what it became already."""

    id: UUID
    source: RegistryObject
    at: datetime
    message: UUID | None
    arrived: Request = field(repr=False)


class SecondLooks:
    """The handlers of what operators do with rejected requests; they take the scope `admin`."""

    def __init__(
        self, pool: Pool, acceptor: Acceptor, directory: Directory, key_use: KeyUse, *, body_seconds: float
    ) -> None:
        self._pool = pool
        self._acceptor = acceptor
        self._directory = directory
        self._key_use = key_use
        self._body_seconds = body_seconds

    def add_routes(self, app: web.Application) -> None:
        """Add the routes; reading rejected requests is the registry's."""
        for slash in ("", "/"):
            app.router.add_post(f"{REVERIFY.full_path}{slash}", self.reverify)
            app.router.add_post(f"{ADMIT.full_path}{slash}", self.admit)

    async def reverify(self, request: web.Request) -> web.Response:
        """Judge it again; says whether it would be believed, and accepted."""
        key_hash = await self._directory.key_hash(request.headers.get("Authorization"), Scope.ADMIN)
        body = await read_body(request, most=MAX_BODY_BYTES, seconds=self._body_seconds)
        try:
            wanted = _DECODER.decode(body) if body.strip() else ReverifyIn()
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise invalid(["body"], str(error)) from None
        key = self._directory.known_key(key_hash, Scope.ADMIN)
        self._key_use.note(key.id)
        kept = await self._kept(request, key)
        verdict = sender.refused(self._directory.snapshot, kept.source, kept.arrived, at=kept.at)
        verified = verdict is None or (wanted.ignore_timestamp and verdict.reason in CREDIBLE_BUT_LATE)
        reason = None if verdict is None or verified else f"{verdict.reason}: {verdict.detail}"
        if verified:
            reason = self._obstacle(kept, key, key_hash)
        answer: dict[str, Any] = {
            "id": ids.encode(Prefix.REJECTED, kept.id),
            "verified": verified,
            "acceptable": reason is None,
            "reason": reason,
            "timestampIgnored": wanted.ignore_timestamp,
        }
        await self._record(kept, key, {name: value for name, value in answer.items() if name != "id"})
        return json_response(answer)

    async def admit(self, request: web.Request) -> web.Response:
        """Accept it as a message; done twice, it is one message."""
        key_hash = await self._directory.key_hash(request.headers.get("Authorization"), Scope.ADMIN)
        key = self._directory.known_key(key_hash, Scope.ADMIN)
        self._key_use.note(key.id)
        kept = await self._kept(request, key)
        if kept.message is not None:
            return _admitted(kept, kept.message, repeated=True)
        try:
            acceptance = await self._acceptor.accept(self._candidate(kept, key, key_hash))
        except UnstorableError as error:
            raise invalid(["body"], str(error)) from error
        match acceptance:
            case Accepted(message=message):
                return _admitted(kept, message.id, repeated=False)
            case Duplicate(first=first):
                return _admitted(kept, first, repeated=True)
            case Forbidden(error=forbidden):
                raise forbidden
            case Violating(violations=violations):
                raise schemas.refusal(violations, "payload")

    def _obstacle(self, kept: _Kept, key: RegistryObject, key_hash: str) -> str | None:
        """Why no message can be made of it, whoever sent it."""
        try:
            finding = self._acceptor.check(self._candidate(kept, key, key_hash))
        except ApiError as error:
            return str(error.detail)
        return f"schema: {schemas.told(finding.violations)}" if finding.enforced else None

    def _candidate(self, kept: _Kept, key: RegistryObject, key_hash: str) -> Candidate:
        source = kept.source
        assert source.app is not None, "a source belongs to an application"
        try:
            found, content_type = sender.read(sender.scheme_of(source), kept.arrived)
        except RejectedError as error:
            raise ApiError(409, f"it cannot be made a message: {error.reason}") from None
        if isinstance(found, Challenge):
            raise ApiError(409, "it is its sender's question whether this URL is right, and no event")

        def authorise() -> ApiError | None:
            try:
                self._directory.known_key(key_hash, Scope.ADMIN)
                self._directory.known_source(source.id)
            except ApiError as error:
                return error
            return None

        own = claim(source.app, KeyKind.REJECTED, (kept.id.bytes,), kept.arrived.body)
        return Candidate(
            org=source.org,
            app=source.app,
            event_type=found.event_type,
            body=kept.arrived.body,
            origin=Origin.SOURCE,
            registry_version=self._directory.snapshot.version,
            authorise=authorise,
            content_type=content_type,
            source=source.id,
            publish=sender.document_of(source).publish_accepted or self._directory.publishes_accepted(source.app),
            admission=Admission(rejected=kept.id, rejected_at=kept.at, actor=_actor(key)),
            claims=(own, *sender.claims_of(source, kept.arrived, found)),
        )

    async def _kept(self, request: web.Request, key: RegistryObject) -> _Kept:
        app = await self._directory.fresh_application(key.org, request.match_info["app"])
        if app is None:
            raise no_application()
        try:
            identity = ids.decode(Prefix.REJECTED, request.match_info["rejected"])
        except BadIdError:
            raise _not_found() from None
        try:
            row = await self._pool.fetchrow(
                """
                SELECT id, source, headers, body, size, at, message FROM hookledger.rejected
                WHERE id = $1 AND org = $2 AND app = $3
                """,
                identity,
                key.org,
                app.id,
            )
        except (*CONNECTION_ERRORS, asyncpg.PostgresError) as error:
            raise UnavailableError(str(error) or type(error).__name__) from error
        if row is None:
            raise _not_found()
        if row["source"] is None:
            raise ApiError(409, "it came over the broker: `hookledger dead-letter redrive` sends it again")
        if row["size"] != len(row["body"]):
            raise ApiError(409, f"only {len(row['body'])} of its {row['size']} bytes came in")
        await self._directory.refresh()  # the secret was mended a moment ago
        headers: dict[str, Sequence[str]] = orjson.loads(row["headers"])
        target = headers.pop(":path", ["/"])[0]
        return _Kept(
            id=row["id"],
            source=self._directory.known_source(row["source"]),
            at=row["at"],
            message=row["message"],
            arrived=Request(headers=headers, body=row["body"], target=target),
        )

    async def _record(self, kept: _Kept, key: RegistryObject, said: dict[str, Any]) -> None:
        assert kept.source.app is not None, "a source belongs to an application"
        try:
            async with self._pool.acquire() as connection:
                await record_act(
                    connection,
                    RejectedFact.REVERIFIED,
                    rejected=kept.id,
                    org=kept.source.org,
                    app=kept.source.app,
                    actor=_actor(key),
                    said=said,
                )
        except (*CONNECTION_ERRORS, asyncpg.PostgresError) as error:
            raise UnavailableError(str(error) or type(error).__name__) from error


def _admitted(kept: _Kept, message: UUID, *, repeated: bool) -> web.Response:
    body = {"id": ids.encode(Prefix.MESSAGE, message), "rejectedAt": kept.at}
    return json_response(body, status=202, headers={REPLAYED: "true"} if repeated else None)


def _actor(key: RegistryObject) -> str:
    return f"key:{key.id}"


def _not_found() -> ApiError:
    return ApiError(404, "there is no such rejected request")
