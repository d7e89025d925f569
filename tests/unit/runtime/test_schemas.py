"""Schemas of event types: what is taken, what is said of a payload, and that no schema reaches anything or costs much."""

import json
import random
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from libs.common.runtime.schemas.cost import MOST_COST, BadSchemaError, Cost, pattern_cost
from libs.common.runtime.schemas.payload import DRAFT, PayloadSchema

ORDER: dict[str, Any] = {
    "$schema": DRAFT,
    "type": "object",
    "required": ["id", "amount"],
    "properties": {
        "id": {"type": "string", "pattern": "^ord_[0-9]+$"},
        "amount": {"type": "number", "minimum": 0},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}},
    },
    "$defs": {"line": {"type": "object", "required": ["sku"], "properties": {"sku": {"type": "string"}}}},
}
TREE: dict[str, Any] = {"properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}, "additionalProperties": False}


def said(schema: dict[str, Any], payload: Any) -> list[str]:
    return [str(violation) for violation in PayloadSchema(schema).violations(json.dumps(payload).encode())]


def refused(schema: dict[str, Any]) -> BadSchemaError:
    with pytest.raises(BadSchemaError) as error:
        PayloadSchema(schema)
    return error.value


# Payloads


def test_a_payload_that_fits_has_no_violations() -> None:
    assert said(ORDER, {"id": "ord_1", "amount": 3, "lines": [{"sku": "a"}]}) == []


def test_each_violation_is_told_with_its_path_and_without_what_the_payload_holds() -> None:
    payload = {"id": "secret", "amount": -7, "lines": [{"sku": "a"}, {"sku": 5}, {}]}
    assert said(ORDER, payload) == [
        "/amount: the value is less than the minimum of 0",
        '/id: the value does not match "^ord_[0-9]+$"',
        '/lines/1/sku: the value is not of type "string"',
        '/lines/2: "sku" is a required property',
    ]


def test_a_payload_that_is_no_json_violates_every_schema() -> None:
    assert PayloadSchema({}).violations(b"plain text")
    assert PayloadSchema({}).violations(b'{"a":1,"a":2}')


def test_a_recursive_schema_checks_a_recursive_payload() -> None:
    assert said(TREE, {"left": {"left": {}}, "right": {}}) == []
    assert said(TREE, {"left": {"left": {"x": 1}}})[0].startswith("/left/left")


@pytest.mark.parametrize("name", ["pattern", "$ref", "required", "dependentRequired", "enum", "items"])
def test_a_property_may_be_called_as_a_keyword_is(name: str) -> None:
    assert said({"properties": {name: {"type": "string"}}}, {name: 1}) == [
        f'/{name}: the value is not of type "string"'
    ]
    assert said({"properties": {name: True}}, {name: 1}) == []


# What is no schema


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"type": "strnig"}, ("type",)),
        ({"properties": {"a": {"minimum": "x"}}}, ("properties", "a", "minimum")),
        ({"pattern": "(a"}, ("pattern",)),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, ("$schema",)),
        ({"properties": {"a": {"$id": "https://example.com/a"}}}, ("properties", "a", "$id")),
    ],
)
def test_what_is_no_json_schema_2020_12_is_refused_with_its_path(schema: dict[str, Any], path: tuple[str, ...]) -> None:
    assert refused(schema).path == path


def test_what_only_a_reference_that_is_never_followed_leads_to_is_judged_as_well() -> None:
    assert refused({"then": {"$ref": "#/x"}, "x": {"required": True}}).reason == '"required" is not of type "array"'


@pytest.mark.parametrize("schema", [{"$ref": "#/$defs/none"}, {"$ref": "#none"}, {"allOf": [{"$ref": "#"}]}])
def test_a_reference_that_leads_nowhere_or_round_in_a_circle_is_refused(schema: dict[str, Any]) -> None:
    refused(schema)


# A schema never reaches a file or the network


@pytest.fixture
def listener() -> Any:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        yield server


@pytest.mark.parametrize("keyword", ["$ref", "$dynamicRef", "$schema", "$id"])
@pytest.mark.parametrize("inside", [False, True])
def test_no_keyword_makes_a_schema_fetch_anything(
    listener: socket.socket, tmp_path: Path, keyword: str, inside: bool
) -> None:
    (tmp_path / "schema.json").write_text('{"const": "read"}')
    port = listener.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}/schema.json", f"file://{tmp_path}/schema.json", "schema.json"):
        part = {keyword: url}
        schema: dict[str, Any] = {"properties": {"a": part}} if inside else {**part, "$defs": {"x": {"$ref": "#"}}}
        try:
            made = PayloadSchema(schema)
        except BadSchemaError:
            continue
        assert keyword == "$id"  # a name, which nothing is fetched from
        assert made.violations(b'{"a": "anything"}') == ()
    with pytest.raises(TimeoutError):
        listener.accept()


