"""docs/operational-messages.md has every operational message, with the payload that it has."""

import json
import re
from pathlib import Path

import pytest

from libs.common.contracts import operational
from libs.common.domain.operational import News

PAGE = (Path(__file__).parents[2] / "docs" / "operational-messages.md").read_text()
ROWS = re.findall(r"^\| `([a-z.]+)` \| .+ \| `([a-z.]+)` \|$", PAGE, flags=re.MULTILINE)
SHOWN = [json.loads(text) for text in re.findall(r"^```json\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)]
PAYLOADS = {payload["type"]: payload for payload in SHOWN}


def test_the_page_lists_all_of_them() -> None:
    assert sorted(name for name, _ in ROWS) == sorted(News)


@pytest.mark.parametrize(("name", "like"), ROWS)
def test_each_has_the_fields_that_the_page_shows(name: str, like: str) -> None:
    assert json.loads(operational.example(News(name))) == PAYLOADS[like] | {"type": name}


def test_what_there_is_not_is_left_out() -> None:
    data = operational.EndpointData(app_id="app_1", endpoint_id="ep_1")
    assert json.loads(operational.encoded(News.ENDPOINT_CREATED, data)) == {
        "type": "endpoint.created",
        "data": {"appId": "app_1", "endpointId": "ep_1"},
    }
