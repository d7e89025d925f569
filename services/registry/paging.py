"""Pages: `{data, iterator, prevIterator, done}`, by the id of the last or first item, so that they hold as rows come.

`iterator` goes on after the page; with `-` and the first id before it, one goes back. `done` says that nothing lies
further in the direction gone.

A filter may let through one entry of a million, and no index helps where it asks for what changes or for several things
at once. So a page looks at `MOST_EXAMINED` entries of its list, in their order, and ends there: with fewer items than
`limit`, even with none, without `done`, and with an iterator behind the last entry that it has looked at.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

import asyncpg
import msgspec

from libs.common.domain import ids
from libs.common.domain.ids import BadIdError, Prefix
from libs.common.runtime.http import invalid
from services.registry.calls import Call
from services.registry.parameters import ITERATOR, LIMIT, ORDER

MOST_EXAMINED: Final = 5_000
"""Of so many entries, at most, a page is made."""

_FIRST: Final = UUID(int=0)
_LAST: Final = UUID(int=(1 << 128) - 1)

Item = TypeVar("Item")


class PageOut(msgspec.Struct, Generic[Item], kw_only=True, rename="camel"):
    """A page as the API has it."""

    data: Sequence[Item]
    iterator: str | None
    prev_iterator: str | None
    done: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Which page is asked for. `descending` is the direction of reading, not of the page."""

    limit: int
    iterator: str | None
    backwards: bool
    descending: bool

    @classmethod
    def at(cls, iterator: str | None, *, limit: int, descending: bool) -> "Page":
        """The page at an iterator of a list in that order."""
        backwards = iterator is not None and iterator.startswith("-")
        return cls(
            limit=limit,
            iterator=iterator.removeprefix("-") if iterator is not None else None,
            backwards=backwards,
            descending=descending is not backwards,
        )

    def bound(self, prefix: Prefix) -> UUID:
        """The id beyond which the page lies.

        Raises:
            ApiError: 422, the iterator is no such id.
        """
        if self.iterator is None:
            return _LAST if self.descending else _FIRST
        try:
            return ids.decode(prefix, self.iterator)
        except BadIdError as error:
            raise invalid(["query", "iterator"], f"it is {error}: take it from the page before") from None

    @property
    def fetched(self) -> int:
        """One more than the page holds, to learn whether there is more."""
        return self.limit + 1

    def span(self, bound: UUID, *, oldest_ms: int | None = None, newest_ms: int | None = None) -> tuple[UUID, UUID]:
        """The two ids between which the page lies.

        Args:
            bound: the id beyond which it lies.
            oldest_ms: nothing in it was born before that, in milliseconds since 1970.
            newest_ms: nothing in it was born later than in that millisecond.
        """
        above, below = (_FIRST, bound) if self.descending else (bound, _LAST)
        if oldest_ms is not None:
            above = max(above, ids.lowest(max(0, oldest_ms)))
        if newest_ms is not None:
            below = min(below, ids.lowest(max(0, newest_ms + 1)))
        return above, below

    def directed(self, sql: str, *, scope: str = "") -> str:
        """`sql` with `:beyond` and `:direction` as this page is read, `:most` entries examined.

        A list with a filter selects from its entries without the filter, `LIMIT :most`, since no planner moves a filter
        into what has a limit: there it would go on for as long as nothing passes. It numbers them (`examined`), says
        of each whether it is `wanted`, and keeps those that are, and the last. The entries are ordered once more after
        they are numbered; without that the planner does not know that it can stop at a page of them.

        Args:
            sql: the query.
            scope: the column that stands for `:scope`: by whose index the entries are found.
        """
        return (
            sql.replace(":most", str(MOST_EXAMINED))
            .replace(":scope", scope)
            .replace(":beyond", "<" if self.descending else ">")
            .replace(":direction", "DESC" if self.descending else "ASC")
        )

    def of(self, found: Sequence[Item], key: Callable[[Item], str]) -> PageOut[Item]:
        """The page of the items that were fetched, in the order of reading.

        Args:
            found: at most `fetched`.
            key: an item's id or name in the API.
        """
        items = list(found[: self.limit])
        ends = (key(items[0]), key(items[-1])) if items else None
        return self._page(items, ends, done=len(found) <= self.limit)

    def sifted(
        self,
        rows: Sequence[asyncpg.Record],
        out: Callable[[asyncpg.Record], Item],
        key: Callable[[asyncpg.Record], str],
    ) -> PageOut[Item]:
        """The page of what is wanted among the entries that were examined, in the order of reading.

        Args:
            rows: of a query that numbers its entries, at most `fetched`.
            out: makes an item of a row that is wanted.
            key: a row's id or name in the API.
        """
        edge = next((place for place, row in enumerate(rows) if row["examined"] == MOST_EXAMINED), None)
        # What lies beyond the edge though it was not examined, such as an attempt in flight, comes in its place.
        wanted = [row for row in (rows if edge is None else rows[: edge + 1]) if row["wanted"]]
        shown = wanted[: self.limit]
        last = rows[edge] if edge is not None and len(wanted) <= self.limit else next(reversed(shown), None)
        ends = (key(shown[0] if shown else last), key(last)) if last is not None else None
        return self._page([out(row) for row in shown], ends, done=edge is None and len(wanted) <= self.limit)

    def _page(self, items: list[Item], ends: tuple[str, str] | None, *, done: bool) -> PageOut[Item]:
        """The page between two ends, that where reading began first."""
        if self.backwards:
            items.reverse()
            ends = ends[::-1] if ends is not None else None
        return PageOut(
            data=items,
            iterator=ends[1] if ends is not None else None,
            prev_iterator=f"-{ends[0]}" if ends is not None else None,
            done=done,
        )


def read_page(call: Call, *, descending: bool) -> Page:
    """The page that a request asks for.

    Args:
        call: of an operation that declares `PAGE`.
        descending: the order of this list where `order` does not say.

    Raises:
        ApiError: 422.
    """
    order = call.asked(ORDER)
    descending = order == "descending" if order is not None else descending
    return Page.at(call.asked(ITERATOR), limit=call.asked(LIMIT), descending=descending)


def whole(items: Sequence[Any]) -> PageOut[Any]:
    """A list that is always one page."""
    return PageOut(data=items, iterator=None, prev_iterator=None, done=True)
