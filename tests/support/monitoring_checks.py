"""What is wrong with compose, Prometheus' rules and Grafana's dashboard, judged by the code that they run and ask.

Each check yields a line for each thing that is amiss. Ports, probes' paths, variables, metrics and labels are read from
the code, never repeated here.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import yaml
from compose_spec import PyCompose

from deploy import alerts, metrics
from deploy.configuration import COMMANDS, SERVICES
from deploy.stack import docker
from deploy.stack.installation import PORTS
from libs.common.runtime.settings import PREFIX, SettingsError, load
from tests.support.compose import COMPOSE, DEPLOY, filled
from tests.support.manifest_checks import STAYS
from tests.support.manifests import DOCKERFILE, health_paths

PROGRAMS: Final[Mapping[str, tuple[str, str, tuple[type[msgspec.Struct], ...]]]] = {
    **{name: (name, name, (kind,)) for name, kind in SERVICES.items()},
    "migrate": ("owner", "", (COMMANDS["`migrate`, `verify`, `rebuild`, `retain`, `organisation`, `key`"],)),
    "hookledger": ("registry", "operator", (COMMANDS["`secrets`"], COMMANDS["`dead-letter`"])),
}
"""What runs our code in compose: role in the database, user of the broker's, and the settings that it reads."""
SERVERS: Final = {"postgres": docker.POSTGRES.name, "rabbitmq": docker.RABBITMQ.name}
_PASSWORD: Final = "pass-word"


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """The files, as they are read; a test spoils one of them."""

    compose: dict[str, Any]
    prometheus: dict[str, Any]
    rules: list[dict[str, Any]]
    dashboard: dict[str, Any]
    dockerfile: str


def read() -> Watched:
    """As they are now."""
    return Watched(
        compose=COMPOSE,
        prometheus=yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text()),
        rules=alerts.rules(),
        dashboard=json.loads((DEPLOY / "grafana" / "hookledger.json").read_text()),
        dockerfile=DOCKERFILE,
    )


def queries(found: Watched) -> Iterator[tuple[str, str]]:
    """Everything that Prometheus is asked, with who asks."""
    for rule in found.rules:
        yield rule["alert"], rule["expr"]
    for panel in found.dashboard["panels"]:
        for target in panel.get("targets", []):
            yield f"panel {panel['title']}", target["expr"]


def asked(found: Watched) -> Iterator[str]:
    """Each metric and each label is told by a service."""
    labels = {
        name: {*metric.labels, "le"}
        for module in metrics.SECTIONS.values()
        for metric in metrics.declared(module)
        for name in metric.series
    }
    for place, query in queries(found):
        names = set(re.findall(r"\bhookledger_\w+", query))
        yield from (f"{place}: nobody tells {name}" for name in sorted(names - metrics.known()))
        known = names & labels.keys()
        allowed = set[str]().union(*(labels[name] for name in known))
        for group in re.findall(r"\bby \(([^)]*)\)", query):
            yield from (f"{place}: no label {label}" for label in sorted(set(group.split(", ")) - allowed))
        for name, picked in re.findall(r"(\bhookledger_\w+)\{([^}]*)\}", query):
            strange = set(re.findall(r"(\w+)=", picked)) - labels.get(name, set())
            yield from (f"{place}: no label {label} of {name}" for label in sorted(strange))


def runbooks(found: Watched) -> Iterator[str]:
    """Each alert leads to its page, which is there."""
    for rule in found.rules:
        url = rule["annotations"]["runbook_url"]
        if url != f"./docs/runbooks/{rule['alert']}.md" or not (alerts.CHECKOUT / url).is_file():
            yield f"{rule['alert']}: no page at {url}"


def specification(found: Watched) -> Iterator[str]:
    """The Compose Specification has each key, and each value is of its form."""
    try:
        PyCompose.from_yaml(yaml.safe_dump(found.compose)).validate()
    except ValueError as error:
        yield f"compose: {error}"


