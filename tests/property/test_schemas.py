"""Schemas of event types, whatever their properties are called and whatever stands under their keywords."""

from contextlib import suppress
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from libs.common.runtime.schemas.cost import BadSchemaError, Cost
from libs.common.runtime.schemas.payload import PayloadSchema

LEAVES: dict[str, st.SearchStrategy[Any]] = {
    "type": st.sampled_from(["string", "object", "array", "number"]),
    "pattern": st.just("^a{2,9}$"),
    "required": st.just(["a", "b"]),
    "enum": st.just([1, {"$ref": 3}]),
    "dependentRequired": st.just({"a": ["b"]}),
    "uniqueItems": st.booleans(),
    "$ref": st.just("#/$defs/known"),
}
ONE = ("not", "if", "then", "else", "additionalProperties", "propertyNames", "items", "contains")
SEVERAL = ("allOf", "anyOf", "oneOf", "prefixItems")
NAMED = ("properties", "patternProperties", "dependentSchemas", "dependencies")
KEYWORDS = sorted({*LEAVES, *ONE, *SEVERAL, *NAMED, "$dynamicRef", "$anchor", "$defs", "definitions"})


def schemas(names: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    """Valid schemas whose properties have these names."""
    return st.recursive(
        st.booleans() | st.fixed_dictionaries({}, optional=LEAVES),
        lambda inner: st.fixed_dictionaries(
            {},
            optional={
                **LEAVES,
                **dict.fromkeys(ONE, inner),
                **dict.fromkeys(SEVERAL, st.lists(inner, min_size=1, max_size=3)),
                **dict.fromkeys(NAMED, st.dictionaries(names, inner, max_size=3)),
            },
        ),
        max_leaves=8,
    )


KEYWORD_NAMED = schemas(st.sampled_from(KEYWORDS))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.sampled_from(["a", "#", "#/x", "#/x/a"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*KEYWORDS, "a", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


def whole(schema: Any) -> dict[str, Any]:
    return {"properties": {"a": schema}, "$defs": {"known": {"type": "string"}}}


def renamed(schema: Any) -> Any:
    """The schema, with another name that is no keyword for each of its properties."""
    if isinstance(schema, list):
        return [renamed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {keyword: _with_other_names(keyword, value) for keyword, value in schema.items()}


def _with_other_names(keyword: str, value: Any) -> Any:
    if keyword not in NAMED:
        return renamed(value)
    ending = "" if keyword == "patternProperties" else "_"  # expressions have a cost of their own
    return {f"{name}{ending}": renamed(each) for name, each in value.items()}


@given(KEYWORD_NAMED)
@example({"properties": {"pattern": {"type": "string"}, "$ref": {"type": "string"}, "required": True}})
@example({"properties": {"enum": {"type": "string"}, "dependentRequired": {"default": 3}}})
def test_a_property_may_be_called_as_a_keyword_is_and_costs_the_same(schema: Any) -> None:
    PayloadSchema(whole(schema))
    assert Cost(whole(schema)).total() == Cost(whole(renamed(schema))).total()


@given(st.dictionaries(st.sampled_from([*KEYWORDS, "x"]), JSON, max_size=5))
@example({"then": {"$ref": "#/x"}, "x": {"required": True}})
@example({"then": {"$ref": "#/x"}, "x": {"pattern": 3}})
@example({"then": {"$ref": "#/x"}, "x": {"$ref": 3}})
@example({"then": {"$ref": "#/x"}, "x": {"dependentRequired": {"a": 3}}})
def test_whatever_is_no_schema_is_refused_as_such(schema: dict[str, Any]) -> None:
    with suppress(BadSchemaError):
        PayloadSchema(schema).violations(b'{"a": [1, {"x": "y"}]}')
