"""JSON from outside, held against a reading that sees every key."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from libs.common.contracts.strictjson import BadJsonError, parse

# Colons and their escapes, quotes, backslashes: what could be taken for the end of a key.
TEXTS = st.text(alphabet=':"\\{}[]ab \u00e9\u2028\U0001f600', max_size=4)
KEYS = st.sampled_from(["", "a", ":", "a:", '"', "\\", "u003a", "é"]) | TEXTS
SPACES = st.sampled_from(["", "", " ", "\n", "\t\r"])


@st.composite
def spelled_text(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> str:
    """A text as JSON, some of its characters in escaped form."""
    spelled = "".join(
        draw(st.sampled_from([json.dumps(each)[1:-1], json.dumps(each, ensure_ascii=False)[1:-1], _escaped(each)]))
        for each in draw(texts)
    )
    return f'"{spelled}"'


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04X}" for at in range(0, len(units), 2))


@st.composite
def spelled_object(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    """An object, often with one key twice, differently spelled."""
    members = draw(st.lists(st.tuples(spelled_text(KEYS), SPACES, SPACES, values), max_size=4))
    return "{" + ",".join(f"{key}{before}:{after}{value}" for key, before, after, value in members) + "}"


@st.composite
def spelled_array(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    """An array."""
    return "[" + ",".join(draw(st.lists(values, max_size=3))) + "]"


DOCUMENTS = st.recursive(
    spelled_text(TEXTS) | st.sampled_from(["1", "-0.5", "true", "null"]),
    lambda inner: spelled_object(inner) | spelled_array(inner),
    max_leaves=12,
)


def has_a_key_twice(text: str) -> bool:
    """Read by a parser that hands out every pair."""
    found = False

    def see(pairs: list[tuple[str, Any]]) -> None:
        nonlocal found
        found = found or len({key for key, _ in pairs}) < len(pairs)

    json.loads(text, object_pairs_hook=see)
    return found


@given(DOCUMENTS)
def test_a_key_that_is_there_twice_is_always_seen_and_nothing_else_is_refused(text: str) -> None:
    try:
        parse(text.encode())
    except BadJsonError:
        assert has_a_key_twice(text)
    else:
        assert not has_a_key_twice(text)
