"""Reading on in the ledger, from where a follower has come to.

Several follow in one process, and what each has to read is the same: `Tail` keeps what was read last, so that a fact is
read and decoded once for all of them.
"""

from collections import deque
from collections.abc import Awaitable, Collection, Sequence
from itertools import dropwhile
from typing import Final, Protocol

from msgspec import Struct
from msgspec.structs import replace

from libs.common.postgres.checkpoint import Cursor
from libs.common.postgres.ledger import Appended, appended
from libs.common.postgres.pool import Connection, Pool

_NEXT: Final = """
    SELECT f.epoch, f.xact, f.position, f.stream, f.version, f.app, f.endpoint, f.kind, f.schema, f.at, f.data
    FROM hookledger.fact f
    WHERE hookledger.is_followed(f.kind, f.data)
      AND (f.epoch, f.xact, f.position) > ($1, $2, $3)
      AND (f.epoch, f.xact) < ((SELECT max(epoch) FROM hookledger.ledger_epoch),
          pg_snapshot_xmin(pg_current_snapshot()))
      AND ($5::int IS NULL OR (f.epoch, f.xact, f.position) <= ($5, $6, $7))
    ORDER BY f.epoch, f.xact, f.position LIMIT $4
"""


class Read(Struct, frozen=True, kw_only=True):
    """What comes next: how many facts, the place of the last of them, and those of the kinds wanted."""

    facts: int
    last: Cursor
    found: Sequence[Appended]


class ReadOn(Protocol):
    """How a follower reads: `read_on`, or that of a `Tail`."""

    def __call__(
        self, connection: "Connection | Pool", cursor: Cursor, *, kinds: Collection[str], most: int
    ) -> Awaitable[Read]:
        """See `read_on`."""


async def read_on(
    connection: "Connection | Pool", cursor: Cursor, *, kinds: Collection[str], most: int, until: Cursor | None = None
) -> Read:
    """The next facts after `cursor`, in the order in which the ledger is followed.

    Args:
        connection: to read with.
        cursor: where the follower has come to.
        kinds: of the facts that are wanted, among those that are followed (`hookledger.is_followed`).
        most: facts to read at a time, of whichever kind.
        until: the last fact to read, where there is one.
    """
    rows = await connection.fetch(_NEXT, *cursor, most, *(until or (None, None, None)))
    if not rows:
        return Read(facts=0, last=cursor, found=())
    last = rows[-1]
    return Read(
        facts=len(rows),
        last=Cursor(last["epoch"], last["xact"], last["position"]),
        found=[appended(row) for row in rows if row["kind"] in kinds],
    )


KEPT_FACTS: Final = 20_000
"""Two seconds' worth at thousands of deliveries a second: the slowest follower looks every second."""


class Tail:
    """The end of the ledger, as the followers of one process have come to it.

    Args:
        kinds: of the facts that any of them wants.
        keep: so many facts are kept, and those that were read together with them.
    """

    def __init__(self, kinds: Collection[str], *, keep: int = KEPT_FACTS) -> None:
        self._kinds = frozenset(kinds)
        self._keep = keep
        self._reads: deque[tuple[Cursor, Read]] = deque()
        self._facts = 0

    async def read_on(
        self, connection: "Connection | Pool", cursor: Cursor, *, kinds: Collection[str], most: int
    ) -> Read:
        """As the function, but that where `most` or more come there may be more to come.

        Who is behind what is kept reads by itself, up to where that begins.
        """
        assert self._kinds.issuperset(kinds), "the tail was made without these kinds"
        if not self._reads or cursor >= self._reads[-1][1].last:
            read = await read_on(connection, cursor, kinds=self._kinds, most=most)
            self._add(cursor, read)
            return _of_kinds(read, kinds)
        known = list(dropwhile(lambda kept: kept[0] < cursor, self._reads))
        if known and known[0][0] == cursor:
            return _of_kinds(_joined([read for _, read in known], most), kinds)
        next_start = known[0][0] if known else self._reads[-1][1].last
        read = await read_on(connection, cursor, kinds=kinds, most=most, until=next_start)
        if read.facts:
            return read
        return await self.read_on(connection, next_start, kinds=kinds, most=most)  # a place where no fact stands

    def _add(self, start: Cursor, read: Read) -> None:
        """Keep what follows the kept, or begins anew; another may have read the same meanwhile."""
        if not read.facts:
            return
        if self._reads and self._reads[-1][1].last != start:
            if start < self._reads[-1][1].last:
                return
            self._reads.clear()
            self._facts = 0
        self._reads.append((start, read))
        self._facts += read.facts
        while len(self._reads) > 1 and self._facts - self._reads[0][1].facts >= self._keep:
            self._facts -= self._reads.popleft()[1].facts


def _joined(reads: Sequence[Read], most: int) -> Read:
    """The first of what was read one after another, until it is as many facts as `most`."""
    facts = 0
    found: list[Appended] = []
    for read in reads:
        facts += read.facts
        found += read.found
        if facts >= most:
            break
    return Read(facts=facts, last=read.last, found=found)


def _of_kinds(read: Read, kinds: Collection[str]) -> Read:
    return replace(read, found=[item for item in read.found if type(item.fact).__name__ in kinds])
