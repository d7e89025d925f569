"""How much of what is measured of dispatching."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Sizes of the parts; times are in seconds.

    Attributes:
        due: deliveries to claim.
        plain_seconds: at most, by plain `due_at` order.
        claim_seconds: at most, in turn.
        ordered: messages over a hundred keys.
        kills: of a dispatcher meanwhile, at most.
        retries: that are due, a thousand a second.
        pairs: of windows with and without what must not disturb.
        window: of each.
        backlog: endpoints of the application with a backlog, and messages that go to each of them.
        most_seconds: for each part.
    """

    due: int
    plain_seconds: float
    claim_seconds: float
    ordered: int
    kills: int
    retries: int
    pairs: int
    window: float
    backlog: tuple[int, int]
    most_seconds: float


FULL: Final = Plan(
    due=1_000_000,
    plain_seconds=10.0,
    claim_seconds=150.0,
    ordered=10_000,
    kills=12,
    retries=5_000,
    pairs=5,
    window=5.0,
    backlog=(1_000, 100),
    most_seconds=600.0,
)
QUICK: Final = Plan(
    due=50_000,
    plain_seconds=3.0,
    claim_seconds=30.0,
    ordered=2_000,
    kills=3,
    retries=1_500,
    pairs=1,
    window=2.0,
    backlog=(50, 400),
    most_seconds=120.0,
)
