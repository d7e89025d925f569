"""Over which times the copies of a ledger are spread."""

from itertools import pairwise

import pytest

from bench.growth.ledger import WEEK_MS, shifts


@pytest.mark.parametrize("copies", [1, 4, 499])
def test_copies_are_spread_evenly_over_the_week_that_ends_with_the_originals(copies: int) -> None:
    found = [-WEEK_MS, *shifts(copies), 0]
    gaps = [later - before for before, later in pairwise(found)]
    assert len(found) == copies + 2
    assert 0 < min(gaps) <= max(gaps) <= min(gaps) + 1


def test_a_ledger_that_is_large_enough_is_not_copied() -> None:
    assert not list(shifts(0))
