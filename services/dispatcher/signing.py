"""The signed form of a message for one attempt, after the endpoint's profile."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import assert_never

from libs.common.contracts import strictjson
from libs.common.domain.endpoint import Profile, SigningKey
from libs.common.domain.ids import Prefix, encode
from libs.common.domain.message import JSON
from libs.common.domain.signatures import standard, xwebhook
from services.dispatcher.flight import Flight


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedRequest:
    """Headers and body of a POST. The body is the same on each attempt; timestamp and signature are fresh."""

    headers: dict[str, str]
    body: bytes

    def beside(self, custom: Sequence[tuple[str, str]]) -> "SignedRequest":
        """This request with an endpoint's own headers, which may replace the content type and nothing else."""
        names = {name.lower() for name, _ in custom}
        ours = {name: value for name, value in self.headers.items() if name.lower() not in names & {"content-type"}}
        return replace(self, headers={**dict(custom), **ours})


class NoSigningKeyError(Exception):
    """None of the endpoint's secrets can be opened or used."""


def sign(flight: Flight, now: datetime) -> SignedRequest:
    """The request of an attempt.

    Raises:
        NoSigningKeyError: see there.
    """
    keys = flight.endpoint.signing_keys(now)
    if not keys:
        raise NoSigningKeyError
    match flight.endpoint.profile:
        case Profile.STANDARD:
            signed = _standard(flight, keys, now)
        case Profile.X_WEBHOOK:
            signed = _x_webhook(flight, keys[0])
        case profile:
            assert_never(profile)
    return signed.beside(flight.endpoint.headers)


def _standard(flight: Flight, keys: tuple[SigningKey, ...], now: datetime) -> SignedRequest:
    message = flight.message
    try:
        secrets = [standard.parse_secret(key.secret) for key in keys]
    except standard.InvalidSecretError as error:
        raise NoSigningKeyError from error
    headers = standard.headers(
        secrets, message_id=encode(Prefix.MESSAGE, message.id), timestamp=int(now.timestamp()), body=message.body
    )
    if flight.endpoint.compat_headers:
        # The same id, time and signature under the names that libraries from before the standard look for.
        headers |= {f"svix-{name.removeprefix('webhook-')}": value for name, value in headers.items()}
    return SignedRequest(headers={"Content-Type": message.content_type, **headers}, body=message.body)


def _x_webhook(flight: Flight, key: SigningKey) -> SignedRequest:
    message = flight.message
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
