"""Everything that is sealed, sealed anew with the first master key, while the services run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import asyncpg

from libs.common.postgres.pool import RETRYABLE_ERRORS, Pool, transaction
from libs.common.runtime.sealing import MasterKeys, SealError

ROWS_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A table of sealed rows.

    Attributes:
        usage: rows by the id of the master key that sealed them.
        others: rows sealed with another master key than $1, those above `key` $2 or all, at most $3 of them, by `key`.
        replace: puts $3 in the place of $2, unless that is no longer what stands there.
        owner: to whom a row's sealed bytes are bound, beside its organisation.
        lock: taken first, so as not to wait in a circle with who takes the same rows in another order.
    """

    name: str
    usage: str
    others: str
    replace: str
    owner: Callable[[asyncpg.Record], UUID]
    lock: str = "SELECT"


STORES: Final = (
    Store(
        name="secrets",
        usage="SELECT substr(sealed, 1, 4) AS master_key, count(*) AS rows FROM hookledger.secret GROUP BY 1",
        others="""
            SELECT id AS key, owner, org, sealed FROM hookledger.secret
            WHERE substr(sealed, 1, 4) <> $1 AND ($2::uuid IS NULL OR id > $2) ORDER BY id LIMIT $3
            """,
        replace="""
            UPDATE hookledger.secret s SET sealed = n.new
            FROM unnest($1::uuid[], $2::bytea[], $3::bytea[]) AS n (key, old, new)
            WHERE s.id = n.key AND s.sealed = n.old
            """,
        owner=lambda row: row["owner"],
        lock="SELECT FROM hookledger.registry_version FOR UPDATE",
    ),
    Store(
        name="answers",
        usage="""
            SELECT substr(sealed, 1, 4) AS master_key, count(*) AS rows FROM hookledger.answer
            WHERE sealed IS NOT NULL GROUP BY 1
            """,
        others="""
            SELECT digest AS key, org, sealed FROM hookledger.answer
            WHERE substr(sealed, 1, 4) <> $1 AND ($2::bytea IS NULL OR digest > $2) ORDER BY digest LIMIT $3
            """,
        replace="""
            UPDATE hookledger.answer a SET sealed = n.new
            FROM unnest($1::bytea[], $2::bytea[], $3::bytea[]) AS n (key, old, new)
            WHERE a.digest = n.key AND a.sealed = n.old
            """,
        owner=lambda row: UUID(bytes=row["key"][:16]),
    ),
)


@dataclass(slots=True, kw_only=True)
class Rewrapped:
    """How many rows were sealed anew, by the name of their store; and how many do not open with any master key."""

    rows: dict[str, int]
    unopened: int = 0


async def usage(pool: Pool) -> dict[str, dict[bytes, int]]:
    """By the name of each store, how many rows each master key has sealed, by the key's id."""
    return {store.name: {row["master_key"]: row["rows"] for row in await pool.fetch(store.usage)} for store in STORES}


async def rewrap(pool: Pool, master_keys: MasterKeys, advance: Callable[[int], None]) -> Rewrapped:
    """Seal anew what another than the first master key has sealed, in transactions of `ROWS_AT_ONCE` rows.

    It can be stopped and begun again: what was done is passed over.

    Args:
        pool: of the role `registry`.
        master_keys: those that were in use, the one that is to seal first.
        advance: is told of each so many rows.
    """
    done = Rewrapped(rows={store.name: 0 for store in STORES})
    for store in STORES:
        after = None
        while True:
            try:
                rows = await _next(pool, master_keys, store, after, done)
            except RETRYABLE_ERRORS:
                continue
            if not rows:
                break
            advance(len(rows))
            after = rows[-1]["key"]
    return done


async def _next(
    pool: Pool, master_keys: MasterKeys, store: Store, after: Any, done: Rewrapped
) -> Sequence[asyncpg.Record]:
    """Seal the rows after that key anew; which they were."""
    async with transaction(pool) as connection:
        await connection.execute(store.lock)
        rows = await connection.fetch(store.others, master_keys.ids[0], after, ROWS_AT_ONCE)
        opened = [(row, sealed) for row in rows if (sealed := _sealed_anew(master_keys, store, row)) is not None]
        command = await connection.execute(
            store.replace,
            [row["key"] for row, _ in opened],
            [row["sealed"] for row, _ in opened],
            [new for _, new in opened],
        )
    done.rows[store.name] += int(command.split()[-1])
    done.unopened += len(rows) - len(opened)
    return rows


def _sealed_anew(master_keys: MasterKeys, store: Store, row: asyncpg.Record) -> bytes | None:
    owner = store.owner(row)
    try:
        return master_keys.seal(
            master_keys.open(row["sealed"], owner=owner, org=row["org"]), owner=owner, org=row["org"]
        )
    except SealError:
        return None
