"""Application tokens: what lets an application's user into the portal, and into the API as far as the portal goes."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Final, cast
from uuid import UUID

import msgspec
from msgspec import Meta

from libs.common.contracts.credentials import KEY_BYTES, TOKEN_PREFIX, format_key, hash_key
from libs.common.contracts.operations import Capability
from libs.common.contracts.registry import Kind
from libs.common.postgres.pool import Pool
from libs.common.postgres.registry import Changes, FactData, TokenFact
from libs.common.runtime.clock import new_id, now, random_bytes
from libs.common.runtime.http import invalid
from services.registry import objects
from services.registry.answers import NO_CONTENT, Answer, ok
from services.registry.applications import ApplicationIn, document_of
from services.registry.authentication import AppToken
from services.registry.calls import Call
from services.registry.fields import In, Out, Uid
from services.registry.parsing import not_found

WEEK_SECONDS: Final = 7 * 24 * 3600
_EVERYTHING: Final = frozenset(Capability)
_READING: Final = frozenset({Capability.VIEW})

Expiry = Annotated[int, Meta(ge=3600, le=WEEK_SECONDS)]
Delay = Annotated[int, Meta(ge=0, le=WEEK_SECONDS)]
FeatureFlags = Annotated[tuple[Uid, ...], Meta(max_length=100)]
Capabilities = Annotated[tuple[Capability, ...], Meta(min_length=1, max_length=len(Capability))]


class AppPortalAccessIn(In, frozen=True):
    """What the token is to allow: everything, unless it says otherwise. `expiry` in seconds."""

    application: ApplicationIn | None = None
    feature_flags: FeatureFlags | None = None
    expiry: Expiry | None = None
    read_only: bool | None = None
    capabilities: Capabilities | None = None


class ApplicationTokenExpireIn(In, frozen=True):
    """In how many seconds the tokens end."""

    expiry: Delay | None = None


class AppPortalAccessOut(Out):
    """A token, and the page that it opens. It stands in the fragment, which browsers send to nobody."""

    url: str
    token: str


async def grant(call: Call, changes: Changes) -> Answer:
    """Let an application's user into the portal.

    The token reaches that application and nothing else, for a week unless it is told.
    """
    body = call.content(AppPortalAccessIn)
    app = await _application(call, changes, body.application)
    text = format_key(random_bytes(KEY_BYTES), TOKEN_PREFIX)
    await _issue(call, changes, app, body, text)
    return ok(AppPortalAccessOut(url=f"{_base_url(call)}/portal/#token={text}", token=text))


async def expire_all(call: Call, changes: Changes) -> Answer:
    """End the tokens of an application, at once unless it is told."""
    body = call.content(ApplicationTokenExpireIn)
    app = await objects.application(call)
    # By the database's own clock, as tokens are judged: an end of now is in force with this answer.
    ended = await call.connection.fetch(
        """
        UPDATE hookledger.app_token SET expires_at = least(expires_at, clock_timestamp() + $3::interval)
        WHERE org = $1 AND app = $2 AND expires_at > clock_timestamp() RETURNING id
        """,
        call.caller.org,
        app.id,
        timedelta(seconds=body.expiry or 0),
    )
    data = {"tokens": len(ended), "withinSeconds": body.expiry or 0}
    await _record(changes, TokenFact.ALL_REVOKED, stream=new_id(), version=1, org=app.org, app=app.id, data=data)
    return NO_CONTENT


async def logout(call: Call, changes: Changes) -> Answer:
    """End the token that calls."""
    token = cast("AppToken", call.caller)
    await call.connection.execute("DELETE FROM hookledger.app_token WHERE id = $1 AND org = $2", token.id, token.org)
    await _record(changes, TokenFact.REVOKED, stream=token.id, version=2, org=token.org, app=token.app, data={})
    return NO_CONTENT


async def forget_expired(pool: Pool) -> None:
    """Remove tokens that have expired."""
    await pool.execute("DELETE FROM hookledger.app_token WHERE expires_at < clock_timestamp()")


async def _application(call: Call, changes: Changes, body: ApplicationIn | None) -> UUID:
    """The application in the path, created if it is new and the body brings it along."""
    path = call.named("app")
    found = await objects.find(call, Kind.APPLICATION, path)
    if found is not None:
        return found.id
    uid = objects.new_uid(Kind.APPLICATION, path)
    if body is None or uid is None:
        raise not_found("application")
    if body.uid not in {None, uid}:
        raise invalid(["body", "application", "uid"], "it is not the one in the path")
    created = await changes.create(Kind.APPLICATION, new_id(), document_of(body), org=call.caller.org, uid=uid)
    return created.id


async def _issue(call: Call, changes: Changes, app: UUID, body: AppPortalAccessIn, text: str) -> None:
    identity, at = new_id(), now()
    expires_at = at + timedelta(seconds=body.expiry or WEEK_SECONDS)
    allowed = _READING if body.read_only else _EVERYTHING
    capabilities = sorted(allowed if body.capabilities is None else allowed & set(body.capabilities))
    flags = sorted(set(body.feature_flags or ()))
    await call.connection.execute(
        """
        INSERT INTO hookledger.app_token (id, hash, org, app, capabilities, feature_flags, created_at, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        """,
        identity,
        bytes.fromhex(hash_key(text)),
        call.caller.org,
        app,
        capabilities,
        flags,
        at,
        expires_at,
    )
    data = {"capabilities": capabilities, "featureFlags": flags, "expiresAt": expires_at}
    await _record(changes, TokenFact.ISSUED, stream=identity, version=1, org=call.caller.org, app=app, data=data)


async def _record(
    changes: Changes,
    kind: TokenFact,
    *,
    stream: UUID,
    version: int,
    org: UUID,
    app: UUID,
    data: Mapping[str, object],
) -> None:
    document = FactData(document=msgspec.Raw(msgspec.json.encode(data)))
    await changes.record(kind, stream=stream, version=version, org=org, app=app, data=document)


def _base_url(call: Call) -> str:
    """How the caller reached us, unless the operator said how users do."""
    request = call.request
    scheme = request.headers.get("X-Forwarded-Proto", request.scheme)
    return call.registry.public_url or f"{scheme}://{request.headers.get('X-Forwarded-Host', request.host)}"
