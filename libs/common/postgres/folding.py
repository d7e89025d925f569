"""What the ledgers' facts come to: the fold that the projections are made from and compared with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final, Generic, TypeVar
from uuid import UUID

import asyncpg

from libs.common.contracts.registry import RegistryObject
from libs.common.domain.attempts import AttemptRow, attempt_rows
from libs.common.domain.delivery import Delivery, Status
from libs.common.domain.delivery import fold as fold_delivery
from libs.common.domain.facts import (
    AttemptAbandoned,
    AttemptEnded,
    AttemptOutcomeUnknown,
    AttemptStarted,
    MessageAccepted,
    MessageFannedOut,
)
from libs.common.postgres import registry
from libs.common.postgres.checkpoint import Cursor
from libs.common.postgres.chunks import Chunk
from libs.common.postgres.ledger import appended
from libs.common.postgres.pool import Connection
from libs.common.postgres.registry import RegistryFact

DELIVERY_COLUMNS: Final = Delivery.__struct_fields__
"""Of `delivery_state`, beside its key."""

ATTEMPT_COLUMNS: Final = AttemptRow.__struct_fields__
"""Of `attempt`."""

OBJECT_COLUMNS: Final = (
    *("kind", "org", "app", "uid", "version", "registry_version", "created_at", "updated_at", "deleted_at"),
)
"""Of `registry_object`, beside its key and its document."""

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldedDelivery:
    """One delivery's stream.

    `ends` are the places in the ledger of the facts that ended `attempts`. `counted` says that an attempt is in flight
    that the delivery's lane counts: each one but the first, where it began in the transaction of the fan-out.
    """

    state: Delivery
    attempts: Sequence[AttemptRow]
    ends: Sequence[Cursor]
    counted: bool


@dataclass(slots=True, kw_only=True)
class Folded(Generic[Item]):
    """What a range of streams comes to, by id; the streams that cannot be folded, with the reason."""

    facts: int
    items: dict[UUID, Item] = field(default_factory=dict)
    unfoldable: dict[UUID, str] = field(default_factory=dict)


async def fold_deliveries(connection: Connection, chunk: Chunk) -> Folded[FoldedDelivery]:
    """The deliveries of a range, from their facts alone.

    Raises:
        UnknownFactError: the ledger was written by a newer version.
    """
    rows = await connection.fetch(
        """
        SELECT stream, version, app, endpoint, kind, schema, at, data, epoch, xact, position
        FROM hookledger.fact WHERE stream > $1 AND stream <= $2 ORDER BY stream, version
        """,
        chunk.after,
        chunk.last,
    )
    folded = Folded[FoldedDelivery](facts=len(rows))
    for stream, facts in _streams(rows):
        try:
            delivery = _fold_delivery(stream, facts)
        except ValueError as error:
            folded.unfoldable[stream] = str(error)
        else:
            if delivery is not None:
                folded.items[stream] = delivery
    return folded


async def fold_registry(connection: Connection, chunk: Chunk) -> Folded[RegistryObject]:
    """The registry objects of a range, from their facts alone."""
    rows = await connection.fetch(
        """
        SELECT stream, version, org, app, kind, at, registry_version, data
        FROM hookledger.registry_fact WHERE stream > $1 AND stream <= $2 AND kind <> ALL($3) ORDER BY stream, version
        """,
        chunk.after,
        chunk.last,
        list(registry.OBJECTLESS),
    )
    folded = Folded[RegistryObject](facts=len(rows))
    for stream, facts in _streams(rows):
        try:
            _check_versions(facts)
            folded.items[stream] = registry.fold(RegistryFact(**dict(row)) for row in facts)
        except ValueError as error:
            folded.unfoldable[stream] = str(error)
    return folded


def _streams(rows: Sequence[asyncpg.Record]) -> Iterator[tuple[UUID, list[asyncpg.Record]]]:
    for stream, facts in groupby(rows, key=lambda row: row["stream"]):
        yield stream, list(facts)


def _fold_delivery(stream: UUID, rows: Sequence[asyncpg.Record]) -> FoldedDelivery | None:
    """The delivery of a stream; None where the stream is a message's.

    Raises:
        ValueError: versions are missing, or the facts make no delivery.
    """
    _check_versions(rows)
    facts = []
    ends = []
    for row in rows:
        fact = appended(row).fact
        match fact:
            case MessageAccepted() | MessageFannedOut():
                continue
            case AttemptEnded() | AttemptAbandoned() | AttemptOutcomeUnknown():
                ends.append(_place(row))
            case _:
                pass
        facts.append(fact)
    if not facts:
        return None
    state = fold_delivery(facts)
    # The fan-out's own transaction began it, and asked no lane.
    first = facts[1] if len(facts) > 1 else None
    begun = isinstance(first, AttemptStarted) and first.attempt == state.attempt
    direct = begun and _place(rows[0])[:2] == _place(rows[1])[:2]
    return FoldedDelivery(
        state=state,
        attempts=attempt_rows(stream, facts),
        ends=ends,
        counted=state.status is Status.SENDING and not direct,
    )


def _place(row: asyncpg.Record) -> Cursor:
    return Cursor(epoch=row["epoch"], xact=row["xact"], position=row["position"])


def _check_versions(rows: Sequence[asyncpg.Record]) -> None:
    if [row["version"] for row in rows] != list(range(1, len(rows) + 1)):
        raise ValueError("its versions are not 1, 2, 3, …")
