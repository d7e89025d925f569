"""Compose, Prometheus and Grafana: what they point to exists, and what they ask for is told by the code."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import metrics
from deploy.configuration import COMMANDS, SERVICES
from deploy.stack.installation import PORTS
from deploy.stack.places import CHECKOUT
from libs.common.runtime.settings import PREFIX, load
from tests.support.roles import NAMES
from tests.unit.test_alerts import PROMTOOL, WITH_PROMTOOL

DEPLOY = CHECKOUT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
PROMETHEUS: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "hookledger.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
PASSWORDS = re.findall(r"getenv \w+ (\w+)", (DEPLOY / "postgres" / "passwords.sql").read_text())


def filled(value: str) -> str:
    """A value of compose's with its variables."""
    values = {"HOOKLEDGER_MASTER_KEY": "A" * 43 + "="}
    return re.sub(
        r"\$\{(\w+)(?::([?-])([^}]*))?\}",
        lambda found: found[3] if found[2] == "-" else values.get(found[1], "secret"),
        value,
    )


# Compose


@pytest.mark.parametrize("name", [*SERVICES, "migrate"])
def test_a_program_reads_its_settings_from_compose_and_logs_in_as_its_own_role(name: str) -> None:
    environment = {key: filled(value) for key, value in COMPOSE["services"][name]["environment"].items()}
    kind = SERVICES.get(name) or next(iter(COMMANDS.values()))
    settings: Any = load(kind, environment)
    role = "owner" if name == "migrate" else name
    assert settings.database_url == f"postgresql://hookledger_{role}:secret@postgres:5432/hookledger"
    assert f"hookledger_{role}" in NAMES
    raw = COMPOSE["services"][name]["environment"]["HOOKLEDGER_DATABASE_URL"]
    assert f"${{{PREFIX}{role.upper()}_PASSWORD}}" in raw


def test_every_variable_that_compose_wants_is_made_by_the_commands_at_its_top() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    [names] = re.findall(r"for name in ([A-Z ]+);", text)
    made = {f"{PREFIX}{name}_PASSWORD" for name in names.split()} | {f"{PREFIX}MASTER_KEY"}
    assert set(re.findall(r"\$\{(\w+)(?::\?[^}]*)?\}", text)) - {"name"} | {f"{PREFIX}MASTER_KEY"} == made
    assert set(PASSWORDS) <= set(COMPOSE["services"]["postgres"]["environment"])
    assert len(PASSWORDS) == len(NAMES)


def test_the_secrets_of_compose_are_not_for_the_repository() -> None:
    assert "/deploy/.env" in (CHECKOUT / ".gitignore").read_text().splitlines()


def test_every_file_that_compose_mounts_is_there() -> None:
    mounts = [mount for service in COMPOSE["services"].values() for mount in service.get("volumes", [])]
    files = [mount.split(":")[0] for mount in mounts if mount.startswith("./")]
    assert {"./roles.sql", "./prometheus", "./grafana/hookledger.json"} <= set(files)
    assert all((DEPLOY / file).exists() for file in files)
    named = {mount.split(":")[0] for mount in mounts if not mount.startswith("./")}
    assert named == set(COMPOSE["volumes"])


def test_every_image_stays_what_it_is_and_every_port_is_this_machines_own() -> None:
    for name, service in COMPOSE["services"].items():
        assert "build" in service or not service["image"].endswith(":latest"), name
        assert "build" in service or ":" in service["image"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name


# Prometheus


def test_each_service_is_scraped_where_it_listens() -> None:
    scraped = {
        found["names"][0]: found["port"] for job in PROMETHEUS["scrape_configs"] for found in job["dns_sd_configs"]
    }
    assert scraped == dict(PORTS)
    assert all("metrics_path" not in job for job in PROMETHEUS["scrape_configs"]), "by default it is /metrics"
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


def strangers(queries: list[str]) -> set[str]:
    return {name for query in queries for name in re.findall(r"\bhookledger_\w+", query)} - metrics.known()


def test_every_metric_on_the_dashboard_is_told() -> None:
    assert len(QUERIES) > 20
    assert strangers(QUERIES) == set()
    assert strangers([query.replace("_attempts_total", "_attempts") for query in QUERIES]) == {"hookledger_attempts"}


def test_every_label_on_the_dashboard_exists() -> None:
    known = {
        name: {*metric.labels, "le"}
        for module in metrics.SECTIONS.values()
        for metric in metrics.declared(module)
        for name in metric.series
    }
    for query in QUERIES:
        asked = set(re.findall(r"\bhookledger_\w+", query))
        allowed = set().union(*(known[name] for name in asked))
        for group in re.findall(r"\bby \(([^)]*)\)", query):
            assert set(group.split(", ")) <= allowed, query
        for name, picked in re.findall(r"(\bhookledger_\w+)\{([^}]*)\}", query):
            assert set(re.findall(r"(\w+)=", picked)) <= known[name], query


def test_the_dashboard_fits_one_screen_of_panels_without_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not taken & cells, panel["title"]
        taken |= cells
    assert max(x for x, _ in taken) < 24
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    titles = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert {"Is it healthy?", "What is late?", "Who is failing?"} <= set(titles)


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