def variables(found: Watched) -> Iterator[str]:
    """Each program gets what it reads, and nothing else; it logs in as itself."""
    known = {"HOOKLEDGER_MASTER_KEY": "A" * 43 + "="}
    for name, (role, user, kinds) in PROGRAMS.items():
        raw = found.compose["services"][name]["environment"]
        read_by_it = {f"{PREFIX}{field.name.upper()}" for kind in kinds for field in msgspec.structs.fields(kind)}
        yield from (f"{name}: does not read {variable}" for variable in sorted(set(raw) - read_by_it))
        passwords = {
            f"{PREFIX}{role.upper()}_PASSWORD": _PASSWORD,
            f"{PREFIX}BROKER_{user.upper()}_PASSWORD": _PASSWORD,
        }
        environment = {variable: filled(value, known | passwords) for variable, value in raw.items()}
        try:
            for kind in kinds:
                load(kind, environment)
        except SettingsError as error:
            yield f"{name}: {error}"
        database = f"postgresql://hookledger_{role}:{_PASSWORD}@postgres:5432/hookledger"
        if environment.get(f"{PREFIX}DATABASE_URL") != database:
            yield f"{name}: does not log in to Postgres as hookledger_{role}"
        broker = f"amqp://hookledger-{user}:{_PASSWORD}@rabbitmq:5672/" if user else None
        if environment.get(f"{PREFIX}AMQP_URL") != broker:
            yield f"{name}: does not log in to RabbitMQ as {f'hookledger-{user}' if user else 'nobody'}"


def ports(found: Watched) -> Iterator[str]:
    """A service is reached, scraped and called where it listens."""
    for name, port in PORTS.items():
        if found.compose["services"][name].get("ports") != [f"127.0.0.1:{port}:{port}"]:
            yield f"{name}: {port} is not published on this machine alone"
        stage = found.dockerfile.partition(f"FROM base AS {name}\n")[2].partition("\nFROM ")[0]
        if f"HOOKLEDGER_PORT={port}\n" not in stage or f"EXPOSE {port}\n" not in stage:
            yield f"{name}: its image does not listen on {port}"
    scraped = {
        one["names"][0]: one["port"] for job in found.prometheus["scrape_configs"] for one in job["dns_sd_configs"]
    }
    for name in scraped.keys() | PORTS.keys():
        if scraped.get(name) != PORTS.get(name):
            yield f"{name}: is scraped on {scraped.get(name)}, it listens on {PORTS.get(name)}"
    for job in found.prometheus["scrape_configs"]:
        if job.get("metrics_path", "/metrics") not in health_paths():
            yield f"{job['job_name']}: there is no {job['metrics_path']}"
    url = found.compose["services"]["ingress"]["environment"].get("HOOKLEDGER_REGISTRY_URL")
    if url != f"http://registry:{PORTS['registry']}":
        yield f"ingress: no registry answers at {url}"
    for name, service in found.compose["services"].items():
        for published in service.get("ports", []):
            if not published.startswith("127.0.0.1:"):
                yield f"{name}: {published} is open to the network"


def probes(found: Watched) -> Iterator[str]:
    """An image asks itself whether it lives, where its service tells."""
    told = re.findall(r"HOOKLEDGER_PORT'\]\}(/\w+)", found.dockerfile)
    if len(told) != len(PORTS):
        yield "an image has no health check"
    yield from (f"an image's health check asks {path}, not /healthz" for path in told if path != "/healthz")
    assert "/healthz" in health_paths()
    services = found.compose["services"]
    for name, service in services.items():
        after = service.get("depends_on", {})
        for other, wanted in after.items() if isinstance(after, dict) else ():
            if wanted["condition"] == "service_healthy" and "test" not in services[other].get("healthcheck", {}):
                yield f"{name}: waits until {other} is healthy, which nobody asks"


def images(found: Watched) -> Iterator[str]:
    """Each stays what it is, and is the same wherever it is named."""
    for name, service in found.compose["services"].items():
        if "build" in service:
            continue
        if not STAYS.match(service["image"].rpartition("/")[2].partition(":")[2]):
            yield f"{name}: image {service['image']} has no tag that stays"
        if service["image"] != SERVERS.get(name, service["image"]):
            yield f"{name}: {service['image']} here, {SERVERS[name]} elsewhere"


def references(found: Watched) -> Iterator[str]:
    """What a service mounts or waits for is there."""
    services, volumes = found.compose["services"], set(found.compose["volumes"])
    used = set()
    for name, service in services.items():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("./"):
                if not (DEPLOY / source).exists():
                    yield f"{name}: there is no file {source}"
            else:
                used.add(source)
        yield from (f"{name}: there is no {other}" for other in service.get("depends_on", {}) if other not in services)
    yield from (f"volume {name}: is used, or is there, alone" for name in sorted(used ^ volumes))


CHECKS: Final[tuple[Callable[[Watched], Iterator[str]], ...]] = (
    asked, runbooks, specification, variables, ports, probes, images, references,
)  # fmt: skip


def amiss(found: Watched) -> Iterator[str]:
    """Everything that any check finds."""
    for check in CHECKS:
        yield from check(found)
