"""Any sender that signs with an HMAC: header, algorithm, encoding, prefix and signed text are the source's to say."""

import base64
import hmac
import re
from dataclasses import dataclass
from typing import Final

from libs.common.domain.providers.custom import Identify, identity_headers, verification_of, wrong
from libs.common.domain.providers.reading import check_text
from libs.common.domain.providers.scheme import Request, Scheme, Trust, by_name
from libs.common.domain.providers.settings import Encoding, Settings, Verification
from libs.common.domain.signatures.rules import TIMESTAMP, any_equal, only_value, refuse_age
from libs.common.domain.signatures.verdict import Refused, Verdict, Verified, malformed, mismatch

_MAX_TEMPLATE: Final = 256
_PLACEHOLDER: Final = re.compile(r"\{([a-z]+)\}")
_BODY: Final = "body"
_TIMESTAMP: Final = "timestamp"
_ID: Final = "id"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verify:
    """As `Scheme.verify`. `template` alternates text and names of placeholders, and begins and ends with text."""

    verification: Verification
    header: str
    template: tuple[str, ...]

    def __call__(self, request: Request, trust: Trust) -> Verdict:
        signature = only_value(request.headers, self.header)
        if isinstance(signature, Refused):
            return signature
        if not signature.startswith(self.verification.prefix):
            return malformed(f"the {self.header} does not begin with the prefix")
        parts = {_BODY: request.body}
        for name, header in _headers(self.verification).items():
            value = only_value(request.headers, header)
            if isinstance(value, Refused):
                return value
            parts[name] = value.encode()
        timestamp = parts.get(_TIMESTAMP, b"0").decode()
        if not TIMESTAMP.fullmatch(timestamp):
            return malformed("the timestamp is not whole Unix seconds")
        signed = b"".join(parts[text] if place % 2 else text.encode() for place, text in enumerate(self.template))
        expected = [self._encoded(hmac.digest(key, signed, self.verification.algorithm)) for key in trust.keys]
        if not any_equal([signature.removeprefix(self.verification.prefix).encode()], expected):
            return mismatch("the signature is not by a secret of this source")
        if _TIMESTAMP not in parts:
            return Verified()
        return refuse_age(int(timestamp), now=trust.now, tolerance=self.verification.tolerance) or Verified()

    def _encoded(self, mac: bytes) -> bytes:
        return base64.b64encode(mac) if self.verification.encoding is Encoding.BASE64 else mac.hex().encode()


def _headers(verification: Verification) -> dict[str, str]:
    """The headers whose values are signed, by placeholder."""
    found = {}
    if verification.timestamp_header is not None:
        found[_TIMESTAMP] = verification.timestamp_header.lower()
    if f"{{{_ID}}}" in verification.template and verification.event_id_header is not None:
        found[_ID] = verification.event_id_header.lower()
    return found


def _parse_template(verification: Verification) -> tuple[str, ...]:
    text = verification.template
    if len(text) > _MAX_TEMPLATE:
        raise wrong("template", f"it has at most {_MAX_TEMPLATE} characters")
    parts = _PLACEHOLDER.split(text)
    names = parts[1::2]
    if any(brace in literal for literal in parts[::2] for brace in "{}") or not set(names) <= {_BODY, _TIMESTAMP, _ID}:
        raise wrong("template", "its placeholders are {body}, {timestamp} and {id}")
    if len(names) != len(set(names)) or _BODY not in names:
        raise wrong("template", "it holds {body} once, and no other placeholder twice")
    # A time that is not signed is whatever a replay says it is.
    if (_TIMESTAMP in names) != (verification.timestamp_header is not None):
        raise wrong("template", "it holds {timestamp} if, and only if, there is a timestampHeader")
    if _ID in names and verification.event_id_header is None:
        raise wrong("template", "{id} is the value of the eventIdHeader, and there is none")
    return tuple(parts)


def scheme(settings: Settings) -> Scheme:
    """The scheme that the source describes.

    Raises:
        SettingsError: what it says cannot be followed.
    """
    verification = verification_of(settings, unused=frozenset())
    if verification.header is None:
        raise wrong("header", "say which header carries the signature")
    header = verification.header.lower()
    template = _parse_template(verification)
    return Scheme(
        verify=_Verify(verification=verification, header=header, template=template),
        identify=Identify(verification),
        check_secret=check_text,
        form=by_name,
        challenge_parameter=verification.challenge_parameter,
        evidence=identity_headers(verification) | {header, *_headers(verification).values()},
    )
