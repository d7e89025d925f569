"""The signed form of a message for one attempt, after the endpoint's profile."""

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Final, assert_never

from msgspec import Struct
from msgspec.structs import replace

from libs.common.contracts import strictjson
from libs.common.domain.endpoint import Profile, SigningKey
from libs.common.domain.ids import Prefix, encode
from libs.common.domain.message import JSON, Message
from libs.common.domain.signatures import standard, xwebhook
from libs.common.runtime import ed25519
from libs.common.runtime.expressions.evaluation import transform
from services.dispatcher.flight import Flight

_KEPT_KEYS: Final = 100_000
"""As many as targets: one for each endpoint that something is sent to."""


class SignedRequest(Struct, frozen=True, kw_only=True, gc=False):
    """Headers and body of a POST.

    The body is the same on each attempt with the same configuration; timestamp and signature are fresh.
    """

    headers: dict[str, str]
    body: bytes

    def beside(self, custom: Sequence[tuple[str, str]]) -> "SignedRequest":
        """This request with an endpoint's own headers, which may replace the content type and nothing else."""
        if not custom:
            return self
        names = {name.lower() for name, _ in custom}
        ours = {name: value for name, value in self.headers.items() if name.lower() not in names & {"content-type"}}
        return replace(self, headers={**dict(custom), **ours})


class NoSigningKeyError(Exception):
    """None of the endpoint's secrets can be opened or used."""


def sign(flight: Flight, now: datetime) -> SignedRequest:
    """The request of an attempt.

    Raises:
        NoSigningKeyError: see there.
        TransformationError: the endpoint's transformation has no result on the payload.
    """
    keys = flight.endpoint.signing_keys(now)
    if not keys:
        raise NoSigningKeyError
    message = flight.message
    if flight.endpoint.transformation is not None:
        message = replace(message, body=transform(flight.endpoint.transformation, message.body), content_type=JSON)
    match flight.endpoint.profile:
        case Profile.STANDARD:
            signed = _standard(message, flight, keys, now)
        case Profile.X_WEBHOOK:
            signed = _x_webhook(message, flight, keys)
        case profile:
            assert_never(profile)
    return signed.beside(flight.endpoint.headers)


def _standard(message: Message, flight: Flight, keys: tuple[SigningKey, ...], now: datetime) -> SignedRequest:
    try:
        secrets = [_signing_secret(key.secret) for key in keys]
    except standard.InvalidSecretError as error:
        raise NoSigningKeyError from error
    headers = standard.headers(
        secrets, message_id=encode(Prefix.MESSAGE, message.id), timestamp=int(now.timestamp()), body=message.body
    )
    if flight.endpoint.compat_headers:
        # The same id, time and signature under the names that libraries from before the standard look for.
        headers |= {f"svix-{name.removeprefix('webhook-')}": value for name, value in headers.items()}
    return SignedRequest(headers={"Content-Type": message.content_type, **headers}, body=message.body)


@lru_cache(_KEPT_KEYS)
def _signing_secret(text: str) -> bytes | standard.PrivateKey:
    if standard.is_private_key(text):
        seed, _ = standard.parse_private_key(text)
        return ed25519.signer(seed)
    return standard.parse_secret(text)


def _x_webhook(message: Message, flight: Flight, keys: tuple[SigningKey, ...]) -> SignedRequest:
    # A pair of keys is of no use to this form: who verifies it would need the private one.
    key = next((key for key in keys if not standard.is_private_key(key.secret)), None)
    if key is None:
        raise NoSigningKeyError
    body = xwebhook.wrap(
        message_id=encode(Prefix.MESSAGE, message.id),
        event_type=message.event_type,
        accepted_at=message.accepted_at,
        payload=message.body,
        content_type=message.content_type,
        is_json=strictjson.valid(message.body),
    )
    attempt = encode(Prefix.ATTEMPT, flight.started.attempt)
    headers = xwebhook.headers(key.secret, body=body, event_type=message.event_type, attempt_id=attempt)
    return SignedRequest(headers={"Content-Type": JSON, **headers}, body=body)
