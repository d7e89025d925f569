"""The ledger's codec: a fact is its kind, the schema number of its data, and data in JSON that psql can show.

What the ledger has a column for (`at`, `app`, `endpoint`) is not in the data. When a fact gains or changes a field, its
schema number rises here and an upcaster turns older data into today's shape; the ledger itself is never rewritten.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, cast, get_args, get_type_hints
from uuid import UUID

import msgspec
from msgspec import Struct

from libs.common.domain.facts import DeliveryFact, Fact, MessageFact

SCHEMA: Final = 1
_COLUMNS: Final = frozenset({"at", "app", "endpoint"})


class UnknownFactError(Exception):
    """The ledger holds a kind or a schema number that this version does not know: the code is older than the data."""


class Recorded(Struct, frozen=True, kw_only=True):
    """A fact as a row of the ledger has it."""

    stream: UUID
    version: int
    app: UUID
    endpoint: UUID | None
    kind: str
    schema: int
    at: datetime
    data: bytes


class _Shape(Struct, frozen=True):
    """How one kind of fact is laid out in `data`."""

    fact: type[Fact]
    names: tuple[str, ...]
    wire: type[msgspec.Struct]
    columns: tuple[str, ...]


def _shape(fact: type[Fact]) -> _Shape:
    hints = get_type_hints(fact)
    inside = [field for field in msgspec.structs.fields(fact) if field.name not in _COLUMNS]
    if any(not field.required for field in inside):
        raise TypeError(f"{fact.__name__}: a fact has no defaults, it says everything")
    wire = msgspec.defstruct(f"{fact.__name__}Data", [(field.name, hints[field.name]) for field in inside])
    columns = tuple(name for name in fact.__struct_fields__ if name in _COLUMNS)
    return _Shape(fact=fact, names=tuple(field.name for field in inside), wire=wire, columns=columns)


_SHAPES: Final[Mapping[str, _Shape]] = {
    kind.__name__: _shape(kind) for union in (MessageFact, DeliveryFact) for kind in get_args(union)
}
_DECODERS: Final = {kind: msgspec.json.Decoder(shape.wire) for kind, shape in _SHAPES.items()}
_ENCODER: Final = msgspec.json.Encoder()

KINDS: Final = frozenset(_SHAPES)

Upcaster = Callable[[bytes], bytes]
_UPCASTERS: Final[Mapping[tuple[str, int], Upcaster]] = {}
"""From (kind, schema number) to the step that brings its data to the next number."""


def encode(fact: Fact) -> tuple[str, int, bytes]:
    """Kind, schema number and data of `fact`."""
    kind = type(fact).__name__
    shape = _SHAPES[kind]
    return kind, SCHEMA, _ENCODER.encode(shape.wire(*[getattr(fact, name) for name in shape.names]))


def decode(row: Recorded) -> Fact:
    """The fact that a row of the ledger records.

    Raises:
        UnknownFactError: a kind or schema number from a newer version.
    """
    shape = _SHAPES.get(row.kind)
    if shape is None or row.schema > SCHEMA:
        raise UnknownFactError(f"{row.kind}, schema {row.schema}: written by a newer version of Hookledger")
    data = row.data
    for number in range(row.schema, SCHEMA):
        data = _UPCASTERS[row.kind, number](data)
    wire = _DECODERS[row.kind].decode(data)
    values: dict[str, Any] = {name: getattr(wire, name) for name in shape.names}
    values |= {name: getattr(row, name) for name in shape.columns}
    return cast("Callable[..., Fact]", shape.fact)(**values)
