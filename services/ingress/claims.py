"""Settling who is first: the claims of one batch, inside its transaction.

A request that loses by one of its keys must not hold the others, and what only followed it within the batch is judged
anew. So the batch is settled in rounds; all but the rarest need one.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TypeAlias
from uuid import UUID

import asyncpg
from msgspec import Struct

from libs.common.postgres.pool import Connection, Pool
from services.ingress.candidate import Claim, Duplicate

Place: TypeAlias = tuple[UUID, str, bytes]


class Holder(Struct, frozen=True, kw_only=True):
    """The message that holds a key."""

    message: UUID
    request_hash: bytes
    since: datetime


class Contender(Struct, frozen=True, kw_only=True):
    """A message to be, with its claims."""

    message: UUID
    claims: tuple[Claim, ...]


async def settle(
    connection: Connection, contenders: Sequence[Contender], *, at: datetime, lifetime: timedelta
) -> list[Duplicate | None]:
    """For each contender the earlier message that it repeats, or None: then all its claims are recorded.

    Args:
        connection: in the transaction that accepts them.
        contenders: in the order in which they arrived.
        at: now, by the database's clock.
        lifetime: older holders have lost their keys.
    """
    settled: list[Duplicate | None] = [None] * len(contenders)
    pending = [index for index, contender in enumerate(contenders) if contender.claims]
    while pending:
        leaders, followers = _divide(contenders, pending)
        held = await _claim(connection, [contenders[index] for index in leaders], at=at, expired=at - lifetime)
        pending = []
        for index in leaders:
            settled[index] = _first_held(contenders[index], held)
        for index, leader in followers.items():
            if leader is None:
                pending.append(index)  # it shares only some keys with others: judged when theirs are settled
            elif settled[leader] is None:
                mine = contenders[index].claims[0]
                since = Holder(
                    message=contenders[leader].message, request_hash=_hash_of(contenders[leader], mine), since=at
                )
                settled[index] = _repetition(mine, since)
            else:
                settled[index] = _first_held(contenders[index], held)
                if settled[index] is None:
                    pending.append(index)  # its leader went by a key that this one does not have
    return settled


async def look_up(pool: Pool, claims: Sequence[Claim], *, lifetime: timedelta) -> list[Duplicate | None]:
    """For each claim the message that holds its key now.

    Args:
        pool: of the role `ingress`.
        claims: of one application.
        lifetime: older holders have lost their keys.
    """
    rows = await pool.fetch(
        """
        SELECT app, kind, key, message, request_hash, created_at
        FROM hookledger.idempotency
        WHERE (app, kind, key) IN (SELECT * FROM unnest($1::uuid[], $2::text[], $3::bytea[]))
          AND created_at >= clock_timestamp() - $4::interval
        """,
        *_columns(claims),
        lifetime,
    )
    held = _by_place(rows)
    return [_repetition(claim, held[claim.place]) if claim.place in held else None for claim in claims]


async def forget_expired(pool: Pool, *, lifetime: timedelta, most: int) -> int:
    """Delete at most `most` claims that have lost their keys; how many it took."""
    status = await pool.execute(
        """
        DELETE FROM hookledger.idempotency
        WHERE created_at < clock_timestamp() - $1::interval
          AND ctid = ANY (ARRAY(
            SELECT ctid FROM hookledger.idempotency
            WHERE created_at < clock_timestamp() - $1::interval
            LIMIT $2 FOR UPDATE SKIP LOCKED))
        """,
        lifetime,
        most,
    )
    return int(status.rpartition(" ")[2])


def _divide(contenders: Sequence[Contender], pending: Iterable[int]) -> tuple[list[int], dict[int, int | None]]:
    """Those that are the first of the batch in all their keys, and the others.

    One of the others whose keys are all its leader's shares the leader's fate; with any further key it has none yet.
    """
    first: dict[Place, int] = {}
    leaders: list[int] = []
    followers: dict[int, int | None] = {}
    for index in pending:
        places = [claim.place for claim in contenders[index].claims]
        before = {first.get(place) for place in places}
        if before == {None}:
            leaders.append(index)
            first.update(dict.fromkeys(places, index))
        else:
            followers[index] = before.pop() if len(before) == 1 else None
    return leaders, followers


async def _claim(
    connection: Connection, leaders: Sequence[Contender], *, at: datetime, expired: datetime
) -> dict[Place, Holder]:
    """Record the claims of `leaders`; of those that lose one, none. The result is who holds what they lost."""
    wanted = [(claim, leader.message) for leader in leaders for claim in leader.claims]
    rows = await connection.fetch(
        """
        INSERT INTO hookledger.idempotency AS held (app, kind, key, message, request_hash, created_at)
        SELECT u.app, u.kind, u.key, u.message, u.request_hash, $6
        FROM unnest($1::uuid[], $2::text[], $3::bytea[], $4::uuid[], $5::bytea[])
            AS u (app, kind, key, message, request_hash)
        ORDER BY u.app, u.kind, u.key
        ON CONFLICT (app, kind, key) DO UPDATE
            SET message = excluded.message, request_hash = excluded.request_hash, created_at = excluded.created_at
            WHERE held.created_at < $7
        RETURNING app, kind, key
        """,
        *_columns(claim for claim, _ in wanted),
        [message for _, message in wanted],
        [claim.request_hash for claim, _ in wanted],
        at,
        expired,
    )
    won = {(row["app"], row["kind"], row["key"]) for row in rows}
    if len(won) == len(wanted):
        return {}
    losers = [leader for leader in leaders if any(claim.place not in won for claim in leader.claims)]
    await _release(connection, [claim for loser in losers for claim in loser.claims if claim.place in won])
    return await _holders(connection, [claim for claim, _ in wanted if claim.place not in won])


async def _release(connection: Connection, claims: Sequence[Claim]) -> None:
    if not claims:
        return
    await connection.execute(
        """
        DELETE FROM hookledger.idempotency
        WHERE (app, kind, key) IN (SELECT * FROM unnest($1::uuid[], $2::text[], $3::bytea[]))
        """,
        *_columns(claims),
    )


async def _holders(connection: Connection, claims: Sequence[Claim]) -> dict[Place, Holder]:
    # The conflict has locked these rows, so that they are still there.
    rows = await connection.fetch(
        """
        SELECT app, kind, key, message, request_hash, created_at
        FROM hookledger.idempotency
        WHERE (app, kind, key) IN (SELECT * FROM unnest($1::uuid[], $2::text[], $3::bytea[]))
        """,
        *_columns(claims),
    )
    return _by_place(rows)


def _by_place(rows: Iterable[asyncpg.Record]) -> dict[Place, Holder]:
    return {
        (row["app"], row["kind"], row["key"]): Holder(
            message=row["message"], request_hash=row["request_hash"], since=row["created_at"]
        )
        for row in rows
    }


def _columns(claims: Iterable[Claim]) -> tuple[list[UUID], list[str], list[bytes]]:
    listed = list(claims)
    return [claim.app for claim in listed], [str(claim.kind) for claim in listed], [claim.key for claim in listed]


def _first_held(contender: Contender, held: dict[Place, Holder]) -> Duplicate | None:
    return next(
        (_repetition(claim, held[claim.place]) for claim in contender.claims if claim.place in held),
        None,
    )


def _repetition(claim: Claim, holder: Holder) -> Duplicate:
    return Duplicate(
        kind=claim.kind,
        first=holder.message,
        accepted_at=holder.since,
        same_request=claim.request_hash == holder.request_hash,
    )


def _hash_of(contender: Contender, shared: Claim) -> bytes:
    return next(claim.request_hash for claim in contender.claims if claim.place == shared.place)
