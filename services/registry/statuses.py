"""The API's statuses of attempts and deliveries, and what in the ledger they stand for."""

from enum import IntEnum
from typing import Final

from libs.common.domain.attempts import ABANDONED, UNKNOWN
from libs.common.domain.delivery import Status
from libs.common.domain.outcome import Outcome
from services.registry.calls import Call
from services.registry.parameters import choice

SENDING: Final = "sending"
"""The `result` of an attempt that has not ended."""


class MessageStatus(IntEnum):
    """The status of an attempt, or of a message at an endpoint."""

    SUCCESS = 0
    PENDING = 1
    FAIL = 2
    SENDING = 3

    @property
    def text(self) -> str:
        """As `statusText` has it."""
        return self.name.lower()


STATUS: Final = choice(
    "status", "0 success, 1 pending, 2 fail, 3 sending.", [str(status.value) for status in MessageStatus]
)
_RESULTS: Final = {
    Outcome.SUCCEEDED.value: MessageStatus.SUCCESS,
    Outcome.RETRYABLE.value: MessageStatus.FAIL,
    Outcome.REFUSED.value: MessageStatus.FAIL,
    Outcome.GONE.value: MessageStatus.FAIL,
    ABANDONED: MessageStatus.FAIL,
    UNKNOWN: MessageStatus.FAIL,
    SENDING: MessageStatus.SENDING,
}

NEVER_BEGUN: Final = "unbegun"
"""Stands beside the statuses of deliveries for one that waits for its first attempt."""


def of_attempt(result: str) -> MessageStatus:
    """The status of an attempt with that result."""
    return _RESULTS[result]


def of_delivery(status: Status, attempts: int) -> MessageStatus:
    """The status of a message at an endpoint; one that waits for its retry is being sent."""
    match status:
        case Status.SUCCEEDED:
            return MessageStatus.SUCCESS
        case Status.WAITING if attempts == 0:
            return MessageStatus.PENDING
        case Status.WAITING | Status.SENDING:
            return MessageStatus.SENDING
        case _:
            return MessageStatus.FAIL


def read_status(call: Call) -> MessageStatus | None:
    """The parameter `status`.

    Raises:
        ApiError: 422.
    """
    text = call.asked(STATUS)
    return None if text is None else MessageStatus(int(text))


def results(status: MessageStatus | None) -> list[str] | None:
    """The results of attempts that have that status."""
    return None if status is None else [result for result, has in _RESULTS.items() if has is status]


def delivery_statuses(status: MessageStatus | None) -> list[str] | None:
    """The statuses of deliveries that have that status; `NEVER_BEGUN` for those that wait and were never tried."""
    if status is None:
        return None
    found = [each.value for each in Status if of_delivery(each, attempts=1) is status]
    return [NEVER_BEGUN] if status is MessageStatus.PENDING else found
