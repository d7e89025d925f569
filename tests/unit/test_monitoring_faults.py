"""A fault in each place of compose, of the rules and of the dashboard, and the check that finds it."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.support.monitoring_checks import Watched, amiss, read


def service(found: Watched, name: str) -> Any:
    return found.compose["services"][name]


def variables(found: Watched, name: str) -> Any:
    return service(found, name)["environment"]


def misspell(entry: dict[str, Any], key: str, right: str, wrong: str) -> None:
    assert right in entry[key]
    entry[key] = entry[key].replace(right, wrong)


def rule(found: Watched, name: str) -> dict[str, Any]:
    return next(rule for rule in found.rules if rule["alert"] == name)


def target(found: Watched, metric: str) -> dict[str, Any]:
    """The first query of the dashboard that asks for the metric."""
    targets = [target for panel in found.dashboard["panels"] for target in panel.get("targets", [])]
    return next(target for target in targets if metric in target["expr"])


FAULTS: dict[str, tuple[Callable[[Watched], object], str]] = {
    "metric in a rule": (
        lambda all_: misspell(rule(all_, "HookledgerNothingDelivered"), "expr", "attempts_total", "attempts"),
        "HookledgerNothingDelivered: nobody tells hookledger_attempts",
    ),
    "label in a rule": (
        lambda all_: misspell(rule(all_, "HookledgerDeliveriesLate"), "expr", "lane=", "queue="),
        "HookledgerDeliveriesLate: no label queue of hookledger_oldest_due_seconds",
    ),
    "metric on the dashboard": (
        lambda all_: misspell(target(all_, "attempts_total"), "expr", "attempts_total", "tries_total"),
        ": nobody tells hookledger_tries_total",
    ),
    "label on the dashboard": (
        lambda all_: target(all_, "attempts_total").update(expr="sum by (endpoint) (hookledger_attempts_total)"),
        ": no label endpoint",
    ),
    "page of an alert": (
        lambda all_: misspell(rule(all_, "HookledgerErrors")["annotations"], "runbook_url", "Errors", "Error"),
        "HookledgerErrors: no page at ./docs/runbooks/HookledgerError.md",
    ),
    "misspelt key of compose's": (
        lambda all_: service(all_, "ingress").update(read_onyl=True),
        "compose: services.ingress: extension key `read_onyl` does not start with",
    ),
    "condition that compose does not know": (
        lambda all_: service(all_, "registry")["depends_on"]["rabbitmq"].update(condition="healthy"),
        "condition: unknown variant `healthy`",
    ),
    "misspelt variable": (
        lambda all_: variables(all_, "registry").update(HOOKLEDGER_AMPQ_URL="amqp://"),
        "registry: HOOKLEDGER_AMPQ_URL is not a setting of Hookledger; did you mean HOOKLEDGER_AMQP_URL?",
    ),
    "variable that is missing": (
        lambda all_: variables(all_, "ingress").pop("HOOKLEDGER_MASTER_KEY"),
        "ingress: HOOKLEDGER_MASTER_KEY is not set",
    ),
    "variable that is none of its business": (
        lambda all_: variables(all_, "migrate").update(HOOKLEDGER_MASTER_KEY="${HOOKLEDGER_MASTER_KEY}"),
        "migrate: does not read HOOKLEDGER_MASTER_KEY",
    ),
    "value of another type": (
        lambda all_: variables(all_, "dispatcher").update(HOOKLEDGER_MAX_CONCURRENCY="many"),
        "dispatcher: HOOKLEDGER_MAX_CONCURRENCY: ",
    ),
    "another's role in the database": (
        lambda all_: variables(all_, "ingress").update(
            HOOKLEDGER_DATABASE_URL=variables(all_, "migrate")["HOOKLEDGER_DATABASE_URL"]
        ),
        "ingress: does not log in to Postgres as hookledger_ingress",
    ),
    "another's user of the broker": (
        lambda all_: variables(all_, "registry").update(
            HOOKLEDGER_AMQP_URL=variables(all_, "hookledger")["HOOKLEDGER_AMQP_URL"]
        ),
        "registry: does not log in to RabbitMQ as hookledger-registry",
    ),
    "another's password": (
        lambda all_: misspell(variables(all_, "registry"), "HOOKLEDGER_AMQP_URL", "BROKER_REGISTRY", "BROKER_INGRESS"),
        "registry: does not log in to RabbitMQ as hookledger-registry",
    ),
    "published port": (
        lambda all_: service(all_, "ingress").update(ports=["127.0.0.1:8080:8081"]),
        "ingress: 8080 is not published on this machine alone",
    ),
    "port that is open to all": (
        lambda all_: service(all_, "grafana").update(ports=["3000:3000"]),
        "grafana: 3000:3000 is open to the network",
    ),
    "port that Prometheus scrapes": (
        lambda all_: all_.prometheus["scrape_configs"][0]["dns_sd_configs"][0].update(port=9999),
        "ingress: is scraped on 9999, it listens on 8080",
    ),
    "path that Prometheus scrapes": (
        lambda all_: all_.prometheus["scrape_configs"][0].update(metrics_path="/metric"),
        "hookledger-ingress: there is no /metric",
    ),
    "address of the registry": (
        lambda all_: variables(all_, "ingress").update(HOOKLEDGER_REGISTRY_URL="http://registry:8080"),
        "ingress: no registry answers at http://registry:8080",
    ),
    "health that nobody asks": (
        lambda all_: service(all_, "rabbitmq").pop("healthcheck"),
        "registry: waits until rabbitmq is healthy, which nobody asks",
    ),
    "tag that moves": (
        lambda all_: service(all_, "rabbitmq").update(image="rabbitmq:4"),
        "rabbitmq: image rabbitmq:4 has no tag that stays",
    ),
    "no tag": (
        lambda all_: service(all_, "grafana").update(image="grafana/grafana"),
        "grafana: image grafana/grafana has no tag that stays",
    ),
    "another version than elsewhere": (
        lambda all_: service(all_, "postgres").update(image="postgres:16.1"),
        "postgres: postgres:16.1 here, postgres:17",
    ),
    "file that is not there": (
        lambda all_: service(all_, "prometheus").update(volumes=["./prometeus:/etc/prometheus:ro", "prometheus:/p"]),
        "prometheus: there is no file ./prometeus",
    ),
    "volume that is not there": (
        lambda all_: all_.compose["volumes"].pop("grafana"),
        "volume grafana: is used, or is there, alone",
    ),
}


def test_nothing_is_amiss() -> None:
    assert list(amiss(read())) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found(fault: str) -> None:
    spoil, told = FAULTS[fault]
    found = copy.deepcopy(read())
    spoil(found)
    assert any(told in line for line in amiss(found)), list(amiss(found))


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("/healthz", "/health", "an image's health check asks /health, not /healthz"),
        ("EXPOSE 8081", "EXPOSE 8091", "registry: its image does not listen on 8081"),
    ],
)
def test_a_fault_in_the_dockerfile_is_found(right: str, wrong: str, told: str) -> None:
    found = read()
    assert told in list(amiss(replace(found, dockerfile=found.dockerfile.replace(right, wrong))))
