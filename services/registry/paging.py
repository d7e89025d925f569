"""Pages: `{data, iterator, prevIterator, done}`, by the id of the last or first item, so that they hold as rows come.

`iterator` goes on after the page; with `-` and the first id before it, one goes back. `done` says that nothing lies
further in the direction gone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

import msgspec

from libs.common.domain import ids
from libs.common.domain.ids import BadIdError, Prefix
from libs.common.runtime.http import invalid
from services.registry.calls import Call
from services.registry.parameters import ITERATOR, LIMIT, ORDER

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

    def directed(self, sql: str) -> str:
        """`sql` with `:beyond` and `:direction` as this page is read."""
        return sql.replace(":beyond", "<" if self.descending else ">").replace(
            ":direction", "DESC" if self.descending else "ASC"
        )

    def of(self, found: Sequence[Item], key: Callable[[Item], str]) -> PageOut[Item]:
        """The page of the items that were fetched, in the order of reading.

        Args:
            found: at most `fetched`.
            key: an item's id or name in the API.
        """
        items = list(found[: self.limit])
        if self.backwards:
            items.reverse()
        return PageOut(
            data=items,
            iterator=key(items[-1]) if items else None,
            prev_iterator=f"-{key(items[0])}" if items else None,
            done=len(found) <= self.limit,
        )


def read_page(call: Call, *, descending: bool) -> Page:
    """The page that a request asks for.

    Args:
        call: of an operation that declares `PAGE`, or `ORDERED_PAGE` where `order` may choose the other direction.
        descending: the order of this list by default.

    Raises:
        ApiError: 422.
    """
    if ORDER in call.operation.query:
        order = call.asked(ORDER)
        descending = order == "descending" if order is not None else descending
    return Page.at(call.asked(ITERATOR), limit=call.asked(LIMIT), descending=descending)


def whole(items: Sequence[Any]) -> PageOut[Any]:
    """A list that is always one page."""
    return PageOut(data=items, iterator=None, prev_iterator=None, done=True)
