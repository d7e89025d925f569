"""Any sender that sends a secret along, in a header of its own or as `Authorization: Bearer …`.

Nothing is signed: whoever reads one request can send others. For senders that can do no better.
"""

from functools import partial
from typing import Final

from libs.common.domain.providers.custom import Identify, identity_headers, verification_of, wrong
from libs.common.domain.providers.reading import check_ascii
from libs.common.domain.providers.scheme import Request, Scheme, Trust, by_name
from libs.common.domain.providers.settings import Settings
from libs.common.domain.signatures.rules import any_equal, only_value
from libs.common.domain.signatures.verdict import Refused, Verdict, Verified, mismatch

_UNUSED: Final = frozenset({"algorithm", "encoding", "template", "timestamp_header", "tolerance"})


def _verify(request: Request, trust: Trust, *, header: str, prefix: str) -> Verdict:
    token = only_value(request.headers, header)
    if isinstance(token, Refused):
        return token
    if not any_equal([token.encode()], [prefix.encode() + key for key in trust.keys]):
        return mismatch(f"the {header} does not carry a secret of this source")
    return Verified()


def scheme(settings: Settings) -> Scheme:
    """The scheme that the source describes.

    Raises:
        SettingsError: what it says cannot be followed.
    """
    verification = verification_of(settings, unused=_UNUSED)
    if verification.header is None:
        raise wrong("header", "say which header carries the token")
    header = verification.header.lower()
    return Scheme(
        verify=partial(_verify, header=header, prefix=verification.prefix),
        identify=Identify(verification),
        check_secret=check_ascii,
        form=by_name,
        challenge_parameter=verification.challenge_parameter,
        evidence=identity_headers(verification) - {header},
    )
