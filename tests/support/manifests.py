"""What is in rendered manifests for Kubernetes, and what the code says about the same things."""

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web

from deploy import manifests
from deploy.configuration import SERVICES
from libs.common.runtime.http import add_health
from libs.common.runtime.settings import PREFIX, SettingsError, load
from services.admin.commands import AdminSettings

CHECKOUT: Final = Path(__file__).parents[2]
DOCKERFILE: Final = (CHECKOUT / "deploy" / "Dockerfile").read_text()
PAGE: Final = CHECKOUT / "docs" / "kubernetes.md"
NAME: Final = "app.kubernetes.io/name"

WITH_KUSTOMIZE: Final = pytest.mark.skipif(
    manifests.kustomize() is None, reason="there is no kustomize on this machine"
)

Resource = dict[str, Any]


@cache
def rendered(overlay: str) -> list[Resource]:
    """The committed rendering of an overlay, which must not be stale."""
    text = manifests.committed(overlay)
    assert text is not None, "deploy/kubernetes/rendered is stale: run `make manifests`, with kustomize or kubectl"
    return manifests.documents(text)


def of_kind(resources: list[Resource], *kinds: str) -> list[Resource]:
    return [resource for resource in resources if resource["kind"] in kinds]


def named(resources: list[Resource], kind: str, name: str) -> Resource | None:
    return next((found for found in of_kind(resources, kind) if found["metadata"]["name"] == name), None)


def the(resources: list[Resource], kind: str, name: str) -> Any:
    """The specification of the one with that name."""
    found = named(resources, kind, name)
    assert found, f"there is no {kind} {name}"
    return found["spec"]


def pods(resources: list[Resource]) -> Iterator[tuple[str, Resource]]:
    """The pods that the resources lead to: name, and spec."""
    for name, template in templates(resources):
        yield name, template["spec"]


def templates(resources: list[Resource]) -> Iterator[tuple[str, Resource]]:
    """What the pods are made from: name, and template."""
    for resource in of_kind(resources, "Deployment", "StatefulSet", "Job", "CronJob"):
        job = resource["spec"].get("jobTemplate", resource)
        yield resource["metadata"]["name"], job["spec"]["template"]


def containers(resources: list[Resource]) -> Iterator[tuple[str, Resource, Resource]]:
    for name, spec in pods(resources):
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            yield name, spec, container


def labels(resources: list[Resource]) -> list[Mapping[str, str]]:
    """Of each pod."""
    return [template["metadata"]["labels"] for _, template in templates(resources)]


def is_ours(container: Resource) -> bool:
    return "hookledger-" in container["image"]


def service_of(container: Resource) -> str:
    """Which of the Dockerfile's images it is."""
    return re.split("[:@]", str(container["image"]).partition("hookledger-")[2])[0]


def environment(resources: list[Resource], container: Resource) -> dict[str, str]:
    """The variables that the container sees, without those from Secrets."""
    seen: dict[str, str] = {}
    for source in container.get("envFrom", []):
        found = named(resources, "ConfigMap", source["configMapRef"]["name"])
        seen |= found["data"] if found else {}
    return seen | {entry["name"]: entry["value"] for entry in container.get("env", []) if "value" in entry}


def mounted(spec: Resource, container: Resource) -> dict[str, tuple[str, str]]:
    """Path of each file that comes from a Secret: Secret, and key."""
    files = {}
    for mount in container.get("volumeMounts", []):
        volume: Resource = next((found for found in spec.get("volumes", []) if found["name"] == mount["name"]), {})
        for item in volume.get("secret", {}).get("items", []):
            files[f"{mount['mountPath']}/{item['path']}"] = (volume["secret"]["secretName"], item["key"])
    return files


def documented_secrets() -> dict[str, set[str]]:
    """The Secrets that docs/kubernetes.md has the reader create, with their keys."""
    found: dict[str, set[str]] = {}
    for command in re.findall(r"create secret generic ((?:.*\\\n)*.*)", PAGE.read_text()):
        found.setdefault(command.split()[0], set()).update(re.findall(r"--from-literal=([a-z-]+)=", command))
    return found


def health_paths() -> set[str]:
    app = web.Application()
    add_health(app, {})
    return {route.resource.canonical for route in app.router.routes() if route.resource}


def dependencies(service: str) -> set[str]:
    """The names that the service's /readyz tells, read from its call of `add_health`."""
    for node in ast.walk(ast.parse((CHECKOUT / "services" / service / "app.py").read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "add_health":
            checks = node.args[1]
            assert isinstance(checks, ast.Dict)
            return {str(key.value) for key in checks.keys if isinstance(key, ast.Constant)}
    raise AssertionError(service)


def role_of(container: Resource) -> str:
    """The role of deploy/roles.sql, and the user of the broker's, that the container logs in as."""
    return "owner" if container.get("args") in (["migrate"], ["retain"]) else service_of(container)


def started(resources: list[Resource]) -> Iterator[tuple[str, Resource, Resource, Any]]:
    """Each container of ours with the settings that its program would read, or with the refusal."""
    secret = {"database-url": "postgresql://u:p@h/d", "amqp-url": "amqp://u:p@h/", "master-key": "A" * 43 + "="}
    for name, spec, container in containers(resources):
        if not is_ours(container):
            continue
        files = mounted(spec, container)
        environ = {}
        refusal = None
        for variable, value in environment(resources, container).items():
            plain = variable.removesuffix("_FILE")
            key = plain.removeprefix(PREFIX).lower().replace("_", "-")
            wanted = f"{key}-{role_of(container)}" if key in {"database-url", "amqp-url"} else key
            if plain == variable:
                environ[variable] = value
            elif key in secret and files.get(value, ("", ""))[1] == wanted:
                environ[plain] = secret[key]
            else:
                refusal = SettingsError(f"{variable}: {value} is no file of a Secret's key {wanted}")
        kind = AdminSettings if container.get("command") == ["hookledger"] else SERVICES[service_of(container)]
        try:
            yield name, spec, container, refusal or load(kind, environ)
        except SettingsError as error:
            yield name, spec, container, error
