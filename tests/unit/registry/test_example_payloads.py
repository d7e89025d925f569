"""Examples of payloads, from schemas as people write them."""

from typing import Any

import msgspec
import pytest

from services.registry.example_payloads import payload_of


@pytest.mark.parametrize(
    ("schemas", "payload"),
    [
        ({}, {}),
        ({"1": {"examples": [{"a": 1}]}}, {"a": 1}),
        ({"1": {"example": {"a": 1}}}, {"a": 1}),
        ({"9": {"example": {"v": 9}}, "10": {"example": {"v": 10}}}, {"v": 10}),
        ({"1": {"type": "string"}}, {}),
        ({"1": {"properties": {"kind": {"const": "x"}, "tags": {"type": "array", "items": {"enum": ["b"]}}}}},
         {"kind": "x", "tags": ["b"]}),
        ({"1": {"properties": {"at": {"type": ["string", "null"], "format": "date"}, "odd": True}}},
         {"at": "2026-01-01", "odd": {}}),
    ],
)  # fmt: skip
def test_the_newest_schema_gives_the_example(schemas: dict[str, Any], payload: dict[str, Any]) -> None:
    assert (
        payload_of({version: msgspec.Raw(msgspec.json.encode(schema)) for version, schema in schemas.items()})
        == payload
    )


def test_a_schema_without_end_gives_an_example_with_one() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(50):
        schema = {"type": "object", "properties": {"in": schema}}
    assert payload_of({"1": msgspec.Raw(msgspec.json.encode(schema))})
