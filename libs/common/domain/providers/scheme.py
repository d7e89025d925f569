"""All that differs between providers, as one type."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from http import HTTPStatus
from typing import Final, TypeAlias
from urllib.parse import parse_qsl

from libs.common.domain.signatures.rules import Headers
from libs.common.domain.signatures.verdict import Verdict

JSON: Final = "application/json"
FORM: Final = "application/x-www-form-urlencoded"
MAX_FORM_FIELDS: Final = 256

VerifyEd25519: TypeAlias = Callable[[bytes, bytes, bytes], bool]
"""Whether the public key (32 bytes) made the signature of the data; never raises.

Handed in, since the standard library has no ed25519.
"""

Fields: TypeAlias = Sequence[tuple[str, str]]
"""A form's fields in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as its signature sees it. `target` is path and query, as the request line has them."""

    headers: Headers
    body: bytes = field(default=b"", repr=False)
    target: str = "/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """By what a request is judged: the source's secrets in force, as `check_secret` passed them, and the time."""

    secrets: Sequence[str] = field(repr=False)
    now: datetime
    ed25519: VerifyEd25519

    @property
    def keys(self) -> list[bytes]:
        """The secrets that are keys as they are written; an empty one signs nothing."""
        # surrogatepass: a text that is not Unicode cannot be registered, and must not make verification raise either.
        return [secret.encode("utf-8", "surrogatepass") for secret in self.secrets if secret]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a verified request is about, in its provider's own words.

    Attributes:
        event_type: the name that endpoints subscribe to.
        event_id: what the provider repeats when it sends the same event again; None where it sent none, and then a
            repetition cannot be recognised.
        occurred_at: when it happened, where the provider says so.
        bare_answer: the sender takes the body of an answer for an instruction, so there must be none.
    """

    event_type: str
    event_id: str | None
    occurred_at: datetime | None = None
    bare_answer: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """Not an event: the sender asks whether its URL is meant for it, and `answer` says so."""

    answer: str


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """All that differs between providers.

    Attributes:
        verify: whether the raw request is believed; never raises.
        identify: finds event type and id in the headers and the document.
        check_secret: what is wrong with a secret at registration, without repeating it, or None.
        form: where the provider may send a form instead of JSON, the JSON document in it, or the form as a document.
        success_status: what the provider expects in answer.
        challenge_parameter: of the query of a GET, whose value is to be given back.
        evidence: headers (lower case; `:path` for the request's target) without which the request cannot be judged
            again. None of them is a secret.
        generates: a secret may be made here, where the sender takes one instead of giving one.
    """

    verify: Callable[[Request, Trust], Verdict]
    identify: Callable[[Headers, object], Identity | Challenge | Unreadable]
    check_secret: Callable[[str], str | None]
    form: Callable[[Fields], bytes | Mapping[str, object] | Unreadable] | None = None
    success_status: HTTPStatus = HTTPStatus.ACCEPTED
    challenge_parameter: str | None = None
    evidence: frozenset[str] = frozenset()
    generates: bool = False

    def extract_document(self, headers: Headers, body: bytes) -> bytes | Mapping[str, object] | Unreadable:
        """The JSON document's bytes (the body itself, or what a form holds), or a form's fields by name."""
        media_type = media_type_of(headers)
        if media_type == JSON:
            return body
        if media_type == FORM and self.form is not None:
            fields = parse_form(body)
            return self.form(fields) if fields is not None else _no_form("the body is not a form")
        accepted = JSON if self.form is None else f"{JSON} or {FORM}"
        return Unreadable(reason=UnreadableReason.CONTENT_TYPE, detail=f"the content type is not {accepted}")


def media_type_of(headers: Headers) -> str | None:
    """The one content type without its parameters, in lower case."""
    values = headers.get("content-type", ())
    return values[0].partition(";")[0].strip().lower() if len(values) == 1 else None


def parse_form(body: bytes) -> Fields | None:
    """The fields of a form, or None where the body is no UTF-8 or holds more fields than any provider sends."""
    try:
        return parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_FORM_FIELDS)
    except ValueError:
        return None


def by_name(fields: Fields) -> Mapping[str, object]:
    """A form as a document: each field's text, or the list of them where it is repeated."""
    found: dict[str, list[str]] = {}
    for name, value in fields:
        found.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def only_field(fields: Fields, name: str) -> bytes | Unreadable:
    """The document in the form's one field `name`."""
    values = [value for key, value in fields if key == name]
    if len(values) != 1:
        return _no_form(f"the form does not hold exactly one {name} field")
    return values[0].encode()


def _no_form(detail: str) -> Unreadable:
    return Unreadable(reason=UnreadableReason.FORM, detail=detail)
