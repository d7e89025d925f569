"""The invariants of delivering, judged from the ledger and the receivers' own logs. What is broken is said, one line each."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from uuid import UUID

import asyncpg

from libs.common.domain.delivery import Delivery, Status, evolve, fold, scheduled
from libs.common.domain.facts import (
    AttemptAbandoned,
    AttemptEnded,
    AttemptOutcomeUnknown,
    AttemptStarted,
    DeliveryFact,
    DeliveryReopened,
    DeliveryScheduled,
    ResendDelayed,
    ResendDropped,
    ResendRequested,
    RetryScheduled,
    Trigger,
)
from libs.common.domain.ids import Prefix, encode
from libs.common.domain.outcome import Failure
from libs.common.postgres.ledger import appended

Stream: TypeAlias = Sequence[DeliveryFact]

MOST_SENDS = 2
"""A send on a connection that turns out to be stale is repeated once, under the same attempt; of an attempt whose outcome
is unknown, so is which of the two it came to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one receiver saw of one message: bodies and answers, in the order in which they came."""

    bodies: tuple[bytes, ...]
    statuses: tuple[int | None, ...]


async def read_deliveries(database_url: str) -> dict[UUID, Stream]:
    """The streams of all deliveries, by delivery."""
    connection = await asyncpg.connect(database_url, timeout=10)
    try:
        rows = await connection.fetch(
            """
            SELECT stream, version, app, endpoint, kind, schema, at, data
            FROM hookledger.fact WHERE kind NOT LIKE 'Message%' ORDER BY stream, version
            """
        )
    finally:
        await connection.close()
    streams: dict[UUID, list[DeliveryFact]] = defaultdict(list)
    for item in map(appended, rows):
        assert isinstance(item.fact, DeliveryFact)
        streams[item.stream].append(item.fact)
        assert item.version == len(streams[item.stream]), "versions count without gaps"
    return dict(streams)


def broken(streams: Iterable[Stream], *, schedule: int) -> Iterator[str]:
    """Invariants 2 to 6, for each delivery; `schedule` is the number of retries that its endpoint allows."""
    for stream in streams:
        state = fold(stream)
        what = f"delivery of {encode(Prefix.MESSAGE, state.message)} to {encode(Prefix.ENDPOINT, state.endpoint)}"
        if not state.status.terminal:
            yield f"{what}: not over (2)"
        yield from (f"{what}: {text}" for text in _broken(stream, schedule))


def disagreements(
    streams: Iterable[Stream],
    seen: Mapping[tuple[str, str], Seen],
    names: Mapping[str, str],
    *,
    every: bool = True,
) -> Iterator[str]:
    """Invariant 8, and that nothing was seen which the ledger does not know.

    Args:
        streams: all deliveries.
        seen: by message id and receiver.
        names: the receiver of each endpoint id.
        every: whether each request that was sent has come, but for those that were given up, which a receiver that has
            no time may never read; not so where the network to the receivers was harmed.
    """
    told: set[tuple[str, str]] = set()
    for stream in streams:
        state = fold(stream)
        key = encode(Prefix.MESSAGE, state.message), names[encode(Prefix.ENDPOINT, state.endpoint)]
        told.add(key)
        found = seen.get(key, Seen(bodies=(), statuses=()))
        what = f"{key[0]} at {key[1]}"
        if state.status is Status.SUCCEEDED and not any(_is_success(status) for status in found.statuses):
            yield f"{what}: succeeded, and the receiver has no 2xx (8)"
        recorded = [fact.status for fact in stream if isinstance(fact, AttemptEnded) and fact.status is not None]
        ended = [fact for fact in stream if isinstance(fact, AttemptEnded)]
        sends = sum(fact.sends for fact in ended)
        came = sum(fact.sends for fact in ended if fact.failure is not Failure.TIMEOUT) if every else len(recorded)
        unknown = sum(isinstance(fact, AttemptOutcomeUnknown) for fact in stream)
        if not came <= len(found.statuses) <= sends + MOST_SENDS * unknown:
            yield f"{what}: seen {len(found.statuses)} times, the ledger has {sends} sends and {unknown} unknown (8)"
        if not _is_within(recorded, found.statuses):
            yield f"{what}: the ledger has the answers {recorded}, the receiver gave {found.statuses} (8)"
        if len(set(found.bodies)) > 1:
            yield f"{what}: not the same bytes on each attempt (7)"
    for key in seen.keys() - told:
        yield f"{key[0]} at {key[1]}: seen by the receiver, unknown to the ledger (8)"


def _broken(stream: Stream, schedule: int) -> Iterator[str]:
    first, *facts = stream
    assert isinstance(first, DeliveryScheduled)
    state: Delivery = scheduled(first)
    number = 0
    answered = 0
    flying: UUID | None = None
    unknown = False
    for fact in facts:
        manual = state.beside is not None or (isinstance(fact, AttemptStarted) and fact.trigger is Trigger.MANUAL)
        asked = isinstance(fact, ResendRequested | ResendDropped | DeliveryReopened)
        if state.status.terminal and not manual and not asked and not isinstance(fact, ResendDelayed):
            yield f"{type(fact).__name__} after {state.status} (4)"
        match fact:
            case AttemptStarted():
                number += not manual
                if fact.number != (0 if manual else number):
                    yield f"attempt {fact.number} where {number} was next (3)"
                if flying is not None:
                    yield "two attempts at once (6)"
                flying, unknown = fact.attempt, False
            case AttemptEnded() | AttemptAbandoned() | AttemptOutcomeUnknown():
                if fact.attempt != flying:
                    yield "the end of an attempt that was not in flight (6)"
                flying, unknown = None, isinstance(fact, AttemptOutcomeUnknown)
                answered += isinstance(fact, AttemptEnded) and not manual
            case RetryScheduled() | ResendDelayed() | ResendDropped():
                unknown = False
            case DeliveryReopened():
                number = answered = 0
        state = evolve(state, fact)
    if flying is not None:
        yield "an attempt without an end (5)"
    if unknown and state.status is not Status.EXHAUSTED:
        yield "an unknown outcome without a next attempt (5)"
    if answered > schedule + 1:
        yield f"{answered} attempts with an outcome, {schedule + 1} are allowed (3)"


def _is_success(status: int | None) -> bool:
    return status is not None and 200 <= status < 300


def _is_within(recorded: Sequence[int], given: Sequence[int | None]) -> bool:
    """Whether the recorded answers are among those given, in their order."""
    remaining = iter(given)
    return all(any(status == each for each in remaining) for status in recorded)
