"""What lanes and throttles promise, whatever comes: shares add up, rates are kept, and nobody is served too much."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from libs.common.domain.lanes import QUANTUM, Ready, Standing, allot, ordering_lane, settling, share, trim
from libs.common.domain.throttle import BURST, LATENESS, LONGEST_PROMISE, Throttle

NOON = datetime(2026, 8, 21, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
APPS = [UUID(int=number) for number in range(3)]
ENDPOINTS = [UUID(int=10 + number) for number in range(4)]


@given(st.integers(0, 100), st.integers(1, 12))
def test_the_shares_of_all_replicas_add_up_to_the_limit(limit: int, replicas: int) -> None:
    shares = [share(limit, Standing(rank=rank, of=replicas)) for rank in range(replicas)]
    assert sum(shares) == limit
    assert max(shares) - min(shares) <= 1


LOOKS = st.tuples(st.floats(0, 0.3), st.floats(-0.1, 0.9), st.integers(0, 10_000))


@given(st.integers(1, 65_535), st.lists(LOOKS, max_size=60))
def test_no_span_of_time_has_more_sends_than_it_and_one_burst_and_what_its_first_look_is_late_by_are_worth(
    rate: int, looks: list[tuple[float, float, int]]
) -> None:
    throttle = Throttle(rate=rate, spent_until=NOON - SECOND, promised_until=NOON - SECOND)
    now = NOON
    sent: list[tuple[datetime, timedelta, int]] = []
    for pause, seconds, wanted in looks:
        now += timedelta(seconds=pause)
        late = timedelta(seconds=seconds)
        throttle = throttle.looked_at(now, now - late)
        count = min(wanted, throttle.available(now))
        throttle = throttle.take(count)
        sent.append((now, late, count))
    for number, (start, late, _) in enumerate(sent):
        for until in range(number, len(sent)):
            span = sent[until][0] - start + min(BURST + max(late, 0 * SECOND), LATENESS)
            assert sum(count for _, _, count in sent[number : until + 1]) <= span.total_seconds() * rate + 1


@given(st.integers(1, 65_535), st.floats(1, 86_400))
def test_after_a_time_without_anything_to_send_a_tenth_of_a_second_is_worth_as_much_as_may_go_at_once_or_one(
    rate: int, idle: float
) -> None:
    throttle = Throttle(rate=rate, spent_until=NOON - timedelta(seconds=idle), promised_until=NOON)
    assert throttle.looked_at(NOON, NOON).available(NOON) == max(1, rate // 10)


@given(st.integers(1, 5_000), st.floats(0, 0.475))
def test_who_looks_when_told_to_or_half_a_second_later_sends_at_the_whole_rate(rate: int, late: float) -> None:
    throttle = Throttle(rate=rate, spent_until=NOON, promised_until=NOON)
    now, sent = NOON, 0
    while now < NOON + 10 * SECOND:
        now = throttle.next_at() + timedelta(seconds=late)
        throttle = throttle.looked_at(now, NOON)
        sent += (count := throttle.available(now))
        throttle = throttle.take(count)
    assert sent >= 0.95 * 10 * rate


def test_lanes_that_are_turned_away_are_promised_one_moment_after_the_other() -> None:
    throttle = Throttle(rate=10, spent_until=NOON, promised_until=NOON)
    moments = []
    for _ in range(200):
        moment, throttle = throttle.promise(NOON)
        moments.append(moment)
    assert moments[:3] == [NOON + timedelta(milliseconds=100 * number) for number in (1, 2, 3)]
    assert max(moments) == NOON + LONGEST_PROMISE, "then they look again: the rate may have been raised"


def test_a_rate_of_one_a_second_still_sends() -> None:
    throttle = Throttle(rate=1, spent_until=NOON - SECOND, promised_until=NOON)
    assert throttle.available(NOON) == 1
    assert throttle.take(1).available(NOON + timedelta(milliseconds=999)) == 0
    assert throttle.take(1).available(NOON + SECOND) == 1


LANES = st.builds(
    Ready,
    lane=st.uuids(),
    app=st.sampled_from(APPS),
    endpoint=st.sampled_from(ENDPOINTS),
    free=st.integers(-2, 40),
)
ROOMS = st.dictionaries(st.sampled_from(APPS + ENDPOINTS), st.integers(0, 40))
AVAILABLE = st.dictionaries(st.sampled_from(APPS + ENDPOINTS), st.integers(0, 50))


DUE = st.lists(st.integers(0, 40), min_size=20, max_size=20)


@given(st.lists(LANES, max_size=20), st.integers(1, 200), ROOMS, AVAILABLE, DUE)
def test_no_bound_is_exceeded(
    lanes: list[Ready], most: int, rooms: dict[UUID, int], available: dict[UUID, int], counts: list[int]
) -> None:
    due = {lane.lane: count for lane, count in zip(lanes, counts, strict=False)}
    allotted = trim(allot(lanes, rooms=rooms, available=available), most=most, due=due)
    by_endpoint: Counter[UUID] = Counter()
    by_app: Counter[UUID] = Counter()
    for lane in lanes:
        limit = allotted.limits.get(lane.lane, 0)
        assert limit == 0 or 0 < limit <= min(QUANTUM, lane.free, due[lane.lane])
        by_endpoint[lane.endpoint] += limit
        by_app[lane.app] += limit
    assert sum(allotted.limits.values()) <= most
    assert all(
        (by_endpoint + by_app)[owner] <= bound for bounds in (rooms, available) for owner, bound in bounds.items()
    )


@given(st.lists(LANES, max_size=20), st.integers(1, 200), ROOMS, AVAILABLE, DUE)
def test_who_gets_nothing_has_nothing_is_full_or_parked_or_keeps_its_place_for_lack_of_room(
    lanes: list[Ready], most: int, rooms: dict[UUID, int], available: dict[UUID, int], counts: list[int]
) -> None:
    due = {lane.lane: count for lane, count in zip(lanes, counts, strict=False)}
    allotted = trim(allot(lanes, rooms=rooms, available=available), most=most, due=due)
    left = most - sum(allotted.limits.values())
    for lane in lanes:
        if lane.lane in allotted.limits:
            continue
        elsewhere = lane.lane in (*allotted.full, *allotted.throttled) or lane.app in allotted.spent
        assert elsewhere or rooms.keys() & {lane.endpoint, lane.app} or left == 0


def test_many_lanes_with_little_are_served_together_and_one_with_much_gets_a_quantum() -> None:
    lanes = [Ready(lane=UUID(int=n), app=APPS[0], endpoint=UUID(int=n), free=100) for n in range(100, 200)]
    allotted = allot(lanes, rooms={}, available={})
    one_each = trim(allotted, most=64, due={lane.lane: 1 for lane in lanes})
    assert one_each.limits == {lane.lane: 1 for lane in lanes[:64]}
    plenty = trim(allotted, most=64, due={lane.lane: 100 for lane in lanes})
    assert plenty.limits == {lane.lane: QUANTUM for lane in lanes[:2]}


def test_the_lane_of_a_key_is_neither_the_endpoint_nor_that_of_another_key() -> None:
    lanes = {ordering_lane(endpoint, key) for endpoint in ENDPOINTS for key in (None, "a", "b", "ä")}
    assert len(lanes) == 16
    assert not lanes & set(ENDPOINTS)


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=30)))
def test_an_unsettled_head_is_looked_at_soon_and_then_less_often(waited: timedelta) -> None:
    assert timedelta(milliseconds=5) <= settling(waited) <= SECOND
