"""The providers whose webhooks a source can receive, as one table: adding a provider is adding a row.

A request is read in this order, and each step may refuse it: `verify` the raw bytes, `extract_document`, parse the
JSON (elsewhere: this module never sees unverified structure), `identify`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from http import HTTPStatus
from typing import Final, Protocol
from urllib.parse import parse_qsl

from libs.common.domain.signatures import github, standard, stripe
from libs.common.domain.signatures.rules import Headers
from libs.common.domain.signatures.verdict import Verdict

_MAX_SECRET_CHARACTERS: Final = 256

_JSON: Final = "application/json"
_FORM: Final = "application/x-www-form-urlencoded"
_MAX_FORM_FIELDS: Final = 16

_EVENT_TYPE: Final = re.compile(r"[a-zA-Z0-9\-_.]{1,256}")
_EVENT_ID: Final = re.compile(r"[!-~]{1,256}")


class Provider(StrEnum):
    """Who sends to a source; the values are those of the API."""

    STRIPE = "stripe"
    GITHUB = "github"
    STANDARD_WEBHOOKS = "standard-webhooks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a verified request is about, in its provider's own words.

    `event_id` is what the provider repeats when it sends the same event again; None where it sent none, and then a
    repetition cannot be recognised.
    """

    event_type: str
    event_id: str | None


class UnreadableReason(StrEnum):
    """Which part of a verified request cannot be read."""

    CONTENT_TYPE = "content-type"
    FORM = "form"
    IDENTITY = "identity"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """The signature was right and the content is not what this provider sends."""

    reason: UnreadableReason
    detail: str


class Verify(Protocol):
    """How one provider's signatures are judged."""

    def __call__(self, headers: Headers, body: bytes, /, *, secrets: Sequence[str], now: datetime) -> Verdict:
        """Whether one of `secrets` (texts, as `check_secret` passed them) signed the raw `body`; never raises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """All that differs between providers.

    Attributes:
        verify: judges the signature of the raw body.
        identify: finds event type and id in the headers and the parsed document.
        check_secret: what is wrong with a secret at registration, without repeating it, or None.
        form_field: the field that holds the document, where the provider may send a form instead of JSON.
        success_status: what the provider expects in answer.
    """

    verify: Verify
    identify: Callable[[Headers, object], Identity | Unreadable]
    check_secret: Callable[[str], str | None]
    form_field: str | None = None
    success_status: HTTPStatus = HTTPStatus.ACCEPTED

    def extract_document(self, headers: Headers, body: bytes) -> bytes | Unreadable:
        """The JSON document's bytes: the body itself, or the field of a form that holds it."""
        values = headers.get("content-type", ())
        media_type = values[0].partition(";")[0].strip().lower() if len(values) == 1 else None
        if media_type == _JSON:
            return body
        if media_type == _FORM and self.form_field is not None:
            return _form_field(body, self.form_field)
        accepted = _JSON if self.form_field is None else f"{_JSON} or {_FORM}"
        return Unreadable(reason=UnreadableReason.CONTENT_TYPE, detail=f"the content type is not {accepted}")


def _form_field(body: bytes, name: str) -> bytes | Unreadable:
    try:
        fields = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FORM_FIELDS)
    except ValueError:  # not UTF-8, or more fields than any provider sends
        return Unreadable(reason=UnreadableReason.FORM, detail="the body is not a form")
    values = [value for key, value in fields if key == name]
    if len(values) != 1:
        return Unreadable(reason=UnreadableReason.FORM, detail=f"the form does not hold exactly one {name} field")
    return values[0].encode()


def _verify_stripe(headers: Headers, body: bytes, *, secrets: Sequence[str], now: datetime) -> Verdict:
    return stripe.verify(headers, body, secrets=_keys(secrets), now=now)


def _verify_github(headers: Headers, body: bytes, *, secrets: Sequence[str], now: datetime) -> Verdict:
    del now  # GitHub signs no time
    return github.verify(headers, body, secrets=_keys(secrets))


def _verify_standard(headers: Headers, body: bytes, *, secrets: Sequence[str], now: datetime) -> Verdict:
    keys = [standard.parse_secret(secret) for secret in secrets if _check_standard_secret(secret) is None]
    return standard.verify(headers, body, secrets=keys, now=now)


def _keys(secrets: Sequence[str]) -> list[bytes]:
    # surrogatepass: a text that is not Unicode cannot be registered, and must not make verification raise either.
    return [secret.encode("utf-8", "surrogatepass") for secret in secrets]


def _identify_stripe(headers: Headers, document: object) -> Identity | Unreadable:
    # https://docs.stripe.com/api/events/object
    del headers
    return _identity(_field(document, "type"), _field(document, "id"))


def _identify_github(headers: Headers, document: object) -> Identity | Unreadable:
    # https://docs.github.com/en/webhooks/webhook-events-and-payloads#delivery-headers
    del document
    return _identity(_header(headers, "x-github-event"), _header(headers, "x-github-delivery"))


def _identify_standard(headers: Headers, document: object) -> Identity | Unreadable:
    # Standard Webhooks, "Payload structure": the type is in the body; "Webhook headers": the id is the dedupe key.
    return _identity(_field(document, "type"), _header(headers, "webhook-id"))


def _field(document: object, name: str) -> object:
    return document.get(name) if isinstance(document, Mapping) else None


def _header(headers: Headers, name: str) -> object:
    # A repeated header is handed on whole, so that it is refused as no text.
    values = headers.get(name) or (None,)
    return values[0] if len(values) == 1 else values


def _identity(event_type: object, event_id: object) -> Identity | Unreadable:
    if not (isinstance(event_type, str) and _EVENT_TYPE.fullmatch(event_type)):
        return Unreadable(
            reason=UnreadableReason.IDENTITY,
            detail="the event type is not 1 to 256 letters, digits, full stops, hyphens or underscores",
        )
    if event_id is None:
        return Identity(event_type=event_type, event_id=None)
    if not (isinstance(event_id, str) and _EVENT_ID.fullmatch(event_id)):
        return Unreadable(
            reason=UnreadableReason.IDENTITY, detail="the event id is not 1 to 256 printable ASCII characters"
        )
    return Identity(event_type=event_type, event_id=event_id)


def _check_github_secret(text: str) -> str | None:
    if not 1 <= len(text) <= _MAX_SECRET_CHARACTERS:
        return f"a secret is 1 to {_MAX_SECRET_CHARACTERS} characters"
    if text != text.strip() or not text.isprintable():
        return "a secret neither begins nor ends with white space and holds no control characters"
    return None


def _check_stripe_secret(text: str) -> str | None:
    # The likeliest slip, and a dangerous one: the account's API key pasted in place of the endpoint's secret.
    if text.startswith(("sk_", "rk_", "pk_")):
        return "this is an API key: the signing secret of a Stripe endpoint begins with whsec_"
    return _check_github_secret(text)


def _check_standard_secret(text: str) -> str | None:
    try:
        standard.parse_secret(text)
    except standard.InvalidSecretError as error:
        return str(error)
    return None


SCHEMES: Final[Mapping[Provider, Scheme]] = {
    Provider.STRIPE: Scheme(verify=_verify_stripe, identify=_identify_stripe, check_secret=_check_stripe_secret),
    Provider.GITHUB: Scheme(
        verify=_verify_github, identify=_identify_github, check_secret=_check_github_secret, form_field="payload"
    ),
    Provider.STANDARD_WEBHOOKS: Scheme(
        verify=_verify_standard, identify=_identify_standard, check_secret=_check_standard_secret
    ),
}
