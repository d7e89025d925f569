"""Query parameters in all the ways in which clients write them."""

from datetime import UTC, datetime

import pytest
from multidict import MultiDict

from libs.common.domain import ids
from libs.common.runtime.http import ApiError
from services.registry import statuses
from services.registry.paging import Page
from services.registry.parsing import read_flag, read_list, read_time
from services.registry.statuses import MessageStatus

NOON = datetime(2026, 8, 21, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-08-21T12:00:00Z", NOON),
        ("2026-08-21t12:00:00z", NOON),
        ("2026-08-21T14:00:00+02:00", NOON),
        ("2026-08-21T14:00:00 02:00", NOON),
        ("2026-08-21T14:00:00+0200", NOON),
        ("2026-08-21 12:00:00 UTC", NOON),
        ("2026-08-21 12:00:00.1 UTC", NOON.replace(microsecond=100_000)),
        ("2026-08-21T12:00:00.123456789Z", NOON.replace(microsecond=123_456)),
        ("2026-08-21T12:00:00", NOON),
    ],
)
def test_a_time_is_read(text: str, time: datetime) -> None:
    assert read_time(MultiDict({"before": text}), "before") == time


@pytest.mark.parametrize("text", ["", "now", "2026-08-21", "2026-13-01T00:00:00Z", "1", "2026-08-21T12:00:00+99:00"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ApiError) as refused:
        read_time(MultiDict({"before": text}), "before")
    assert refused.value.status == 422


@pytest.mark.parametrize(
    "query",
    [
        [("x", "a,b")],
        [("x", "a"), ("x", "b")],
        [("x[]", "a"), ("x[]", "b")],
        [("x[0]", "a"), ("x[1]", "b")],
        [("x", "a,"), ("y", "c"), ("x", "b")],
    ],
)
def test_a_list_is_read_however_it_is_written(query: list[tuple[str, str]]) -> None:
    assert read_list(MultiDict(query), "x") == ["a", "b"]


def test_a_list_that_is_not_there_or_empty_filters_nothing() -> None:
    assert read_list(MultiDict(), "x") is None
    assert read_list(MultiDict({"x": ""}), "x") is None


def test_a_flag_is_true_or_false() -> None:
    assert read_flag(MultiDict({"f": "TRUE"}), "f", default=False)
    assert not read_flag(MultiDict({"f": "0"}), "f", default=True)


def test_a_page_read_backwards_is_shown_in_its_own_order() -> None:
    page = Page.at("-5", limit=2, descending=False)
    assert (page.directed("id :beyond $1 ORDER BY id :direction"), page.fetched) == (
        "id < $1 ORDER BY id DESC",
        3,
    )
    shown = page.of([4, 3, 2], str)
    assert (shown.data, shown.iterator, shown.prev_iterator, shown.done) == ([3, 4], "4", "-3", False)


def test_a_page_lies_between_its_iterator_and_the_times_asked_for() -> None:
    bound = ids.lowest(5_000)
    newest_first = Page.at("x", limit=2, descending=True)
    assert newest_first.span(bound, oldest_ms=1_000, newest_ms=9_000) == (ids.lowest(1_000), bound)
    assert newest_first.span(bound, oldest_ms=-1, newest_ms=3_000) == (ids.lowest(0), ids.lowest(3_001))
    back = Page.at("-x", limit=2, descending=True)
    assert back.span(bound, oldest_ms=6_000, newest_ms=9_000) == (ids.lowest(6_000), ids.lowest(9_001))
    above, below = back.span(bound)
    assert above == bound < below


def test_every_status_of_a_delivery_is_found_by_one_status_of_the_api() -> None:
    found = [value for status in MessageStatus for value in statuses.delivery_statuses(status) or ()]
    waiting_and_tried = {"waiting", "sending", "succeeded", "exhausted", "refused", "gone", "cancelled", "expired"}
    assert sorted(found) == sorted(waiting_and_tried | {statuses.NEVER_BEGUN})
