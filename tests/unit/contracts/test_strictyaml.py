"""YAML from outside: the part of it that is JSON, and nothing that unfolds, constructs or recurses."""

import pytest

from libs.common.contracts.strictyaml import BadYamlError, parse


def test_what_json_can_say_is_taken() -> None:
    text = "openapi: 3.1.0\nwebhooks:\n  order.paid: {post: {summary: 'it''s paid', deprecated: true}}\nn: [1, 2.5, null]\n"
    assert parse(text) == {
        "openapi": "3.1.0",
        "webhooks": {"order.paid": {"post": {"summary": "it's paid", "deprecated": True}}},
        "n": [1, 2.5, None],
    }


def test_a_date_stays_the_text_that_it_is_in_json() -> None:
    assert parse("example: 2026-08-21\nat: 2026-08-21T10:00:00Z") == {
        "example": "2026-08-21",
        "at": "2026-08-21T10:00:00Z",
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: [1", "line 2"),
        ("a: b: c", "line 1"),
        ("a: &x [1]\nb: [*x, *x]", "alias"),
        ("a: !!python/object/apply:os.system ['true']", "tag"),
        ("a: !custom b", "tag"),
        ("[" * 1000 + "]" * 1000, "nested"),
        ("a: \x00", "not valid YAML"),
        ("a: 1\n---\nb: 2", "not valid YAML"),
    ],
)
def test_what_is_not_taken_says_why(text: str, reason: str) -> None:
    with pytest.raises(BadYamlError, match=reason):
        parse(text)
