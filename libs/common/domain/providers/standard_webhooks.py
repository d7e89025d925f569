"""Senders after Standard Webhooks, Svix among them.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md ("Payload
structure", "Webhook headers", "Signature scheme"), https://docs.svix.com/receiving/verifying-payloads/how-manual
"""

from functools import partial
from typing import Final

from libs.common.domain.providers.reading import field, header, identity, rfc3339
from libs.common.domain.providers.scheme import Challenge, Identity, Request, Scheme, Trust, Unreadable
from libs.common.domain.signatures import standard
from libs.common.domain.signatures.rules import Headers
from libs.common.domain.signatures.verdict import Verdict


def verify(request: Request, trust: Trust) -> Verdict:
    """By the secrets (`v1`) and public keys (`v1a`) among the source's, passing over what is neither."""
    secrets, public_keys = [], []
    for text in trust.secrets:
        try:
            if standard.is_public_key(text):
                public_keys.append(partial(trust.ed25519, standard.parse_public_key(text)))
            else:
                secrets.append(standard.parse_secret(text))
        except standard.InvalidSecretError:
            continue
    return standard.verify(request.headers, request.body, secrets=secrets, public_keys=public_keys, now=trust.now)


def _identify(headers: Headers, document: object) -> Identity | Challenge | Unreadable:
    event_id = header(headers, standard.id_header(headers))
    return identity(field(document, "type"), event_id, occurred_at=rfc3339(field(document, "timestamp")))


def check_secret(text: str) -> str | None:
    """A secret or a public key of Standard Webhooks."""
    try:
        if standard.is_public_key(text):
            standard.parse_public_key(text)
        else:
            standard.parse_secret(text)
    except standard.InvalidSecretError as error:
        return str(error)
    return None


SCHEME: Final = Scheme(
    verify=verify, identify=_identify, check_secret=check_secret, evidence=standard.HEADERS, generates=True
)
