"""JSON from outside: taken if every parser reads it alike, refused otherwise."""

from typing import Any

import pytest

from libs.common.contracts.strictjson import MAX_NESTING, BadJsonError, parse

TAKEN: dict[bytes, Any] = {
    b"{}": {},
    b" [1, 2] \n": [1, 2],
    b'"a"': "a",
    b"null": None,
    b"-0.5e3": -500.0,
    b'{"a":1,"b":2}': {"a": 1, "b": 2},
    b'{"a":{"a":{"a":1}}}': {"a": {"a": {"a": 1}}},
    b'[{"a":1},{"a":1}]': [{"a": 1}, {"a": 1}],
    '{"é":"\\ud83d\\ude00"}'.encode(): {"é": "\U0001f600"},
    b'{"A":1,"a":2}': {"A": 1, "a": 2},
    b'{"a":"\\u0000"}': {"a": "\0"},
    b'{"":"a \\"quoted\\" word"}': {"": 'a "quoted" word'},
}

REFUSED: dict[str, bytes] = {
    "nothing": b"",
    "white space": b"  ",
    "cut short": b'{"a":',
    "trailing comma": b'{"a":1,}',
    "two documents": b"{}{}",
    "a comment": b"{}//",
    "single quotes": b"{'a':1}",
    "a byte order mark": b"\xef\xbb\xbf{}",
    "a NUL": b"{}\0",
    "NaN": b"[NaN]",
    "Infinity": b"[Infinity]",
    "minus Infinity": b"[-Infinity]",
    "a number that overflows": b"[1e999]",
    "an integer of 5000 digits": b'{"a":' + b"1" * 5000 + b',"b":"c"}',
    "a leading zero": b"[01]",
    "invalid UTF-8": b'["\xff"]',
    "UTF-8 of a surrogate": b'["\xed\xa0\x80"]',
    "a lone surrogate": b'["\\ud800"]',
    "a lone low surrogate": b'["\\udc00"]',
    "a lone surrogate as a key": b'{"\\ud800":1}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "a control character": b'["\n"]',
    "duplicate keys": b'{"a":1,"a":2}',
    "duplicate keys with texts": b'{"a":"1","a":"2"}',
    "duplicate empty keys": b'{"":1,"":2}',
    "duplicate keys, one escaped": b'{"a":1,"\\u0061":2}',
    "duplicate keys, a colon escaped": b'{"a":1,"a":"\\u003a"}',
    "duplicate keys, a colon escaped in a key": b'{"a":1,"a":{"\\u003A":2}}',
    "duplicate keys inside": b'[{"x":[{"a":1,"b":2,"a":1}]}]',
}


@pytest.mark.parametrize("data", TAKEN)
def test_what_every_parser_reads_alike_is_taken(data: bytes) -> None:
    assert parse(data) == TAKEN[data]


@pytest.mark.parametrize("name", REFUSED)
def test_what_two_parsers_could_read_differently_is_refused(name: str) -> None:
    with pytest.raises(BadJsonError):
        parse(REFUSED[name])


@pytest.mark.parametrize(("left", "right"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")])
def test_nesting_is_bounded(left: bytes, right: bytes) -> None:
    levels = left.count(b"[") + left.count(b"{")
    deep = MAX_NESTING // levels
    parse(left * deep + b"1" + right * deep)
    with pytest.raises(BadJsonError, match="nested"):
        parse(left * (deep + 1) + b"1" + right * (deep + 1))


def test_many_brackets_side_by_side_are_not_nesting() -> None:
    assert len(parse(b"[" + b",".join([b"{}"] * 1000) + b"]")) == 1000


def test_brackets_in_a_text_are_not_nesting() -> None:
    assert parse(b'["' + b"[" * 1000 + b'"]') == ["[" * 1000]


def test_absurd_nesting_does_not_exhaust_the_stack() -> None:
    for data in (b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000):
        with pytest.raises(BadJsonError):
            parse(data)


def test_the_reason_does_not_quote_the_content() -> None:
    with pytest.raises(BadJsonError) as caught:
        parse(b'{"sesame":1,"sesame":2}')
    assert "sesame" not in str(caught.value)
