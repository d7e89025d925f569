"""What a job wants for a message, as a table."""

from dataclasses import replace
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


def candidate(
    status: Status | None = None, *, attempts: int = 1, matches: bool = True, missed: bool = False,
    skipped: bool = False, early: bool = False,
) -> Candidate:  # fmt: skip
    found = None if status is None else delivery(status, attempts)
    return Candidate(delivery=found, matches=matches, missed=missed, skipped=skipped, early=early)


NEVER = candidate(matches=False)
MISSING = candidate()
MISSED = candidate(missed=True)
FAILED = candidate(Status.EXHAUSTED)
UNSENT = candidate(Status.CANCELLED, attempts=0)
SKIPPED = candidate(Status.CANCELLED, attempts=0, skipped=True)
GOOD = candidate(Status.SUCCEEDED)
WAITING = candidate(Status.WAITING)
HELD = candidate(Status.HELD)
EACH = (NEVER, MISSING, MISSED, FAILED, UNSENT, SKIPPED, GOOD, WAITING, HELD)

A, R = Wish.ATTEMPT, Wish.RUN


@pytest.mark.parametrize(
    ("task", "only_failed", "wishes"),
    [
        (Task.RESEND, False, (A, A, A, A, A, A, A, A, A)),
        (Task.EXAMPLE, False, (R, R, R, None, None, None, None, None, None)),
        (Task.RECOVER, False, (None, None, A, A, A, None, None, None, A)),
        (Task.REPLAY_MISSING, False, (None, R, R, None, R, None, None, None, None)),
        (Task.REPLAY, False, (None, R, R, R, R, R, R, None, R)),
        (Task.REPLAY, True, (None, None, R, R, R, None, None, None, R)),
    ],
)
def test_each_task_wants_its_own(task: Task, only_failed: bool, wishes: tuple[Wish | None, ...]) -> None:
    assert tuple(wish(task, candidate, only_failed=only_failed) for candidate in EACH) == wishes


@pytest.mark.parametrize(("task", "wishes"), [(Task.RESEND, (A, A, A)), (Task.RECOVER, (R, R, None))])
def test_before_its_time_nothing_is_sent_but_what_is_resent(task: Task, wishes: tuple[Wish | None, ...]) -> None:
    early = (replace(each, early=True) for each in (MISSED, UNSENT, SKIPPED))
    assert tuple(wish(task, each) for each in early) == wishes


def test_a_span_of_versions_is_half_open() -> None:
    assert [within([(3, 5), (8, 9)], version) for version in (2, 3, 4, 5, 8, 9)] == [
        *(False, True, True, False, True, False),
    ]
