"""The ledger's codec: a fact is its kind, the schema number of its data, and data in JSON that psql can show.

What the ledger has a column for (`at`, `app`, `endpoint`) is not in the data. When a fact gains or changes a field, its
schema number rises here and an upcaster turns older data into today's shape; the ledger itself is never rewritten.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, cast, get_args, get_type_hints
from uuid import UUID

import msgspec
from msgspec import UNSET, Struct
from msgspec.structs import asdict, replace

from libs.common.domain.facts import DeliveryFact, Fact, MessageFact

SCHEMA: Final = 1
_COLUMNS: Final = frozenset({"at", "app", "endpoint"})


class UnknownFactError(Exception):
    """The ledger holds a kind or a schema number that this version does not know: the code is older than the data."""


class _Shape(Struct, frozen=True):
    """How one kind of fact is laid out in `data`: its decoder, and what is not in there."""

    fact: type[Fact]
    data: msgspec.json.Decoder[Any]
    columns: Sequence[str]
    without_columns: Mapping[str, Any]


def _shape(fact: type[Fact]) -> _Shape:
    hints = get_type_hints(fact)
    inside = [field for field in msgspec.structs.fields(fact) if field.name not in _COLUMNS]
    if any(not field.required for field in inside):
        raise TypeError(f"{fact.__name__}: a fact has no defaults, it says everything")
    wire = msgspec.defstruct(f"{fact.__name__}Data", [(field.name, hints[field.name]) for field in inside])
    columns = [name for name in fact.__struct_fields__ if name in _COLUMNS]
    return _Shape(
        fact=fact, data=msgspec.json.Decoder(wire), columns=columns, without_columns=dict.fromkeys(columns, UNSET)
    )


_SHAPES: Final[Mapping[str, _Shape]] = {
    kind.__name__: _shape(kind) for union in (MessageFact, DeliveryFact) for kind in get_args(union)
}
_ENCODER: Final = msgspec.json.Encoder()

KINDS: Final = frozenset(_SHAPES)

Upcaster = Callable[[bytes], bytes]
_UPCASTERS: Final[Mapping[tuple[str, int], Upcaster]] = {}
"""From (kind, schema number) to the step that brings its data to the next number."""


def encode(fact: Fact) -> tuple[str, int, bytes]:
    """Kind, schema number and data of `fact`."""
    kind = type(fact).__name__
    # msgspec leaves out what is unset.
    return kind, SCHEMA, _ENCODER.encode(replace(fact, **_SHAPES[kind].without_columns))


def decode(kind: str, schema: int, data: bytes, *, at: datetime, app: UUID, endpoint: UUID | None) -> Fact:
    """The fact that a row of the ledger records, in its data and its columns.

    Raises:
        UnknownFactError: a kind or schema number from a newer version.
    """
    shape = _SHAPES.get(kind)
    if shape is None or schema > SCHEMA:
        raise UnknownFactError(f"{kind}, schema {schema}: written by a newer version of Hookledger")
    for number in range(schema, SCHEMA):
        data = _UPCASTERS[kind, number](data)
    values = asdict(shape.data.decode(data))
    columns = {"at": at, "app": app, "endpoint": endpoint}
    for name in shape.columns:
        values[name] = columns[name]
    return cast("Callable[..., Fact]", shape.fact)(**values)
