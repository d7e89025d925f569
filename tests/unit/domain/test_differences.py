"""What changed between two versions of a document."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.domain.differences import Difference, differences

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=10,
)
DOCUMENTS = st.dictionaries(st.text(max_size=2), JSON, max_size=4)


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ({}, {"a": 1}, [(("a",), None, 1)]),
        ({"a": 1}, {}, [(("a",), 1, None)]),
        ({"b": 1, "a": 1}, {"b": 2, "a": 2}, [(("a",), 1, 2), (("b",), 1, 2)]),
        ({"a": {"x": 1, "y": 1}}, {"a": {"x": 2, "y": 1}}, [(("a", "x"), 1, 2)]),
        ({"a": None}, {"a": {"x": 1}}, [(("a",), None, {"x": 1})]),
        ({"a": [1, 2]}, {"a": [2, 1]}, [(("a",), [1, 2], [2, 1])]),
        ({"a": 1}, {"a": True}, [(("a",), 1, True)]),
        ({"a": None}, {}, []),
    ],
)
def test_each_field_that_differs_is_told_with_both_values(old: Any, new: Any, found: Any) -> None:
    assert [(each.path, each.old, each.new) for each in differences(old, new)] == found


@given(DOCUMENTS)
def test_a_document_does_not_differ_from_itself(document: dict[str, Any]) -> None:
    assert differences(document, document) == []


@given(DOCUMENTS, DOCUMENTS)
def test_looked_at_the_other_way_round_old_and_new_change_places(old: dict[str, Any], new: dict[str, Any]) -> None:
    turned = [Difference(path=each.path, old=each.new, new=each.old) for each in differences(new, old)]
    assert differences(old, new) == turned
