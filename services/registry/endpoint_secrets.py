"""The secrets of endpoints over HTTP: reading where the organisation allows it, and rotation."""

import re
from datetime import timedelta
from typing import Final, cast

from msgspec.structs import replace

from libs.common.contracts.registry import EndpointDocument, SecretReveal
from libs.common.postgres.registry import Changes, Verb
from libs.common.runtime.http import ApiError
from services.registry import objects, secrets
from services.registry.answers import NO_CONTENT, Answer, ok
from services.registry.calls import Call
from services.registry.endpoints import change, endpoint
from services.registry.fields import In, Out

MOST_OLD_KEYS: Final = 10

_SDK: Final = re.compile(r"svix-libs/([0-9]{1,4})\.")
_SDK_READS_SECRET: Final = 2


class EndpointSecretRotateIn(In, frozen=True):
    """A secret of one's own, or the kind of a new one (else as before), and how long the old one goes on signing."""

    key: str | None = None
    secret_type: secrets.SecretType | None = None
    grace_period_seconds: secrets.GraceSeconds | None = None


class EndpointSecretOut(Out):
    """A secret in the open; of a pair of keys the public one, since nobody but us needs the other."""

    key: str


async def get(call: Call) -> Answer:
    """Get the secret of an endpoint, where the organisation's secrets may be read again."""
    found = await endpoint(call)
    newest = cast("EndpointDocument", found.document).keys[0]
    if newest.public_key is not None:
        return ok(EndpointSecretOut(key=newest.public_key))
    organisation = await objects.organisation(call)
    if organisation.secret_reveal is not SecretReveal.ALWAYS:
        raise ApiError(
            403, "an endpoint's secret is shown once, when it is created: rotate it, or pass one of your own"
        )
    return ok(EndpointSecretOut(key=await secrets.reveal(call.connection, call.registry.master_keys, newest.id)))


async def rotate(call: Call, changes: Changes) -> Answer:
    """Rotate the secret of an endpoint.

    204, as in the reference; 200 with the new secret for the SDKs since 2.0, which read it from the answer, and where
    secrets are shown once and this one was generated.
    """
    body = call.content(EndpointSecretRotateIn)
    found = await endpoint(call)
    organisation = await objects.organisation(call)
    document = cast("EndpointDocument", found.document)
    kind = body.secret_type
    if body.key is None and kind is None and document.keys[0].public_key is not None:
        kind = secrets.SecretType.ED25519
    text = secrets.for_endpoint(body.key, kind, ["body", "key"])
    seconds = secrets.DEFAULT_GRACE_SECONDS if body.grace_period_seconds is None else body.grace_period_seconds
    keys = await secrets.rotate(
        call.connection,
        call.registry.master_keys,
        text,
        owner=found.id,
        org=found.org,
        keys=document.keys,
        grace=timedelta(seconds=seconds),
        most_old=MOST_OLD_KEYS,
        others=tuple(document.sealed_headers.values()),
    )
    secrets.check_profile(document.profile, keys[0])
    await change(changes, found, replace(document, keys=keys), uid=found.uid, verb=Verb.SECRET_ROTATED)
    only_now = body.key is None and organisation.secret_reveal is SecretReveal.ONCE
    sdk = _SDK.match(call.request.headers.get("User-Agent", ""))
    if only_now or (sdk is not None and int(sdk[1]) >= _SDK_READS_SECRET):
        return ok(EndpointSecretOut(key=keys[0].public_key or text))
    return NO_CONTENT
