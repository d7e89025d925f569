"""Any sender that sends a user and a password along.

Source: https://www.rfc-editor.org/rfc/rfc7617. Nothing is signed: whoever reads one request can send others.
"""

import base64
from typing import Final

from libs.common.domain.providers.custom import Identify, identity_headers, verification_of
from libs.common.domain.providers.reading import check_text
from libs.common.domain.providers.scheme import Request, Scheme, Trust, by_name
from libs.common.domain.providers.settings import Settings
from libs.common.domain.signatures.rules import any_equal, only_value
from libs.common.domain.signatures.verdict import Refused, Verdict, Verified, malformed, mismatch

_HEADER: Final = "authorization"
_UNUSED: Final = frozenset({"header", "prefix", "algorithm", "encoding", "template", "timestamp_header", "tolerance"})


def _verify(request: Request, trust: Trust) -> Verdict:
    """`Basic <base64 of user:password>`; the secret is `user:password`."""
    header = only_value(request.headers, _HEADER)
    if isinstance(header, Refused):
        return header
    scheme, _, credentials = header.partition(" ")
    if scheme.lower() != "basic":
        return malformed("the authorization is not Basic")
    # What is compared is the base64, of which there is one for each text.
    if not any_equal([credentials.encode()], [base64.b64encode(key) for key in trust.keys]):
        return mismatch("the authorization is not a secret of this source")
    return Verified()


def _check_secret(text: str) -> str | None:
    user, _, password = text.partition(":")
    return check_text(text) or (None if user and password else "the secret is the user, a colon and the password")


def scheme(settings: Settings) -> Scheme:
    """The scheme that the source describes.

    Raises:
        SettingsError: what it says cannot be followed.
    """
    verification = verification_of(settings, unused=_UNUSED)
    return Scheme(
        verify=_verify,
        identify=Identify(verification),
        check_secret=_check_secret,
        form=by_name,
        challenge_parameter=verification.challenge_parameter,
        evidence=identity_headers(verification) - {_HEADER},
    )
