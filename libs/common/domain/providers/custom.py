"""Senders that no provider's document describes: what a source says of them is all that is known."""

import re
from dataclasses import dataclass
from typing import Final

from libs.common.domain.providers.reading import as_name, field, header, identity
from libs.common.domain.providers.scheme import Challenge, Identity, Unreadable
from libs.common.domain.providers.settings import Settings, SettingsError, Verification
from libs.common.domain.signatures.rules import Headers

_PLACE: Final = "verification"
# RFC 9110, section 5.6.2.
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_PREFIX: Final = re.compile(r"[ -~]{0,64}")
_FIELD: Final = re.compile(r"[^.\x00]{1,64}(?:\.[^.\x00]{1,64}){0,7}")
_EVENT_TYPE: Final = re.compile(r"[a-zA-Z0-9\-_.]{1,256}")
_PARAMETER: Final = re.compile(r"[!-~]{1,64}")
_DEFAULT_TYPE_FIELD: Final = "type"

_HEADERS: Final = ("header", "timestamp_header", "event_type_header", "event_id_header")
_TAKEN: Final = re.compile(
    r"host|date|content-.*|transfer-encoding|connection|cookie|user-agent|x-request-id|x-hookledger-.*"
)
"""Headers that mean something else already, some of which are kept in the open when a request is rejected."""
_AUTHORIZING: Final = frozenset({"authorization", "proxy-authorization", "x-gitlab-token"})
"""Headers that hold secrets, so that no identity can stand in them."""

_SHAPES: Final = {
    "header": (_HEADER_NAME, "the name of a header"),
    "timestamp_header": (_HEADER_NAME, "the name of a header"),
    "event_type_header": (_HEADER_NAME, "the name of a header"),
    "event_id_header": (_HEADER_NAME, "the name of a header"),
    "prefix": (_PREFIX, "at most 64 printable ASCII characters"),
    "event_type": (_EVENT_TYPE, "1 to 256 letters, digits, full stops, hyphens or underscores"),
    "event_type_field": (_FIELD, "a path of at most 8 names with full stops between them, such as event.type"),
    "event_id_field": (_FIELD, "a path of at most 8 names with full stops between them, such as event.id"),
    "challenge_parameter": (_PARAMETER, "the name of a query parameter, such as hub.challenge"),
}


def wrong(name: str, message: str) -> SettingsError:
    """What is wrong with one setting of the verification."""
    return SettingsError((_PLACE, name), message)


def verification_of(settings: Settings, *, unused: frozenset[str]) -> Verification:
    """The verification of a source whose sender needs one.

    Args:
        settings: the source's.
        unused: names of settings that mean nothing for this sender.

    Raises:
        SettingsError: there is none, it contradicts itself, or says what would not be heeded.
    """
    if settings.public_url is not None:
        raise SettingsError(("public_url",), "the URL is not signed here: leave it out")
    given = Verification() if settings.verification is None else settings.verification
    default = Verification()
    for name in sorted(unused):
        if getattr(given, name) != getattr(default, name):
            raise wrong(name, "it means nothing for this provider: leave it out")
    for name, (shape, description) in _SHAPES.items():
        value = getattr(given, name)
        if value is not None and not shape.fullmatch(value):
            raise wrong(name, f"it is {description}")
    for name in _HEADERS:
        header_name = (getattr(given, name) or "").lower()
        if _TAKEN.fullmatch(header_name) or (name != "header" and header_name in _AUTHORIZING):
            raise wrong(name, "this header means something else already")
    for names in (("event_type", "event_type_header", "event_type_field"), ("event_id_header", "event_id_field")):
        said = [name for name in names if getattr(given, name) is not None]
        if len(said) > 1:
            raise wrong(said[1], f"beside {said[0]} it would not be heeded: give one of them")
    return given


@dataclass(frozen=True, slots=True)
class Identify:
    """Finds event type and id where the verification says that they are."""

    verification: Verification

    def __call__(self, headers: Headers, document: object) -> Identity | Challenge | Unreadable:
        """As `Scheme.identify`."""
        at = self.verification
        event_type: object = at.event_type
        if event_type is None and at.event_type_header is not None:
            event_type = header(headers, at.event_type_header.lower())
        elif event_type is None:
            event_type = field(document, at.event_type_field or _DEFAULT_TYPE_FIELD)
        event_id: object = None
        if at.event_id_header is not None:
            event_id = header(headers, at.event_id_header.lower())
        elif at.event_id_field is not None:
            event_id = field(document, at.event_id_field)
        if isinstance(event_id, int) and not isinstance(event_id, bool) and event_id.bit_length() <= _LONGEST_NUMBER:
            event_id = str(event_id)
        return identity(as_name(event_type), event_id)


_LONGEST_NUMBER: Final = 512
"""Bits of a number that may be an event id: beyond, writing it out costs too much."""


def identity_headers(verification: Verification) -> frozenset[str]:
    """Headers that tell the identity."""
    names = (verification.event_type_header, verification.event_id_header)
    return frozenset(name.lower() for name in names if name is not None)
