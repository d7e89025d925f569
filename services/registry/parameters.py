"""The parameters that queries take: declared once, read by handlers and shown in the document."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

from multidict import MultiMapping

from libs.common.contracts.operations import QueryParameter
from services.registry import parsing

Value = TypeVar("Value")
Query = MultiMapping[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter(QueryParameter, Generic[Value]):
    """A parameter, and how it is read from a query.

    Attributes:
        read: its value; raises ApiError 422 for one that is none.
    """

    read: Callable[[Query], Value]


def number(name: str, description: str, *, default: int, least: int, most: int) -> Parameter[int]:
    """A whole number in bounds."""
    schema = {"type": "integer", "minimum": least, "maximum": most, "default": default}
    return Parameter(
        name=name,
        schema=schema,
        description=description,
        read=lambda query: parsing.read_number(query, name, default=default, least=least, most=most),
    )


def flag(name: str, description: str, *, default: bool) -> Parameter[bool]:
    """`true` or `false`."""
    return Parameter(
        name=name,
        schema={"type": "boolean", "default": default},
        description=description,
        read=lambda query: parsing.read_flag(query, name, default=default),
    )


def choice(name: str, description: str, choices: Sequence[str]) -> Parameter[str | None]:
    """One of a few."""
    return Parameter(
        name=name,
        schema={"type": "string", "enum": list(choices)},
        description=description,
        read=lambda query: parsing.read_choice(query, name, choices),
    )


def time(name: str, description: str) -> Parameter[datetime | None]:
    """A time as in RFC 3339."""
    return Parameter(
        name=name,
        schema={"type": "string", "format": "date-time"},
        description=description,
        read=lambda query: parsing.read_time(query, name),
    )


def text(name: str, description: str, **bounds: Any) -> Parameter[str | None]:
    """A text that names something; what names nothing that there is, is judged where it is looked up."""
    return Parameter(
        name=name,
        schema={"type": "string", **bounds},
        description=description,
        read=lambda query: parsing.read_text(query, name),
    )


def texts(name: str, description: str, choices: Sequence[str] | None = None) -> Parameter[list[str] | None]:
    """Several texts, of these choices where there are some."""
    item: dict[str, Any] = {"type": "string"} if choices is None else {"enum": list(choices)}
    return Parameter(
        name=name,
        schema={"type": "array", "items": item, "maxItems": parsing.LONGEST_LIST},
        description=description,
        read=lambda query: parsing.read_list(query, name, choices),
    )


LIMIT: Final = number("limit", "Items on a page, at most.", default=50, least=1, most=250)
ITERATOR: Final = text("iterator", "Where the page begins: `iterator` or `prevIterator` of another page.")
ORDER: Final = choice(
    "order",
    "The order of the whole list. Without it applications, event types and API keys ascend, everything else descends.",
    ("ascending", "descending"),
)
PAGE: Final = (LIMIT, ITERATOR, ORDER)
