"""What a source may say of its sender beside the secret."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from libs.common.domain.signatures.rules import TOLERANCE


class SettingsError(ValueError):
    """Settings do not fit their provider.

    Args:
        place: names of the setting at fault, from the outside in, as the dataclasses here have them.
        message: what to mend.
    """

    def __init__(self, place: tuple[str, ...], message: str) -> None:
        super().__init__(message)
        self.place = place


class Algorithm(StrEnum):
    """The hash of an HMAC; the values are `hashlib`'s names."""

    SHA1 = "sha1"
    SHA256 = "sha256"
    SHA512 = "sha512"


class Encoding(StrEnum):
    """How a signature is written: lower-case hex, or base64 with padding."""

    HEX = "hex"
    BASE64 = "base64"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """How a sender is recognised that no provider's document describes.

    Attributes:
        header: carries the signature or the token.
        prefix: stands before it there, such as `sha256=` or `Bearer `.
        algorithm: of the HMAC.
        encoding: of the HMAC.
        template: what is signed: text, `{body}` once, and `{timestamp}` and `{id}` where those headers are named.
        timestamp_header: carries Unix seconds, which then are signed.
        tolerance: how far they may be from now, in either direction.
        event_type: of everything that this sender sends.
        event_type_header: carries the event type.
        event_type_field: holds it in the document, as a path with full stops.
        event_id_header: carries what repetitions share.
        event_id_field: holds it in the document.
        challenge_parameter: of the query of a GET whose value is given back, by which some senders ask for consent.
    """

    header: str | None = None
    prefix: str = ""
    algorithm: Algorithm = Algorithm.SHA256
    encoding: Encoding = Encoding.HEX
    template: str = "{body}"
    timestamp_header: str | None = None
    tolerance: timedelta = TOLERANCE
    event_type: str | None = None
    event_type_header: str | None = None
    event_type_field: str | None = None
    event_id_header: str | None = None
    event_id_field: str | None = None
    challenge_parameter: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All that a source sets.

    Attributes:
        public_url: under which the sender reaches the root of this server: scheme, host, and what a proxy takes off
            the path. Only for providers that sign the URL.
        verification: only for senders that no provider's document describes.
    """

    public_url: str | None = None
    verification: Verification | None = None
