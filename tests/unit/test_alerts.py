"""The alerts: what they ask exists, each has its page, and promtool shows when each fires and when not."""

import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from deploy import alerts, metrics

RULES = alerts.rules()
NAMES = [rule["alert"] for rule in RULES]
TESTS = yaml.safe_load((alerts.RULES.parent / "rules.test.yaml").read_text())["tests"]
PROMTOOL = shutil.which("promtool")
WITH_PROMTOOL = pytest.mark.skipif(PROMTOOL is None, reason="there is no promtool on this machine")
SECTIONS = ["What it means", "What to look at", "What to do"]


def promtool(*words: str) -> subprocess.CompletedProcess[str]:
    assert PROMTOOL
    return subprocess.run(
        [PROMTOOL, *words], cwd=alerts.RULES.parent, capture_output=True, text=True, check=False, timeout=60
    )


def test_every_alert_asks_for_what_hookledger_tells() -> None:
    assert all("hookledger_" in rule["expr"] for rule in RULES)


def test_the_operators_resource_is_made_of_the_same_rules() -> None:
    assert alerts.COMPONENT.read_text() == alerts.component(), "stale: run `make configuration`"


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_an_alert_says_how_bad_it_is_and_where_its_page_is(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"]["summary"].endswith(".")
    page = (alerts.CHECKOUT / rule["annotations"]["runbook_url"]).read_text()
    assert page.startswith(f"# {rule['alert']}\n")
    assert re.findall(r"^## (.*)$", page, flags=re.MULTILINE) == SECTIONS


def test_no_page_is_without_its_alert_and_none_asks_for_what_is_not_there() -> None:
    asked_for = metrics.known() | {
        metric.name for module in metrics.SECTIONS.values() for metric in metrics.declared(module)
    }
    pages = {path.stem: path.read_text() for path in alerts.RUNBOOKS.glob("*.md")}
    assert set(pages) - {"README"} == set(NAMES)
    for name, text in pages.items():
        assert set(re.findall(r"\bhookledger_[a-z_]+\b", text)) <= asked_for, name
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (alerts.RUNBOOKS / link).exists(), f"{name}: {link}"


def test_each_alert_is_shown_to_fire_and_not_to_fire() -> None:
    shown = {(one["alertname"], bool(one.get("exp_alerts"))) for test in TESTS for one in test["alert_rule_test"]}
    assert shown >= {(name, fires) for name in NAMES for fires in (True, False)}


@WITH_PROMTOOL
def test_promtool_takes_the_rules() -> None:
    done = promtool("check", "rules", "rules.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(RULES)} rules found" in done.stdout


@WITH_PROMTOOL
def test_promtool_sees_each_alert_fire_and_not_fire() -> None:
    done = promtool("test", "rules", "rules.test.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
