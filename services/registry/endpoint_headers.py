"""An endpoint's own headers over HTTP. Values of sensitive ones are sealed as secrets are, and listed by name only."""

from collections.abc import Mapping
from typing import Annotated, cast

from msgspec import Meta
from msgspec.structs import replace

from libs.common.contracts.registry import EndpointDocument
from libs.common.domain import headers as rules
from libs.common.postgres.registry import Changes
from services.registry import secrets
from services.registry.answers import NO_CONTENT, Answer, ok
from services.registry.calls import Call
from services.registry.endpoints import change, endpoint
from services.registry.fields import In, Out
from services.registry.sealed_headers import with_headers
from services.registry.secrets import Sealer

Names = Annotated[tuple[str, ...], Meta(max_length=rules.MOST)]


class EndpointHeadersIn(In, frozen=True):
    """All headers. Beside those whose name says so, the ones named in `sensitive` hold a secret."""

    headers: dict[str, str]
    sensitive: Names = ()


class EndpointHeadersPatchIn(In, frozen=True):
    """Headers to set; null removes one."""

    headers: dict[str, str | None]
    sensitive: Names = ()


class EndpointHeadersOut(Out):
    """The headers, and the names of the sensitive ones."""

    headers: dict[str, str]
    sensitive: list[str]


async def get(call: Call) -> Answer:
    """Get the additional headers of an endpoint; sensitive ones by name only."""
    document = cast("EndpointDocument", (await endpoint(call)).document)
    return ok(EndpointHeadersOut(headers=document.headers, sensitive=sorted(document.sealed_headers)))


async def put(call: Call, changes: Changes) -> Answer:
    """Set the additional headers of an endpoint, in place of those that it has."""
    body = call.content(EndpointHeadersIn)
    return await _change(call, changes, body.headers, body.sensitive, keep=False)


async def patch(call: Call, changes: Changes) -> Answer:
    """Set or remove some of the additional headers of an endpoint."""
    body = call.content(EndpointHeadersPatchIn)
    return await _change(call, changes, body.headers, body.sensitive, keep=True)


async def _change(
    call: Call, changes: Changes, given: Mapping[str, str | None], sensitive: tuple[str, ...], *, keep: bool
) -> Answer:
    found = await endpoint(call)
    old = cast("EndpointDocument", found.document)
    named = {name.lower() for name in given}
    base = replace(
        old,
        headers={n: v for n, v in old.headers.items() if keep and n.lower() not in named},
        sealed_headers={n: v for n, v in old.sealed_headers.items() if keep and n.lower() not in named},
    )
    # What was sensitive stays so, whoever sets it.
    secret = {name.lower() for name in (*sensitive, *old.sealed_headers)}
    seal = Sealer(call.connection, call.registry.master_keys, owner=found.id, org=found.org)
    document = await with_headers(base, given, secret, seal)
    await change(changes, found, document, uid=found.uid)
    await secrets.erase(call.connection, found.id, keep=document.sealed)
    return NO_CONTENT
