"""docs/errors.md has every error of the API, and no other."""

import re

from deploy.stack.places import CHECKOUT
from libs.common.runtime.http import CODES

ROW = re.compile(r"^\| (\d{3}) \| `(\w+)` \| \S.* \| \S.* \|$", re.MULTILINE)
OWN = re.compile(r'ApiError\((\d{3}), .*code="(\w+)"')


def test_the_page_has_every_code_with_its_status_a_cause_and_a_cure() -> None:
    own = {
        (int(status), code)
        for folder in ("libs", "services")
        for path in (CHECKOUT / folder).rglob("*.py")
        for status, code in OWN.findall(path.read_text())
    }
    page = (CHECKOUT / "docs" / "errors.md").read_text()
    assert {(int(status), code) for status, code in ROW.findall(page)} == set(CODES.items()) | own
