"""How much of what a run measures."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Sizes of the phases; times are in seconds.

    Attributes:
        rounds: how often everything that is held against a ceiling is measured, ceiling and figure in turn.
        ceiling_seconds: for each ceiling.
        saturated: how often in each round deliveries are measured where the platform is saturated.
        deliveries: of each such time.
        bulky: the same with bodies of 10 and of 100 KiB.
        accepted: messages to accept.
        paced: seconds of each steady rate.
        retried: deliveries that fail once.
        celery, gather: deliveries of the peers.
    """

    rounds: int
    ceiling_seconds: float
    saturated: int
    deliveries: int
    bulky: tuple[int, int]
    accepted: int
    paced: float
    retried: int
    celery: int
    gather: int
    most_seconds: float


FULL: Final = Plan(
    rounds=3,
    ceiling_seconds=2.0,
    saturated=2,
    deliveries=20_000,
    bulky=(3_000, 1_000),
    accepted=15_000,
    paced=5.0,
    retried=200,
    celery=1_500,
    gather=3_000,
    most_seconds=900.0,
)
QUICK: Final = Plan(
    rounds=1,
    ceiling_seconds=0.5,
    saturated=1,
    deliveries=600,
    bulky=(200, 100),
    accepted=500,
    paced=1.0,
    retried=20,
    celery=100,
    gather=300,
    most_seconds=300.0,
)
