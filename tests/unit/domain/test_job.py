"""What a job wants for a message, as a table."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from libs.common.domain.delivery import Delivery, Status
from libs.common.domain.job import Candidate, Task, Wish, wish, within

NOON = datetime(2026, 8, 21, 12, tzinfo=UTC)


def delivery(status: Status, attempts: int = 1) -> Delivery:
    return Delivery(
        app=UUID(int=1), message=UUID(int=2), endpoint=UUID(int=3), status=status, version=1, created_at=NOON,
        updated_at=NOON, due_at=None, attempts=attempts, last_status=500 if attempts else None,
    )  # fmt: skip


NEVER = Candidate(delivery=None, matches=False, missed=False)
MISSING = Candidate(delivery=None, matches=True, missed=False)
MISSED = Candidate(delivery=None, matches=True, missed=True)
FAILED = Candidate(delivery=delivery(Status.EXHAUSTED), matches=True, missed=False)
UNSENT = Candidate(delivery=delivery(Status.CANCELLED, attempts=0), matches=True, missed=False)
GOOD = Candidate(delivery=delivery(Status.SUCCEEDED), matches=True, missed=False)
WAITING = Candidate(delivery=delivery(Status.WAITING), matches=True, missed=False)
HELD = Candidate(delivery=delivery(Status.HELD), matches=True, missed=False)
EACH = (NEVER, MISSING, MISSED, FAILED, UNSENT, GOOD, WAITING, HELD)

A, R = Wish.ATTEMPT, Wish.RUN


@pytest.mark.parametrize(
    ("task", "only_failed", "wishes"),
    [
        (Task.RESEND, False, (A, A, A, A, A, A, A, A)),
        (Task.EXAMPLE, False, (R, R, R, None, None, None, None, None)),
        (Task.RECOVER, False, (None, None, A, A, A, None, None, A)),
        (Task.REPLAY_MISSING, False, (None, R, R, None, R, None, None, None)),
        (Task.REPLAY, False, (None, R, R, R, R, R, None, R)),
        (Task.REPLAY, True, (None, None, R, R, R, None, None, R)),
    ],
)
def test_each_task_wants_its_own(task: Task, only_failed: bool, wishes: tuple[Wish | None, ...]) -> None:
    assert tuple(wish(task, candidate, only_failed=only_failed) for candidate in EACH) == wishes


def test_a_span_of_versions_is_half_open() -> None:
    assert [within([(3, 5), (8, 9)], version) for version in (2, 3, 4, 5, 8, 9)] == [
        *(False, True, True, False, True, False),
    ]
