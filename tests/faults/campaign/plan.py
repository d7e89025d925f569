"""What a seed means: which rounds, which faults in each, and how the receivers behave. Pure: chance is the seed's.

A plan decides everything that the campaign decides. When exactly a process gets to a point is the machine's business, so
that two runs of a seed do the same things, though not to the microsecond.
"""

import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, cycle, islice
from typing import TypeVar

from libs.common.runtime.failpoints import Failpoint


class Kind(StrEnum):
    """What can be done to the platform."""

    KILL = "kill"
    KILL_AT = "kill at a failpoint"
    FREEZE = "freeze"
    FREEZE_AT = "freeze at a failpoint"
    ROLL = "rolling restart"
    CLOCK = "clock step"
    REBUILD_KILLED = "rebuild killed midway"
    BROKER_RESTART = "broker restart"
    BROKER_KILL = "broker kill"
    BROKER_WIPE = "broker wiped"
    BROKER_ALARM = "broker memory alarm"
    BROKER_DROPS = "broker drops connections"
    CONFIRMS_LOST = "confirms swallowed"
    UNCONFIRMED_KILL = "kill before the confirm"
    QUEUE_DELETED = "queue deleted"
    POISON = "poison"
    POSTGRES_KILL = "postgres kill"
    POSTGRES_IMMEDIATE = "postgres immediate stop"
    BACKENDS_ENDED = "backends terminated"
    LOCK_HELD = "lock held"
    DEADLOCK = "deadlock"
    SERIALIZATION = "serialization errors"
    COMMITS_LOST = "answers to commits lost"
    LATENCY = "network latency"
    RESET = "network reset"
    HOLD = "network black hole"
    HALF_OPEN = "network half open"
    SLICES = "network slicing"
    OVERLOAD = "overload"


class Behaviour(StrEnum):
    """What a receiver does wrong."""

    SLOW = "slow"
    HANGING = "hanging"
    RESETTING = "resetting"
    FLAPPING = "flapping"
    LATE = "late"
    BUSY = "busy"
    GONE = "gone"


Item = TypeVar("Item")

REPLICAS = ("ingress-1", "ingress-2", "dispatcher-1", "dispatcher-2", "registry-1")
RECEIVERS = "dispatchers to receivers"
REGISTRY = "ingress to registry"
NETWORKS = (
    *(f"{replica} to postgres" for replica in REPLICAS),
    *(f"{replica} to rabbitmq" for replica in REPLICAS),
    *(REGISTRY, RECEIVERS),
)
LOCKS = ("hookledger.outbox", "hookledger.queue", "hookledger.lane", "hookledger.registry_version", "hookledger.fact")
OF_COMMANDS = frozenset({Failpoint.REBUILD_CHUNK, Failpoint.RETAIN_STEP})
POINTS = tuple(point for point in Failpoint if point not in OF_COMMANDS)
ROUND_SECONDS = 8.0
TIMES = {Kind.KILL_AT: 4, Kind.FREEZE_AT: 2}
"""How often a kind is in the deck, where it is more than once: there are many points to stop at."""
LONG_ROUNDS = frozenset({Kind.OVERLOAD})
ALONE = frozenset({Kind.ROLL})
"""Kinds that have a round to themselves: an orderly stop loses no outcome, which other faults would hide."""
OUTLASTING = frozenset({Kind.HOLD, Kind.HALF_OPEN, Kind.CONFIRMS_LOST, Kind.BROKER_ALARM})
"""Kinds that sometimes last longer than every deadline: what waits for an answer must give up."""
FAULTS_OF_A_ROUND = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is done.

    Attributes:
        target: a replica, a network or a table; empty where the kind says it all.
        point: of those that wait for one.
        at: seconds after the load began.
        lasts: seconds until it is mended.
        extent: of a clock step in seconds; of a network's latency in seconds; how many chunks a rebuild comes by.
    """

    kind: Kind
    at: float
    lasts: float
    target: str = ""
    point: Failpoint | None = None
    extent: float = 0.0

    def __str__(self) -> str:
        where = f" {self.target}" if self.target else ""
        return f"{self.kind}{where}{f' {self.point}' if self.point else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Some load, and what is done while it runs."""

    number: int
    seed: str
    messages: int
    seconds: float
    faults: tuple[Fault, ...]
    behaviours: tuple[Behaviour, ...]


