"""Following the ledger: where a follower has come to, and whose turn it is to follow.

The order is (epoch, xact, position), and only what lies below the snapshot's xmin is read, so that no transaction that
commits late is passed over. One process at a time follows.
"""

from datetime import timedelta
from typing import Final, NamedTuple
from uuid import UUID

from libs.common.postgres.pool import Connection, Pool

OWNED_FOR: Final = timedelta(seconds=10)


class Cursor(NamedTuple):
    """A fact's place in the order in which the ledger is followed."""

    epoch: int
    xact: int
    position: int


BEGINNING: Final = Cursor(epoch=0, xact=0, position=0)


class Checkpoint:
    """A follower's row in `checkpoint`, as one process sees it.

    Args:
        follower: its name.
        process: who follows.
    """

    def __init__(self, follower: str, process: UUID) -> None:
        self._follower = follower
        self._process = process

    async def own(self, connection: "Connection | Pool") -> Cursor | None:
        """Where the follower has come to, if this process is or becomes its owner: for `OWNED_FOR`, from now on.

        Within a transaction nobody else owns, moves or rewinds the checkpoint until it ends.
        """
        row = await connection.fetchrow(
            """
            INSERT INTO hookledger.checkpoint AS c (follower, epoch, xact, position, owner, owned_until)
            VALUES ($1, $4, $5, $6, $2, clock_timestamp() + $3)
            ON CONFLICT (follower) DO UPDATE SET owner = $2, owned_until = clock_timestamp() + $3
            WHERE c.owner IS NULL OR c.owner = $2 OR c.owned_until < clock_timestamp()
            RETURNING c.epoch, c.xact, c.position
            """,
            self._follower,
            self._process,
            OWNED_FOR,
            *BEGINNING,
        )
        return None if row is None else Cursor(*row)

    async def move(self, connection: "Connection | Pool", cursor: Cursor) -> None:
        """Everything up to and including `cursor` is done; nothing happens if another process owns the checkpoint."""
        await connection.execute(
            """
            UPDATE hookledger.checkpoint SET epoch = $3, xact = $4, position = $5
            WHERE follower = $1 AND owner = $2
            """,
            self._follower,
            self._process,
            *cursor,
        )

    async def rewind(self, connection: Connection, cursor: Cursor) -> None:
        """Begin again behind `cursor`, and own the checkpoint whoever owned it."""
        await connection.execute(
            """
            INSERT INTO hookledger.checkpoint (follower, epoch, xact, position, owner, owned_until)
            VALUES ($1, $4, $5, $6, $2, clock_timestamp() + $3)
            ON CONFLICT (follower) DO UPDATE
            SET epoch = excluded.epoch, xact = excluded.xact, position = excluded.position, owner = excluded.owner,
                owned_until = excluded.owned_until
            """,
            self._follower,
            self._process,
            OWNED_FOR,
            *cursor,
        )

    async def leave(self, connection: "Connection | Pool") -> None:
        """Let another process follow at once."""
        await connection.execute(
            "UPDATE hookledger.checkpoint SET owner = NULL WHERE follower = $1 AND owner = $2",
            self._follower,
            self._process,
        )
