"""What the tests judge requests by."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from libs.common.domain.providers.scheme import Request, Trust
from libs.common.domain.signatures.verdict import RefusalReason, Refused, Verdict
from libs.common.runtime import ed25519

NOW = datetime(2026, 8, 21, 10, tzinfo=UTC)


def trusting(*secrets: str, now: datetime = NOW) -> Trust:
    """A source with these secrets, asked at that time."""
    return Trust(secrets=secrets, now=now, ed25519=ed25519.verify)


def sent(headers: Mapping[str, str | Sequence[str]], body: bytes = b"", *, target: str = "/") -> Request:
    """A request as it arrives: header names in lower case, each with all its values."""
    return Request(
        headers={name.lower(): [value] if isinstance(value, str) else value for name, value in headers.items()},
        body=body,
        target=target,
    )


def reason(verdict: Verdict) -> RefusalReason:
    """Why it was refused, which it was."""
    assert isinstance(verdict, Refused)
    return verdict.reason
