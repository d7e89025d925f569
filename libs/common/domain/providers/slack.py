"""Slack: events, interactions and slash commands.

Source: https://docs.slack.dev/authentication/verifying-requests-from-slack,
https://docs.slack.dev/reference/events/url_verification, https://docs.slack.dev/apis/events-api/
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from libs.common.domain.providers.reading import challenge, check_text, field, identity, unix_time
from libs.common.domain.providers.scheme import (
    Challenge,
    Fields,
    Identity,
    Request,
    Scheme,
    Trust,
    Unreadable,
    by_name,
    only_field,
)
from libs.common.domain.signatures.rules import (
    TIMESTAMP,
    TOLERANCE,
    Headers,
    any_equal,
    hmac_sha256,
    only_values,
    refuse_age,
)
from libs.common.domain.signatures.verdict import Refused, Verdict, Verified, malformed, mismatch

_HEADER: Final = "x-slack-signature"
_TIMESTAMP: Final = "x-slack-request-timestamp"
_SIGNATURE: Final = re.compile(r"v0=[0-9a-f]{64}")


def _verify(request: Request, trust: Trust) -> Verdict:
    """`v0=<hex>` over `v0:timestamp:body`."""
    values = only_values(request.headers, _TIMESTAMP, _HEADER)
    if isinstance(values, Refused):
        return values
    timestamp, signature = values
    if not TIMESTAMP.fullmatch(timestamp):
        return malformed(f"the {_TIMESTAMP} is not whole Unix seconds")
    if not _SIGNATURE.fullmatch(signature):
        return malformed(f"the {_HEADER} is not v0= and 64 lower-case hex digits")
    signed = f"v0:{timestamp}:".encode()
    expected = [b"v0=" + hmac_sha256(key, signed, request.body).hex().encode() for key in trust.keys]
    if not any_equal([signature.encode()], expected):
        return mismatch("the signature is not by a secret of this source")
    return refuse_age(int(timestamp), now=trust.now, tolerance=TOLERANCE) or Verified()


def _identify(headers: Headers, document: object) -> Identity | Challenge | Unreadable:
    """The inner event's type for events, the interaction's for interactions, and `slash_command`."""
    del headers
    kind = field(document, "type")
    if kind == "url_verification":
        return challenge(field(document, "challenge"))
    if kind == "event_callback":
        occurred_at = unix_time(field(document, "event_time"))
        return identity(field(document, "event.type"), field(document, "event_id"), occurred_at=occurred_at)
    if kind is None and field(document, "command") is not None:
        kind = "slash_command"
    # What a person waits for: the body of an answer would be shown to them.
    return identity(kind, None, bare_answer=True)


def _form(fields: Fields) -> bytes | Mapping[str, object] | Unreadable:
    """Interactions are JSON in a field, slash commands are fields."""
    return only_field(fields, "payload") if any(name == "payload" for name, _ in fields) else by_name(fields)


SCHEME: Final = Scheme(
    verify=_verify,
    identify=_identify,
    check_secret=check_text,
    form=_form,
    success_status=HTTPStatus.OK,
    evidence=frozenset({_HEADER, _TIMESTAMP}),
)
