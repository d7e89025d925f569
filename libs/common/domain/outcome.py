"""What an attempt's end means for its delivery: one table, DESIGN's default policy."""

from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Final

from msgspec import Struct

RETRIED_CLIENT_ERRORS: Final = frozenset({408, 425, 429})
RETRY_AFTER_STATUSES: Final = frozenset({429, 503})
GONE: Final = 410
_LONGEST_RETRY_AFTER: Final = timedelta(days=365)


class Failure(StrEnum):
    """Why an attempt got no usable HTTP status."""

    DNS = "dns_failed"
    ADDRESS_REFUSED = "address_refused"
    CONNECT = "connect_failed"
    TLS = "tls_failed"
    RESET = "connection_reset"
    TIMEOUT = "timeout"
    PROTOCOL = "protocol_error"
    CONFIGURATION = "configuration_error"
    TRANSFORMATION = "transformation_failed"


class Outcome(StrEnum):
    """What the receiver's answer, or its absence, comes to."""

    SUCCEEDED = "succeeded"
    RETRYABLE = "retryable"
    REFUSED = "refused"
    GONE = "gone"


class Answer(Struct, frozen=True, kw_only=True, gc=False):
    """What came back: a status, or the failure that kept one from coming. Exactly one of the two is set."""

    status: int | None = None
    failure: Failure | None = None
    retry_after: timedelta | None = None


def classify(answer: Answer, *, retry_client_errors: bool = False) -> Outcome:
    """The outcome of an attempt.

    2xx succeeded; 410 asks us to stop; a 4xx beyond 408, 425 and 429 is final unless `retry_client_errors`; all else,
    redirects included (they are never followed), is tried again. A transformation that fails on a payload would fail
    on it again: final.
    """
    if answer.failure is Failure.TRANSFORMATION:
        return Outcome.REFUSED
    if answer.status is None:
        return Outcome.RETRYABLE
    status = answer.status
    if 200 <= status < 300:  # noqa: PLR2004  the class of success
        return Outcome.SUCCEEDED
    if status == GONE:
        return Outcome.GONE
    if 400 <= status < 500 and status not in RETRIED_CLIENT_ERRORS and not retry_client_errors:  # noqa: PLR2004  as above
        return Outcome.REFUSED
    return Outcome.RETRYABLE


def parse_retry_after(value: str | None, *, status: int, now: datetime) -> timedelta | None:
    """The wait that a receiver asks for, if its status lets it ask; nonsense counts as absent.

    Source: RFC 9110, section 10.2.3: seconds, or an HTTP date.
    """
    if value is None or status not in RETRY_AFTER_STATUSES:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(timedelta(seconds=int(text[:9])), _LONGEST_RETRY_AFTER)
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if when.tzinfo is None:
        return None
    return max(timedelta(0), min(when - now, _LONGEST_RETRY_AFTER))


_PHRASES: Final = {
    Failure.DNS: "the host name did not resolve",
    Failure.ADDRESS_REFUSED: "the address is not allowed",
    Failure.CONNECT: "the connection failed",
    Failure.TLS: "TLS failed",
    Failure.RESET: "the connection was reset",
    Failure.TIMEOUT: "no answer in time",
    Failure.PROTOCOL: "the answer was not valid HTTP",
    Failure.CONFIGURATION: "the endpoint's configuration cannot be used",
    Failure.TRANSFORMATION: "the endpoint's transformation failed on the payload",
}


def describe(answer: Answer) -> str:
    """One phrase for a person: `HTTP 503`, or why there was no status."""
    if answer.status is not None:
        return f"HTTP {answer.status}"
    return _PHRASES[answer.failure] if answer.failure is not None else "no answer"
