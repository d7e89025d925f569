"""What is wrong with rendered manifests for Kubernetes, judged by the code that they run.

Each check takes all resources of an installation and yields a line for each thing that is amiss. Ports, probes' paths and
variables are read from the code, never repeated here.
"""

import re
import tomllib
from collections.abc import Callable, Iterator
from typing import Final

import kubernetes_validate

from deploy.configuration import SERVICES
from libs.common.runtime.settings import PREFIX, SettingsError
from tests.support.manifest_networks import networks, servers, ways
from tests.support.manifests import (
    CHECKOUT,
    DOCKERFILE,
    NAME,
    PAGE,
    Resource,
    containers,
    dependencies,
    documented_secrets,
    health_paths,
    is_ours,
    labels,
    mounted,
    named,
    of_kind,
    pods,
    service_of,
    started,
)

VERSION: Final[str] = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["version"]
KUBERNETES: Final = ("1.30", "1.37")
"""The oldest and the newest version that the manifests are for."""
CLOSING_SECONDS: Final = 10
WRITABLE: Final = {"rabbitmq"}
STAYS: Final = re.compile(r"v?\d+\.\d+")
"""Tags of a minor version at least: others come to name what is not compatible."""
Check = Callable[[list[Resource]], Iterator[str]]


def schema(resources: list[Resource]) -> Iterator[str]:
    """Strictly: an unknown field is an error too."""
    for resource in resources:
        for version in KUBERNETES:
            try:
                kubernetes_validate.validate(resource, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                place = ".".join(str(part) for part in error.path)
                yield f"{resource['kind']} {resource['metadata']['name']}: {place}: {error.message}"


def images(resources: list[Resource]) -> Iterator[str]:
    for name, _, container in containers(resources):
        if "@sha256:" in container["image"]:
            continue
        tag = container["image"].rpartition("/")[2].partition(":")[2]
        if not STAYS.match(tag):
            yield f"{name}: image {container['image']} has no tag that stays"
        if is_ours(container):
            if tag != VERSION:
                yield f"{name}: image {container['image']} is not of version {VERSION}"
            if f"\nFROM base AS {service_of(container)}\n" not in DOCKERFILE:
                yield f"{name}: the Dockerfile has no image {service_of(container)}"


def limits(resources: list[Resource]) -> Iterator[str]:
    for name, _, container in containers(resources):
        for side in ("requests", "limits"):
            missing = {"cpu", "memory"} - set(container.get("resources", {}).get(side, {}))
            for resource in sorted(missing):
                yield f"{name}: no {side} for {resource}"


def restricted(resources: list[Resource]) -> Iterator[str]:
    """The profile "restricted" of the Pod Security Standards, and a read-only root beyond it."""
    user = re.search(r"^USER (\d+):\d+$", DOCKERFILE, flags=re.MULTILINE)
    assert user
    for name, spec, container in containers(resources):
        pod, own = spec.get("securityContext", {}), container.get("securityContext", {})
        if pod.get("runAsNonRoot") is not True or not pod.get("runAsUser"):
            yield f"{name}: may run as root"
        if is_ours(container) and pod.get("runAsUser") != int(user[1]):
            yield f"{name}: does not run as the image's user {user[1]}"
        if pod.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{name}: no seccomp profile"
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            yield f"{name}: may gain privileges"
        if own.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{name}: keeps capabilities"
        if own.get("readOnlyRootFilesystem") is not True and name not in WRITABLE:
            yield f"{name}: its root is writable"
        if any(spec.get(shared) for shared in ("hostNetwork", "hostPID", "hostIPC")):
            yield f"{name}: shares the node's namespaces"
        allowed = {"secret", "configMap", "emptyDir", "persistentVolumeClaim", "projected"}
        yield from (
            f"{name}: volume {volume['name']} is not of a restricted kind"
            for volume in spec.get("volumes", [])
            if not set(volume) - {"name"} <= allowed
        )


def accounts(resources: list[Resource]) -> Iterator[str]:
    for name, spec in pods(resources):
        account = named(resources, "ServiceAccount", spec.get("serviceAccountName", ""))
        if account is None:
            yield f"{name}: has no account of its own"
        elif account.get("automountServiceAccountToken") is not False:
            yield f"{name}: its account has a token"
        if spec.get("automountServiceAccountToken") is not False:
            yield f"{name}: mounts a token"
        if spec.get("enableServiceLinks") is not False:
            yield f"{name}: gets variables from Services, which may begin with {PREFIX}"


def references(resources: list[Resource]) -> Iterator[str]:
    secrets = documented_secrets()
    for name, spec, container in containers(resources):
        for source in container.get("envFrom", []):
            if named(resources, "ConfigMap", source["configMapRef"]["name"]) is None:
                yield f"{name}: there is no ConfigMap {source['configMapRef']['name']}"
        wanted = list(mounted(spec, container).values())
        for entry in container.get("env", []):
            reference = entry.get("valueFrom", {}).get("secretKeyRef")
            wanted += [(reference["name"], reference["key"])] if reference else []
        for secret, key in wanted:
            if key not in secrets.get(secret, set()):
                yield f"{name}: {PAGE.name} creates no key {key} in a Secret {secret}"
        workload = named(resources, "StatefulSet", name)
        claims = workload["spec"].get("volumeClaimTemplates", []) if workload else []
        volumes = {found["name"] for found in spec.get("volumes", [])} | {claim["metadata"]["name"] for claim in claims}
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in volumes:
                yield f"{name}: there is no volume {mount['name']}"


def variables(resources: list[Resource]) -> Iterator[str]:
    """The program's own reader is asked: each name is known, each value fits, nothing is missing."""
    for name, _, _, settings in started(resources):
        if isinstance(settings, SettingsError):
            yield f"{name}: {settings}"


def ports(resources: list[Resource]) -> Iterator[str]:
    for name, _, container, settings in started(resources):
        port = getattr(settings, "port", None)
        if port is None:
            continue
        declared = {entry["name"]: entry["containerPort"] for entry in container.get("ports", [])}
        if declared.get("http") != port:
            yield f"{name}: its port http is {declared.get('http')}, it listens on {port}"
        stage = DOCKERFILE.partition(f"FROM base AS {name}\n")[2].partition("\nFROM ")[0]
        if f"EXPOSE {port}\n" not in stage:
            yield f"{name}: its image does not expose {port}"
        service = named(resources, "Service", name)
        if service and service["spec"]["ports"] != [{"name": "http", "port": port, "targetPort": "http"}]:
            yield f"{name}: its Service has another port than {port}"
        for policy in of_kind(resources, "NetworkPolicy"):
            if policy["spec"]["podSelector"] == {"matchLabels": {NAME: name}}:
                for rule in policy["spec"].get("ingress", []):
                    if [entry["port"] for entry in rule["ports"]] != [port]:
                        yield f"{name}: its policy lets in on another port than {port}"
        url = getattr(settings, "registry_url", None)
        if url is not None:
            target = re.fullmatch(r"http://([a-z-]+):(\d+)", url)
            found = named(resources, "Service", target[1]) if target else None
            if target is None or found is None or found["spec"]["ports"][0]["port"] != int(target[2]):
                yield f"{name}: no Service answers at {url}"


def probes(resources: list[Resource]) -> Iterator[str]:
    paths = health_paths()
    for name, _, container in containers(resources):
        if not is_ours(container) or container.get("command"):
            continue
        for probe, wanted in (
            ("startupProbe", "/healthz"),
            ("livenessProbe", "/healthz"),
            ("readinessProbe", "/readyz"),
        ):
            asked = container.get(probe, {}).get("httpGet", {})
            path, _, query = str(asked.get("path", "")).partition("?")
            if path not in paths or path != wanted:
                yield f"{name}: {probe} asks {path or 'nothing'}, not {wanted}"
            if asked.get("port") not in {entry["name"] for entry in container.get("ports", [])}:
                yield f"{name}: {probe} asks on no port of its own"
            for parameter in filter(None, query.split("&")):
                key, _, excluded = parameter.partition("=")
                if key != "exclude" or excluded not in dependencies(name):
                    yield f"{name}: {probe} asks with {parameter}, which /readyz does not take"
        if "exclude=rabbitmq" not in container.get("readinessProbe", {}).get("httpGet", {}).get("path", ""):
            yield f"{name}: a lost broker would make every replica unready"


def stopping(resources: list[Resource]) -> Iterator[str]:
    for name, spec, container, settings in started(resources):
        if isinstance(settings, SettingsError) or not hasattr(settings, "stop_grace_ms"):
            continue
        pause = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep", "0"])
        needed = settings.stop_grace_ms / 1000 + int(pause[1]) + CLOSING_SECONDS
        if spec.get("terminationGracePeriodSeconds", 30) < needed:
            yield f"{name}: is killed after {spec.get('terminationGracePeriodSeconds', 30)} s, and may need {needed:g}"


def selectors(resources: list[Resource]) -> Iterator[str]:
    """Whatever selects pods, finds some; whatever points to something, finds it."""
    for resource in resources:
        spec = resource.get("spec", {})
        selecting = {
            "Service": spec.get("selector"),
            "PodDisruptionBudget": spec.get("selector", {}).get("matchLabels"),
        }
        wanted = selecting.get(resource["kind"])
        if wanted and not any(wanted.items() <= pod.items() for pod in labels(resources)):
            yield f"{resource['kind']} {resource['metadata']['name']}: selects no pod"
    for scaler in of_kind(resources, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        found = named(resources, target["kind"], target["name"])
        if found is None or "replicas" in found["spec"]:
            yield f"HorizontalPodAutoscaler {scaler['metadata']['name']}: scales nothing, or against a fixed number"
    for door in of_kind(resources, "Ingress"):
        for rule in door["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                service = named(resources, "Service", backend["name"])
                offered = {entry["name"] for entry in service["spec"]["ports"]} if service else set()
                if backend["port"].get("name") not in offered:
                    yield f"Ingress {door['metadata']['name']}: no Service behind {path['path']}"
            if rule["host"] not in [host for tls in door["spec"].get("tls", []) for host in tls["hosts"]]:
                yield f"Ingress {door['metadata']['name']}: {rule['host']} without TLS"


def public(resources: list[Resource]) -> Iterator[str]:
    """Links in answers lead to the front door."""
    hosts = {rule["host"] for door in of_kind(resources, "Ingress") for rule in door["spec"]["rules"]}
    for name, _, _, settings in started(resources):
        url = getattr(settings, "public_url", None)
        if hosts and url is not None and url not in {f"https://{host}" for host in hosts}:
            yield f"{name}: HOOKLEDGER_PUBLIC_URL is {url or 'empty'}, and the front door {', '.join(hosts)}"


def budgets(resources: list[Resource]) -> Iterator[str]:
    for service in SERVICES:
        if named(resources, "PodDisruptionBudget", service) is None:
            yield f"{service}: no PodDisruptionBudget"
        found = named(resources, "Deployment", service)
        if found is None or not found["spec"]["template"]["spec"].get("topologySpreadConstraints"):
            yield f"{service}: is not spread over nodes"


CHECKS: Final[tuple[Check, ...]] = (
    images, limits, restricted, accounts, references, variables, ports, probes, stopping, selectors, public, budgets,
    networks, ways, servers, schema,
)  # fmt: skip


def amiss(resources: list[Resource]) -> Iterator[str]:
    """Everything that any check finds; the slowest one is asked last."""
    for check in CHECKS:
        yield from check(resources)
