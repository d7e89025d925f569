"""The rules that every signature scheme shares: one value per header, constant-time comparison, bounded age."""

import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

from libs.common.domain.signatures.verdict import RefusalReason, Refused

Headers: TypeAlias = Mapping[str, Sequence[str]]
"""A request's headers: lower-cased name to every value that came under it, in order."""

TOLERANCE: Final = timedelta(minutes=5)
"""How far a signed timestamp may be from now, in either direction.

Sources: https://docs.stripe.com/webhooks#replay-attacks (five minutes in its libraries); the reference libraries of
Standard Webhooks use the same.
"""

TIMESTAMP: Final = re.compile(r"[0-9]{1,11}")
"""Whole Unix seconds, for `fullmatch`.

Narrower than `int` and `float`, which take `+1`, `1e9`, `nan` and the digits of other scripts.
"""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def only_value(headers: Headers, name: str) -> str | Refused:
    """The one ASCII value of header `name` (lower case).

    A header that came twice is refused, not resolved: proxies and libraries disagree about which one counts, and
    whoever forges a request would choose.
    """
    values = headers.get(name, ())
    if not values:
        return Refused(reason=RefusalReason.MISSING, detail=f"there is no {name} header")
    if len(values) > 1:
        return Refused(reason=RefusalReason.MALFORMED, detail=f"the {name} header is repeated")
    # Also keeps out the lone surrogates by which servers carry undecodable header bytes.
    if not values[0].isascii():
        return Refused(reason=RefusalReason.MALFORMED, detail=f"the {name} header is not ASCII")
    return values[0]


def only_values(headers: Headers, *names: str) -> list[str] | Refused:
    """The one value of each header in `names`, or the first refusal (`only_value`)."""
    values: list[str] = []
    for name in names:
        value = only_value(headers, name)
        if isinstance(value, Refused):
            return value
        values.append(value)
    return values


def hmac_sha256(key: bytes, *parts: bytes) -> bytes:
    """HMAC-SHA256 (32 bytes) of `parts`, joined."""
    return hmac.digest(key, b"".join(parts), "sha256")


def any_equal(candidates: Sequence[bytes], expected: Iterable[bytes]) -> bool:
    """Whether a candidate equals an expected signature.

    Each pair is compared, in constant time and without stopping at the first match, so that the time taken tells
    neither how much of a signature was right nor which secret signed it. Bytes only: `hmac.compare_digest` raises on
    text that is not ASCII.
    """
    found = False
    for signature in expected:
        for candidate in candidates:
            found |= hmac.compare_digest(candidate, signature)
    return found


def refuse_age(timestamp: int, *, now: datetime, tolerance: timedelta) -> Refused | None:
    """The refusal of a `timestamp` (Unix seconds) further than `tolerance` from `now` (aware), or None.

    To be asked only once the signature is known to be right, so that a forged request learns nothing from its age.
    """
    age = now - _EPOCH - timedelta(seconds=timestamp)
    accepted = f"at most {tolerance.total_seconds():g} s is accepted"
    if age > tolerance:
        return Refused(
            reason=RefusalReason.STALE, detail=f"signed {age.total_seconds():g} s before it arrived: {accepted}"
        )
    if -age > tolerance:
        return Refused(
            reason=RefusalReason.FUTURE, detail=f"signed {-age.total_seconds():g} s after it arrived: {accepted}"
        )
    return None
