"""Expressions over payloads: what they come to, what is refused, and that no expression costs more than its budget."""

import json
import time
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from libs.common.domain.endpoint import FilterVerdict
from libs.common.runtime.expressions.compiled import LONGEST_EXPRESSION, BadExpressionError, compiled
from libs.common.runtime.expressions.evaluation import (
    MOST_FILTER_STEPS,
    MOST_STEPS,
    PayloadFilters,
    TransformationError,
    transform,
)

ORDER = b'{"type":"order","amount":120,"customer":{"country":"DE","tags":["a","b"]},"items":[{"p":1},{"p":2}]}'
PATIENCE_SECONDS = 1.0
"""Of CPU; the budgets below come to a twentieth of it."""


def judge(expression: str, body: bytes = ORDER) -> FilterVerdict:
    return PayloadFilters(body).judge(expression)


# Filters


@pytest.mark.parametrize(
    "expression",
    [
        "amount > `100`",
        "customer.country == 'DE' && type == 'order'",
        "contains(customer.tags, 'b')",
        "length(items[?p > `1`]) == `1`",
        "!missing",
        "customer.country == `DE`",  # the deprecated spelling, which many write
    ],
)
def test_a_message_passes_when_the_result_is_true(expression: str) -> None:
    assert judge(expression) is FilterVerdict.PASSED


@pytest.mark.parametrize("expression", ["amount > `200`", "amount", "customer", "missing", "'true'", "`1`", "&amount"])
def test_any_other_result_is_no_match(expression: str) -> None:
    assert judge(expression) is FilterVerdict.NOT_PASSED


@pytest.mark.parametrize(
    "expression",
    ["sum(customer)", "type > `1`", "contains(type, `1`)", "items[::0]", "sort_by(items, &missing)", "avg(items)"],
)
def test_a_filter_that_does_not_apply_to_the_payload_failed(expression: str) -> None:
    assert judge(expression) is FilterVerdict.FAILED


@pytest.mark.parametrize("body", [b"", b"plain text", b"\xff", b"{", b"NaN"])
def test_a_payload_that_is_no_json_fails_every_filter(body: bytes) -> None:
    filters = PayloadFilters(body)
    assert [filters.judge(text) for text in ("`true`", "@ == `null`", "`true`")] == [FilterVerdict.FAILED] * 3


def test_a_payload_is_not_touched_until_a_filter_asks() -> None:
    filters = PayloadFilters(ORDER)
    assert not filters.asked
    filters.judge("amount")
    assert filters.asked


