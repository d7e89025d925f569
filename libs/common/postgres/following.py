"""Reading on in the ledger, from where a follower has come to."""

from collections.abc import Collection, Sequence
from typing import Final

from msgspec import Struct

from libs.common.postgres.checkpoint import Cursor
from libs.common.postgres.ledger import Appended, appended
from libs.common.postgres.pool import Connection, Pool

_NEXT: Final = """
    WITH batch AS MATERIALIZED (
        SELECT f.stream, f.version, f.epoch, f.xact, f.position, f.app, f.endpoint, f.kind, f.schema, f.at,
            CASE WHEN f.kind = ANY($5) THEN f.data END AS data
        FROM hookledger.fact f
        WHERE (f.epoch, f.xact, f.position) > ($1, $2, $3)
          AND (f.epoch, f.xact) < ((SELECT max(epoch) FROM hookledger.ledger_epoch),
              pg_snapshot_xmin(pg_current_snapshot()))
          AND ($6::int IS NULL OR (f.epoch, f.xact, f.position) <= ($6, $7, $8))
        ORDER BY f.epoch, f.xact, f.position LIMIT $4
    ), ends AS (
        SELECT count(*) OVER () AS facts, epoch, xact, position
        FROM batch ORDER BY epoch DESC, xact DESC, position DESC LIMIT 1
    )
    SELECT e.facts, e.epoch, e.xact, e.position, b.stream, b.version, b.app, b.endpoint, b.kind, b.schema, b.at, b.data
    FROM ends e LEFT JOIN batch b ON b.data IS NOT NULL
    ORDER BY b.epoch, b.xact, b.position
"""


class Read(Struct, frozen=True, kw_only=True):
    """What comes next: how many facts of any kind, the place of the last of them, and those of the kinds wanted."""

    facts: int
    last: Cursor
    found: Sequence[Appended]


async def read_on(
    connection: "Connection | Pool", cursor: Cursor, *, kinds: Collection[str], most: int, until: Cursor | None = None
) -> Read:
    """The next facts after `cursor`, in the order in which the ledger is followed.

    Args:
        connection: to read with.
        cursor: where the follower has come to.
        kinds: of the facts that are wanted.
        most: facts of any kind to read at a time.
        until: the last fact to read, where there is one.
    """
    rows = await connection.fetch(_NEXT, *cursor, most, list(kinds), *(until or (None, None, None)))
    if not rows:
        return Read(facts=0, last=cursor, found=())
    first = rows[0]
    return Read(
        facts=first["facts"],
        last=Cursor(first["epoch"], first["xact"], first["position"]),
        found=[appended(row) for row in rows if row["data"] is not None],
    )
