"""The examples of docs/filters.md are true."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from libs.common.domain.endpoint import FilterVerdict
from libs.common.runtime.expressions.evaluation import PayloadFilters, transform

PAGE = (Path(__file__).parents[2] / "docs" / "filters.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
PAYLOAD, SENT = (json.loads(text) for kind, text in BLOCKS if kind == "json")
FILTERS, TRANSFORMATION = (text for kind, text in BLOCKS if kind == "text")
EXAMPLES = [tuple(part.strip() for part in line.split("=>")) for line in FILTERS.splitlines()]


@pytest.mark.parametrize(("expression", "result"), EXAMPLES)
def test_a_filter_comes_to_what_the_page_says(expression: str, result: str) -> None:
    body = json.dumps(PAYLOAD).encode()
    expected: Any = json.loads(result)
    assert json.loads(transform(expression, body)) == expected
    verdict = PayloadFilters(body).judge(expression)
    assert verdict is (FilterVerdict.PASSED if expected is True else FilterVerdict.NOT_PASSED)


def test_the_transformation_makes_what_the_page_says() -> None:
    assert json.loads(transform(TRANSFORMATION.strip(), json.dumps(PAYLOAD).encode())) == SENT


@pytest.mark.parametrize("expression", ["sum(id)", "total > id"])
def test_what_the_page_says_stumbles_does(expression: str) -> None:
    assert PayloadFilters(json.dumps(PAYLOAD).encode()).judge(expression) is FilterVerdict.FAILED