def plan(
    seed: int, rounds: int, *, messages: int, kinds: Sequence[Kind], points: Sequence[Failpoint] = POINTS
) -> list[Round]:
    """The rounds of a seed, their faults drawn from one deck after the other, in which every kind is.

    Args:
        seed: names the run.
        rounds: how many.
        messages: sent in each round.
        kinds: to choose from.
        points: failpoints to choose from.
    """
    chance = random.Random(f"{seed}")
    deck = _shuffled_for_ever(chance, [kind for kind in kinds for _ in range(TIMES.get(kind, 1))])
    armed = _shuffled_for_ever(chance, points)
    behaviours = _shuffled_for_ever(chance, list(Behaviour))
    made = []
    alone: deque[Kind] = deque()
    together = min(FAULTS_OF_A_ROUND, len(set(kinds) - ALONE))
    for number in range(1, rounds + 1):
        drawn = [alone.popleft()] if alone else []
        while not drawn or (drawn[0] not in ALONE and len(drawn) < together):
            kind = next(deck)
            (alone if drawn and kind in ALONE else drawn).append(kind)
        seconds = max((60.0 if kind in LONG_ROUNDS else ROUND_SECONDS) for kind in drawn)
        made.append(
            Round(
                number=number,
                seed=f"{seed}/{number}",
                messages=messages,
                seconds=seconds,
                faults=tuple(_fault(kind, chance, armed, seconds) for kind in drawn),
                behaviours=tuple(islice(behaviours, 2)),
            )
        )
    return made


def _shuffled_for_ever(chance: random.Random, items: Sequence[Item]) -> Iterator[Item]:
    """Each once, in a drawn order, then each once more in another, and so on."""

    def shuffled() -> list[Item]:
        drawn = list(items)
        chance.shuffle(drawn)
        return drawn

    return chain.from_iterable(shuffled() for _ in cycle([None]))


def _fault(kind: Kind, chance: random.Random, armed: Iterator[Failpoint], seconds: float) -> Fault:
    at = round(chance.uniform(0.1, 0.6) * ROUND_SECONDS, 1)
    lasts = round(chance.uniform(0.5, 3.0), 1)
    target, point, extent = "", None, 0.0
    match kind:
        case Kind.KILL_AT | Kind.FREEZE_AT:
            point = next(armed)
            target = f"{owner(point)}-{1 if owner(point) == 'registry' else chance.choice((1, 2))}"
            at = round(chance.uniform(0.05, 0.3) * ROUND_SECONDS, 1)
        case Kind.KILL | Kind.CLOCK:
            target = chance.choice(REPLICAS)
        case Kind.FREEZE:
            target = chance.choice(REPLICAS)
        case Kind.UNCONFIRMED_KILL | Kind.CONFIRMS_LOST:
            target = chance.choice(("ingress-1", "ingress-2"))
        case Kind.LATENCY | Kind.RESET | Kind.HOLD | Kind.HALF_OPEN | Kind.SLICES:
            target = chance.choice(NETWORKS)
            extent = round(chance.uniform(0.02, 0.3), 2)
        case Kind.COMMITS_LOST:
            target = chance.choice(REPLICAS)
        case Kind.LOCK_HELD:
            target = chance.choice(LOCKS)
        case Kind.OVERLOAD:
            at, lasts = 0.0, seconds
        case Kind.REBUILD_KILLED:
            extent = chance.randint(1, 6)
        case _:
            pass
    if kind in OUTLASTING and target != RECEIVERS and chance.random() < 1 / 3:
        lasts = round(chance.uniform(6.0, 11.0), 1)
    if kind in {Kind.FREEZE, Kind.FREEZE_AT}:
        lasts = chance.choice((1.5, 7.0))  # shorter and longer than a lease
    if kind is Kind.CLOCK:
        extent = chance.choice((-3600.0, 3600.0))
    return Fault(kind=kind, at=at, lasts=lasts, target=target, point=point, extent=extent)


def owner(point: Failpoint) -> str:
    """The service that comes by a failpoint."""
    if point in {Failpoint.ACCEPT_IN_TRANSACTION, Failpoint.ACCEPT_COMMITTED, Failpoint.ENVELOPE_CONFIRMED}:
        return "ingress"
    return "registry" if point is Failpoint.CHANGE_COMMITTED else "dispatcher"
