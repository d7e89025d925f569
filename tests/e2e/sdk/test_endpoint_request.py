"""What goes with the requests to an endpoint: the signature by its secret, its headers, its transformation."""

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from svix.api import (
    EndpointHeadersIn,
    EndpointHeadersPatchIn,
    MessageIn,
    SvixAsync,
)
from svix.api.endpoint import (
    EndpointRotateSecretOptions,
)
from svix.exceptions import HttpError
from svix.models import (
    EndpointSecretRotateIn,
    EndpointTransformationPatch,
)

from tests.e2e.sdk.reference import operation
from tests.e2e.sdk.refusals import invalid
from tests.support.client import Client
from tests.support.receiver import Received, Receiver

OWN = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"


def signed(request: Received, secret: str) -> bool:
    """Whether the request carries a signature by that secret."""
    try:
        Webhook(secret).verify(request.body, dict(request.headers))
    except WebhookVerificationError:
        return False
    return True


# Secrets


@operation("v1.endpoint.get-secret")
@operation("v1.endpoint.rotate-secret")
async def test_a_rotated_secret_signs_beside_the_old_one_for_a_while(
    svix: SvixAsync, app: str, endpoint: str, receiver: Receiver
) -> None:
    old = (await svix.endpoint.get_secret(app, endpoint)).key
    rotated = await svix.endpoint.rotate_secret(app, endpoint, EndpointSecretRotateIn())
    new = (await svix.endpoint.get_secret(app, endpoint)).key
    assert old != new == rotated.key
    await svix.message.create(app, MessageIn(event_type="ping", payload={"a": 1}))
    [received] = await receiver.wait_for(1)
    assert [signed(received, secret) for secret in (old, new, OWN)] == [True, True, False]


@operation("v1.endpoint.rotate-secret")
async def test_without_a_grace_period_the_given_secret_signs_alone(
    svix: SvixAsync, app: str, endpoint: str, receiver: Receiver
) -> None:
    old = (await svix.endpoint.get_secret(app, endpoint)).key
    given = EndpointSecretRotateIn(key=OWN, grace_period_seconds=0)
    assert (await svix.endpoint.rotate_secret(app, endpoint, given)).key == OWN
    await svix.message.create(app, MessageIn(event_type="ping", payload={}))
    [received] = await receiver.wait_for(1)
    assert [signed(received, secret) for secret in (old, OWN)] == [False, True]


@operation("v1.endpoint.rotate-secret", "idempotency-key")
async def test_a_rotation_repeated_under_one_key_is_one(svix: SvixAsync, app: str, endpoint: str) -> None:
    under = EndpointRotateSecretOptions(idempotency_key="rotation-1")
    first = await svix.endpoint.rotate_secret(app, endpoint, EndpointSecretRotateIn(), under)
    assert await svix.endpoint.rotate_secret(app, endpoint, EndpointSecretRotateIn(), under) == first
    assert await svix.endpoint.get_secret(app, endpoint) == first


@operation("v1.endpoint.rotate-secret")
async def test_a_rotation_keeps_to_its_bounds(svix: SvixAsync, app: str, endpoint: str) -> None:
    for wrong, place in [
        (EndpointSecretRotateIn(key="whsec_short"), "key"),
        (EndpointSecretRotateIn(grace_period_seconds=7 * 24 * 3600 + 1), "gracePeriodSeconds"),
    ]:
        assert await invalid(svix.endpoint.rotate_secret(app, endpoint, wrong)) == [["body", place]]
    for _ in range(10):
        await svix.endpoint.rotate_secret(app, endpoint, EndpointSecretRotateIn())
    with pytest.raises(HttpError) as too_many:
        await svix.endpoint.rotate_secret(app, endpoint, EndpointSecretRotateIn())
    assert too_many.value.status_code == 400


# Headers


@operation("v1.endpoint.update-headers")
@operation("v1.endpoint.patch-headers")
@operation("v1.endpoint.get-headers")
async def test_headers_are_set_and_patched_and_go_with_each_attempt(
    svix: SvixAsync, app: str, endpoint: str, receiver: Receiver
) -> None:
    nothing = await svix.endpoint.get_headers(app, endpoint)
    assert (nothing.headers, nothing.sensitive) == ({}, [])
    await svix.endpoint.set_headers(app, endpoint, EndpointHeadersIn(headers={"X-Old": "0"}))
    given = {"X-A": "1", "Authorization": "Bearer swordfish"}
    await svix.endpoint.set_headers(app, endpoint, EndpointHeadersIn(headers=given))
    await svix.endpoint.patch_headers(app, endpoint, EndpointHeadersPatchIn(headers={"X-B": "2"}))
    found = await svix.endpoint.get_headers(app, endpoint)
    assert (found.headers, found.sensitive) == ({"X-A": "1", "X-B": "2"}, ["Authorization"])
    await svix.message.create(app, MessageIn(event_type="ping", payload={}))
    [received] = await receiver.wait_for(1)
    names = ("X-Old", "X-A", "X-B", "Authorization")
    assert [received.headers.get(name) for name in names] == [None, "1", "2", "Bearer swordfish"]


@operation("v1.endpoint.update-headers")
@operation("v1.endpoint.patch-headers")
async def test_headers_of_the_connection_and_the_signature_are_refused(
    svix: SvixAsync, app: str, endpoint: str
) -> None:
    for name in ("Host", "webhook-id", "svix-signature", "Cookie"):
        for asked in (
            svix.endpoint.set_headers(app, endpoint, EndpointHeadersIn(headers={name: "x"})),
            svix.endpoint.patch_headers(app, endpoint, EndpointHeadersPatchIn(headers={name: "x"})),
        ):
            [place] = await invalid(asked)
            assert place[:2] == ["body", "headers"]


# Transformations: jmespath in a field of our own, where the reference runs code


@operation("v1.endpoint.transformation-get")
@operation("v1.endpoint.patch-transformation")
async def test_a_transformation_is_read_and_switched_but_code_is_refused(
    svix: SvixAsync, client: Client, app: str, endpoint: str
) -> None:
    assert not (await svix.endpoint.transformation.get(app, endpoint)).enabled
    code = EndpointTransformationPatch(code="function handler(w) { return w }")
    assert await invalid(svix.endpoint.transformation.patch(app, endpoint, code)) == [["body", "code"]]
    await client.patch(f"/app/{app}/endpoint/{endpoint}/transformation", {"expression": "data"})
    assert (await svix.endpoint.transformation.get(app, endpoint)).enabled
    await svix.endpoint.transformation.patch(app, endpoint, EndpointTransformationPatch(enabled=False))
    assert not (await svix.endpoint.transformation.get(app, endpoint)).enabled
