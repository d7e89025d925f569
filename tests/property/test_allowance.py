"""What a backlog may have in flight: it leaves time to what is fresh, and is never stopped by it."""

from hypothesis import given
from hypothesis import strategies as st

from libs.common.domain import allowance as bounds
from libs.common.domain.allowance import LATE_SECONDS, LEAST, Allowance, Look, beginning

MOST = 1024
LATE = 2 * LATE_SECONDS
IN_TIME = LATE_SECONDS / 2

looks = st.builds(Look, late=st.floats(0, 10), in_hand=st.integers(0, 10_000))


@given(st.integers(1, 10_000), st.lists(looks, max_size=100))
def test_there_are_always_some_places_and_never_more_than_the_process_has_or_begin_in_one_go(
    most: int, seen: list[Look]
) -> None:
    allowance = beginning(most)
    for look in seen:
        allowance = allowance.after(look)
        assert min(LEAST, most) <= allowance.places <= min(bounds.MOST, most)


@given(st.integers(LEAST, MOST), looks)
def test_places_go_when_the_process_is_late_and_only_then(places: int, look: Look) -> None:
    before = Allowance(places=places, most=MOST)
    after = before.after(look)
    if look.late > LATE_SECONDS:
        assert after.places < places or places == LEAST
    else:
        assert after.places >= places


def test_a_backlog_that_has_everything_retreats_within_two_seconds() -> None:
    allowance = Allowance(places=MOST, most=MOST)
    for _ in range(20):
        allowance = allowance.after(Look(late=LATE, in_hand=MOST))
    assert allowance.places == LEAST


def test_it_finds_the_number_at_which_the_process_is_still_in_time() -> None:
    allowance, found = Allowance(places=MOST, most=MOST), []
    for _ in range(100):
        used = allowance.places
        allowance = allowance.after(Look(late=LATE if used > 200 else IN_TIME, in_hand=used))
        found.append(used)
    assert 120 <= min(found[20:]) <= max(found[20:]) <= 240


def test_what_is_not_used_says_nothing_of_more() -> None:
    allowance = Allowance(places=100, most=MOST)
    assert allowance.after(Look(late=0.0, in_hand=49)) == allowance
    assert allowance.after(Look(late=0.0, in_hand=50)).places > 100


@given(st.integers(1, MOST), st.integers(0, 2 * MOST))
def test_a_claim_gets_half_of_the_places_or_none(places: int, in_hand: int) -> None:
    left = Allowance(places=places, most=MOST).left(in_hand)
    assert left in {0, places - in_hand}
    assert (left > 0) == (in_hand <= places / 2)
