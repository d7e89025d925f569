"""Compose, Prometheus and Grafana: what they are made of. test_monitoring_faults.py holds them against the code."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from deploy.broker_users import users
from deploy.stack.places import CHECKOUT
from libs.common.rabbitmq.topology import Names
from libs.common.runtime.settings import PREFIX
from tests.support.compose import COMPOSE, DEPLOY
from tests.support.roles import NAMES
from tests.unit.test_alerts import PROMTOOL, WITH_PROMTOOL

PROMETHEUS: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "hookledger.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
PASSWORDS = re.findall(r"getenv \w+ (\w+)", (DEPLOY / "postgres" / "passwords.sql").read_text())


# Compose


def test_every_variable_that_compose_wants_is_made_by_the_commands_at_its_top() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    [words] = re.findall(r"for name in ([^;]+);", text)
    made = {f"{PREFIX}{name}_PASSWORD" for name in re.findall(r"[A-Z_]+", words)} | {f"{PREFIX}MASTER_KEY"}
    assert set(re.findall(r"\$\{(\w+)(?::\?[^}]*)?\}", text)) - {"name"} == made
    assert set(PASSWORDS) <= set(COMPOSE["services"]["postgres"]["environment"])
    assert len(PASSWORDS) == len(NAMES)


def test_every_user_of_the_broker_is_given_a_password_by_compose() -> None:
    names = {f"{name.upper().replace('-', '_BROKER_', 1)}_PASSWORD" for name in users(Names("hookledger"))}
    assert set(COMPOSE["services"]["rabbitmq"]["environment"]) == names


def test_the_secrets_of_compose_are_not_for_the_repository() -> None:
    assert "/deploy/.env" in (CHECKOUT / ".gitignore").read_text().splitlines()


# Prometheus


def test_prometheus_finds_its_rules() -> None:
    assert [(DEPLOY / "prometheus" / name).exists() for name in PROMETHEUS["rule_files"]] == [True]


@WITH_PROMTOOL
def test_promtool_takes_the_configuration() -> None:
    assert PROMTOOL
    done = subprocess.run(
        [PROMTOOL, "check", "config", "prometheus.yaml"],
        cwd=DEPLOY / "prometheus",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# Grafana


SCREEN = 24
"""Grafana's units of 38 pixels that a screen of 1080 shows below its own bars."""


def test_the_dashboard_answers_its_three_questions_on_one_screen_of_panels_without_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not taken & cells, panel["title"]
        taken |= cells
    assert max(x for x, _ in taken) < 24
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    rows = [(panel["title"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert [title for title, _ in rows][:3] == ["Is it healthy?", "What is late?", "Who is failing?"]
    assert rows[3][1] <= SCREEN


@WITH_PROMTOOL
def test_promtool_parses_every_query_of_the_dashboard(tmp_path: Path) -> None:
    assert PROMTOOL
    rules = [{"record": f"query:{number}", "expr": query.replace("$__rate_interval", "5m")}
             for number, query in enumerate(QUERIES)]  # fmt: skip
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run([PROMTOOL, "check", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_asks_the_prometheus_of_compose_and_finds_the_dashboard() -> None:
    [source] = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    [provider] = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/hookledger.yaml").read_text())["providers"]
    targets = [mount.split(":")[1] for mount in COMPOSE["services"]["grafana"]["volumes"] if "hookledger.json" in mount]
    assert [str(Path(target).parent) for target in targets] == [provider["options"]["path"]]