def test_the_filters_of_one_message_share_a_budget_and_cheap_ones_come_first() -> None:
    body = json.dumps({"n": list(range(MOST_STEPS))}).encode()
    filters = PayloadFilters(body)
    assert filters.judge("length(n) > `1`") is FilterVerdict.PASSED
    costly = [filters.judge(f"n[?@ > `{number}`]") for number in range(MOST_FILTER_STEPS // MOST_STEPS + 1)]
    assert costly == [FilterVerdict.TOO_COSTLY] * len(costly)
    assert filters.judge("length(n) > `2`") is FilterVerdict.TOO_COSTLY  # nothing is left
    assert filters.judge("length(n) > `1`") is FilterVerdict.PASSED  # and this one is known


# What is refused when an endpoint is given it


@pytest.mark.parametrize(
    ("expression", "column"),
    [
        ("", 1),
        ("amount >", 9),
        ("amount > > 1", 10),
        ("amount = 1", 8),
        ("a.b.#", 5),
        ("amount > `1` && nope(@)", 17),
        ("length(a) == length()", 1),
        ("'open", 1),
        ("a[", 3),
        ("foo bar", 5),
    ],
)
def test_an_expression_that_does_not_parse_is_refused_with_the_column(expression: str, column: int) -> None:
    with pytest.raises(BadExpressionError, match=rf"column {column}:") as refused:
        compiled(expression)
    assert refused.value.column == column


@pytest.mark.parametrize(
    "expression",
    ["a" * (LONGEST_EXPRESSION + 1), "(" * 1000 + "a" + ")" * 1000, "!" * 1000 + "a", "a" + " | a" * 400, "a" + ".*" * 200,
     "`" + "[" * 2000 + "`", "[" * 2000],
)  # fmt: skip
def test_length_and_nesting_are_bounded(expression: str) -> None:
    with pytest.raises(BadExpressionError):
        compiled(expression)


def column_refused(text: str) -> int | None:
    try:
        compiled(text)
    except BadExpressionError as refused:
        return refused.column
    return None


@given(st.text(alphabet="ab@.*[]?|&!(){}:,`'\"<>=-10 \\", max_size=40) | st.text(max_size=20))
@example("a[99999999999999999999999]")
@example("[?")
@settings(max_examples=200, deadline=None)
def test_any_text_is_compiled_or_refused_and_what_is_compiled_has_a_verdict(text: str) -> None:
    column = column_refused(text)
    if column is not None:
        assert 1 <= column <= len(text) + 1
        return
    assert judge(text) in FilterVerdict
    assert outcome(text, ORDER) is not None


# No expression costs more than its budget

BIG: dict[str, Any] = {
    "a": "x" * 300_000,
    "b": "x" * 300_000,
    "i": list(range(60_000)),
    "m": {f"k{number}": number for number in range(20_000)},
}
PAIRS = "|".join(["[@,@]"] * 20)
HOSTILE = [
    "[@,@][] | " * 40 + "length(@)",  # 2^40 elements
    "[@,@] | " * 40 + "to_string(@)",  # 2^40 copies, written out
    f"[{PAIRS},{PAIRS}] | [0] == [1]",  # 2^20 comparisons, each of two values that are not one object
    "a | " + "join('', [@,@]) | " * 20 + "length(@)",  # 2^20 times 300 KB
    "join(a, i[*].to_string(@))",
    "[{x:a,y:b}] | " + "[@,@][] | " * 30 + "[?x==y]",
    "[i] | " + "[@,@][] | " * 20 + "map(&length(sort(@)), @)",
    "i" + " | [::-1]" * 40,
    "i[*].[@,@,@,@,@,@]",
    "*.*.*",
    "to_string(@)",
    "map(&sort(@), [i,i,i,i,i,i,i,i])",
    "[m,m,m,m,m,m] | [*].merge(@, @, @, @)",
]


@pytest.mark.parametrize("expression", HOSTILE)
def test_a_hostile_expression_over_a_megabyte_ends_at_its_budget(expression: str) -> None:
    compiled(expression)
    body = json.dumps(BIG).encode()
    began = time.process_time()
    assert judge(expression, body) is FilterVerdict.TOO_COSTLY
    with pytest.raises(TransformationError, match="steps"):
        transform(expression, body)
    assert time.process_time() - began < PATIENCE_SECONDS


def test_the_result_of_a_transformation_is_paid_for_however_often_its_parts_are_shared() -> None:
    with pytest.raises(TransformationError, match="steps"):
        transform("[@,@] | " * 30 + "@", b'{"a":1}')
    with pytest.raises(TransformationError, match="larger"):
        transform("[a,a,a,a]", json.dumps(BIG).encode())


# Transformations


def outcome(expression: str, body: bytes) -> bytes | str:
    try:
        return transform(expression, body)
    except TransformationError as error:
        return str(error)


def test_a_transformation_is_the_result_as_json() -> None:
    expression = "{kind: type, total: sum(items[].p), country: customer.country, none: missing}"
    assert transform(expression, ORDER) == b'{"kind":"order","total":3,"country":"DE","none":null}'


def test_the_same_two_always_make_the_same_bytes() -> None:
    body = '{"z":1,"a":{"y":2.50,"b":"ü"},"n":18446744073709551615}'.encode()
    assert (
        transform("@", body)
        == transform("@", body)
        == '{"z":1,"a":{"y":2.5,"b":"ü"},"n":18446744073709551615}'.encode()
    )


@pytest.mark.parametrize(
    ("expression", "body", "reason", "fault"),
    [
        ("a", b"plain text", "not JSON", "payload_not_json"),
        ("sum(a)", b'{"a":"x"}', "does not apply", "does_not_apply"),
        ("&a", b"{}", "does not apply", "does_not_apply"),
        ("[&a]", b"{}", "does not apply", "does_not_apply"),
        ("`99999999999999999999999`", b"{}", "does not apply", "does_not_apply"),
        ("a b", b"{}", "column 3", "bad_expression"),
        ("[@,@] | " * 30 + "@", b"{}", "steps", "too_costly"),
        pytest.param("[@,@]", json.dumps("x" * 600_000).encode(), "larger", "result_too_large", id="larger"),
    ],
)
def test_a_transformation_that_fails_says_why(expression: str, body: bytes, reason: str, fault: str) -> None:
    with pytest.raises(TransformationError, match=reason) as failed:
        transform(expression, body)
    assert failed.value.fault == fault


def test_only_the_message_for_whoever_may_see_the_payload_quotes_it() -> None:
    with pytest.raises(TransformationError, match="4711 personal") as failed:
        transform("sum(a)", b'{"a":"4711 personal"}')
    assert failed.value.fault == "does_not_apply"
