"""What verifying a request's signature can come to."""

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias


class RefusalReason(StrEnum):
    """Why a signed request is not believed.

    The first three are one thing to whoever sent it (not authenticated); the last two are told apart because their
    signature was right: the sender holds the secret, and only its clock or its queue is wrong.
    """

    MISSING = "missing"
    MALFORMED = "malformed"
    MISMATCH = "mismatch"
    STALE = "stale"
    FUTURE = "future"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """One of the secrets signed exactly these bytes, recently enough for the scheme."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The request is not believed.

    `detail` is for the operator who looks at the rejected request. It names the rule that was broken and never
    quotes a header, a secret or the signature that was expected.
    """

    reason: RefusalReason
    detail: str


Verdict: TypeAlias = Verified | Refused


def malformed(detail: str) -> Refused:
    """Not of the form that the scheme prescribes."""
    return Refused(reason=RefusalReason.MALFORMED, detail=detail)


def mismatch(detail: str) -> Refused:
    """Of that form, and not by a secret of the source."""
    return Refused(reason=RefusalReason.MISMATCH, detail=detail)