def test_a_vocabulary_is_a_name_only(listener: socket.socket) -> None:
    PayloadSchema({"$vocabulary": {f"http://127.0.0.1:{listener.getsockname()[1]}/v": True}}).violations(b"{}")
    with pytest.raises(TimeoutError):
        listener.accept()


# What a schema may cost


def bomb(levels: int) -> dict[str, Any]:
    doubling = [
        {"allOf": [{"$ref": f"#/$defs/d{level + 1}"}, {"$ref": f"#/$defs/d{level + 1}"}]} for level in range(levels)
    ]
    return {"$ref": "#/$defs/d0", "$defs": {f"d{n}": each for n, each in enumerate([*doubling, {"type": "string"}])}}


DOUBLING = {"allOf": [{"properties": {"a": {"$ref": "#"}}}, {"properties": {"a": {"$ref": "#"}}}]}


@pytest.mark.parametrize(
    "schema",
    [
        bomb(40),
        {"dependencies": {"a": {"$ref": "#/$defs/d0"}}, "$defs": bomb(40)["$defs"]},
        {"$ref": "#/x", "x": {"additionalItems": {"$ref": "#/$defs/d0"}}, "$defs": bomb(40)["$defs"]},
        DOUBLING,
        {"patternProperties": {f"^{n}.*y$": {} for n in range(500)}},
        {"items": {"allOf": [{}] * 3000}},
        {"items": {"anyOf": [False] * 3000}},
        {"items": {"dependencies": {f"{n}": [] for n in range(3000)}}},
        {"items": {"properties": {f"{n}": True for n in range(3000)}}},
    ],
)
def test_a_schema_that_could_take_too_long_is_refused(schema: dict[str, Any]) -> None:
    assert "too long" in refused(schema).reason


def test_an_anchor_that_stands_in_several_places_is_not_referred_to() -> None:
    anchors = {"a": {"$anchor": "x"}, "b": {"$anchor": "x", "type": "string"}}
    assert "several places" in refused({"$ref": "#x", "$defs": anchors}).reason
    assert "several places" in refused({"$ref": "#x", "$defs": {"b": anchors["b"]}, "examples": [anchors["a"]]}).reason
    assert said({"$defs": anchors}, 1) == []


def test_ordinary_schemas_are_cheap() -> None:
    assert Cost(ORDER).total() < 100
    assert Cost(TREE).total() < 500
    assert Cost(bomb(3)).total() < MOST_COST


@pytest.mark.parametrize(
    ("pattern", "states"),
    [
        ("abc", 3),
        ("[0-9a-f]{8}", 8),
        ("(a|b){10}", 30),
        ("((ab){10}){10}", 200),
        (r"\d{4}", 16),
        ("a{3,}", 3),
        ("{x}", 3),
    ],
)
def test_the_states_of_an_expression_are_counted_with_their_repetitions(pattern: str, states: int) -> None:
    assert pattern_cost(pattern) == min(2 * states, 60 + states)


def test_the_worst_expression_on_the_largest_payload_that_is_checked_takes_bounded_time() -> None:
    schema = PayloadSchema({"items": {"pattern": "(a|b)*a(a|b){60}c"}})
    chance = random.Random(1)
    text = "".join(chance.choice("ab") for _ in range(1024 * 1024))
    size = schema._most_bytes - 4
    began = time.process_time()
    assert schema.violations(json.dumps([text[:size]]).encode())
    assert time.process_time() - began < 3
    [violation] = schema.violations(json.dumps([text]).encode())
    assert "bytes only" in violation.message


@pytest.mark.parametrize("pattern", ["(a|b)*a(a|b){5000}c", "((((a{50}){50}){50}){50})", "(?=a)b", r"(a)\1"])
def test_an_expression_that_grows_too_large_or_may_backtrack_is_refused(pattern: str) -> None:
    refused({"pattern": pattern})


def test_many_violations_cost_no_more_than_a_few() -> None:
    schema = PayloadSchema({"items": {"type": "string"}})
    began = time.process_time()
    assert len(schema.violations(json.dumps(list(range(150_000))).encode())) == 1
    assert len(schema.violations(json.dumps(list(range(2_000))).encode())) == 10
    assert time.process_time() - began < 1
