"""A fault in each place of the manifests for Kubernetes, and the check that finds it."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy import manifests
from tests.support.manifest_checks import amiss
from tests.support.manifests import NAME, WITH_KUSTOMIZE, Resource, named, of_kind, rendered, the


def pod(resources: list[Resource], name: str) -> Any:
    kind = "Job" if name == "migrate" else "Deployment"
    found = named(resources, kind, name)
    assert found
    return found["spec"]["template"]["spec"]


def container(resources: list[Resource], name: str) -> Any:
    return pod(resources, name)["containers"][0]


def server(resources: list[Resource], name: str) -> Any:
    return the(resources, "StatefulSet", name)["template"]["spec"]["containers"][0]


def variable(resources: list[Resource], name: str, wanted: str) -> Any:
    return next(entry for entry in container(resources, name)["env"] if entry["name"] == wanted)


def settings(resources: list[Resource]) -> Any:
    return of_kind(resources, "ConfigMap")[0]["data"]


FAULTS: dict[str, tuple[Callable[[list[Resource]], object], str]] = {
    "port of a container": (
        lambda all_: container(all_, "ingress")["ports"][0].update(containerPort=8090),
        "ingress: its port http is 8090, it listens on 8080",
    ),
    "port that it listens on": (
        lambda all_: variable(all_, "registry", "HOOKLEDGER_PORT").update(value="8091"),
        "registry: its port http is 8081, it listens on 8091",
    ),
    "port of a Service": (
        lambda all_: the(all_, "Service", "registry")["ports"][0].update(port=80),
        "registry: its Service has another port than 8081",
    ),
    "port of a policy": (
        lambda all_: the(all_, "NetworkPolicy", "registry")["ingress"][0]["ports"][0].update(port=80),
        "registry: its policy lets in on another port than 8081",
    ),
    "address of the registry": (
        lambda all_: settings(all_).update(HOOKLEDGER_REGISTRY_URL="http://registry:8080"),
        "ingress: no Service answers at http://registry:8080",
    ),
    "misspelt variable": (
        lambda all_: variable(all_, "dispatcher", "HOOKLEDGER_AMQP_URL_FILE").update(name="HOOKLEDGER_AMPQ_URL_FILE"),
        "dispatcher: HOOKLEDGER_AMPQ_URL_FILE: /run/secrets/hookledger/amqp-url is no file",
    ),
    "misspelt setting": (
        lambda all_: settings(all_).update(HOOKLEDGER_LOGLEVEL="info"),
        "ingress: HOOKLEDGER_LOGLEVEL is not a setting of Hookledger; did you mean HOOKLEDGER_LOG_LEVEL?",
    ),
    "two secrets that change places": (
        lambda all_: variable(all_, "registry", "HOOKLEDGER_AMQP_URL_FILE").update(
            value="/run/secrets/hookledger/database-url"
        ),
        "registry: HOOKLEDGER_AMQP_URL_FILE: /run/secrets/hookledger/database-url is no file",
    ),
    "variable that is missing": (
        lambda all_: container(all_, "migrate")["env"].clear(),
        "migrate: HOOKLEDGER_DATABASE_URL is not set",
    ),
    "value of another type": (
        lambda all_: settings(all_).update(HOOKLEDGER_STOP_GRACE_MS="25s"),
        "ingress: HOOKLEDGER_STOP_GRACE_MS: ",
    ),
    "file that is not mounted": (
        lambda all_: variable(all_, "registry", "HOOKLEDGER_MASTER_KEY_FILE").update(value="/run/secrets/key"),
        "registry: HOOKLEDGER_MASTER_KEY_FILE: /run/secrets/key is no file of a Secret",
    ),
    "another's role in the database": (
        lambda all_: pod(all_, "dispatcher")["volumes"][0]["secret"]["items"][0].update(key="database-url-owner"),
        "dispatcher: HOOKLEDGER_DATABASE_URL_FILE: /run/secrets/hookledger/database-url is no file of a Secret's key",
    ),
    "another's user of the broker": (
        lambda all_: pod(all_, "registry")["volumes"][0]["secret"]["items"][1].update(key="amqp-url-ingress"),
        "registry: HOOKLEDGER_AMQP_URL_FILE: /run/secrets/hookledger/amqp-url is no file of a Secret's key",
    ),
    "links that lead elsewhere": (
        lambda all_: settings(all_).update(HOOKLEDGER_PUBLIC_URL="https://example.com"),
        "registry: HOOKLEDGER_PUBLIC_URL is https://example.com, and the front door hooks.example.com",
    ),
    "path of the liveness probe": (
        lambda all_: container(all_, "ingress")["livenessProbe"]["httpGet"].update(path="/health"),
        "ingress: livenessProbe asks /health, not /healthz",
    ),
    "liveness that hangs on servers": (
        lambda all_: container(all_, "dispatcher")["livenessProbe"]["httpGet"].update(path="/readyz"),
        "dispatcher: livenessProbe asks /readyz, not /healthz",
    ),
    "readiness that hangs on the broker": (
        lambda all_: container(all_, "ingress")["readinessProbe"]["httpGet"].update(path="/readyz"),
        "ingress: a lost broker would make every replica unready",
    ),
    "dependency that there is not": (
        lambda all_: container(all_, "registry")["readinessProbe"]["httpGet"].update(
            path="/readyz?exclude=rabbitmq&exclude=lease"
        ),
        "registry: readinessProbe asks with exclude=lease, which /readyz does not take",
    ),
    "port of a probe": (
        lambda all_: container(all_, "registry")["startupProbe"]["httpGet"].update(port="web"),
        "registry: startupProbe asks on no port of its own",
    ),
    "no probe": (
        lambda all_: container(all_, "dispatcher").pop("startupProbe"),
        "dispatcher: startupProbe asks nothing, not /healthz",
    ),
    "grace that is too short": (
        lambda all_: pod(all_, "ingress").update(terminationGracePeriodSeconds=30),
        "ingress: is killed after 30 s, and may need 40",
    ),
    "longer stop": (
        lambda all_: settings(all_).update(HOOKLEDGER_STOP_GRACE_MS="60000"),
        "dispatcher: is killed after 50 s, and may need 70",
    ),
    "latest": (
        lambda all_: container(all_, "ingress").update(image="registry.example.com/hookledger-ingress:latest"),
        "ingress: image registry.example.com/hookledger-ingress:latest has no tag that stays",
    ),
    "a tag that only names the major version": (
        lambda all_: container(all_, "ingress").update(image="registry.example.com/hookledger-ingress:1"),
        "ingress: image registry.example.com/hookledger-ingress:1 has no tag that stays",
    ),
    "no tag, and a registry with a port": (
        lambda all_: container(all_, "ingress").update(image="registry.example.com:5000/hookledger-ingress"),
        "ingress: image registry.example.com:5000/hookledger-ingress has no tag that stays",
    ),
    "another version": (
        lambda all_: container(all_, "migrate").update(image="hookledger-registry:0.0.9"),
        "migrate: image hookledger-registry:0.0.9 is not of version",
    ),
    "no limit": (
        lambda all_: container(all_, "migrate")["resources"]["limits"].pop("memory"),
        "migrate: no limits for memory",
    ),
    "root": (lambda all_: pod(all_, "ingress")["securityContext"].update(runAsUser=0), "ingress: may run as root"),
    "another user": (
        lambda all_: pod(all_, "ingress")["securityContext"].update(runAsUser=1000),
        "ingress: does not run as the image's user 10001",
    ),
    "no seccomp": (
        lambda all_: pod(all_, "registry")["securityContext"].pop("seccompProfile"),
        "registry: no seccomp profile",
    ),
    "capabilities": (
        lambda all_: container(all_, "registry")["securityContext"]["capabilities"].update(add=["NET_ADMIN"]),
        "registry: keeps capabilities",
    ),
    "privileges": (
        lambda all_: container(all_, "registry")["securityContext"].update(allowPrivilegeEscalation=True),
        "registry: may gain privileges",
    ),
    "writable root": (
        lambda all_: container(all_, "dispatcher")["securityContext"].update(readOnlyRootFilesystem=False),
        "dispatcher: its root is writable",
    ),
    "folder of the node": (
        lambda all_: pod(all_, "dispatcher")["volumes"].append({"name": "node", "hostPath": {"path": "/"}}),
        "dispatcher: volume node is not of a restricted kind",
    ),
    "node's network": (
        lambda all_: pod(all_, "dispatcher").update(hostNetwork=True),
        "dispatcher: shares the node's namespaces",
    ),
    "token": (
        lambda all_: pod(all_, "dispatcher").update(automountServiceAccountToken=True),
        "dispatcher: mounts a token",
    ),
    "variables from Services": (
        lambda all_: pod(all_, "ingress").pop("enableServiceLinks"),
        "ingress: gets variables from Services",
    ),
    "key that nobody creates": (
        lambda all_: pod(all_, "ingress")["volumes"][0]["secret"]["items"][0].update(key="url"),
        "ingress: kubernetes.md creates no key url in a Secret hookledger",
    ),
    "ConfigMap that there is not": (
        lambda all_: container(all_, "ingress")["envFrom"][0]["configMapRef"].update(name="settings"),
        "ingress: there is no ConfigMap settings",
    ),
    "budget for nobody": (
        lambda all_: the(all_, "PodDisruptionBudget", "registry")["selector"].update(matchLabels={NAME: "registri"}),
        "PodDisruptionBudget registry: selects no pod",
    ),
    "autoscaler of nothing": (
        lambda all_: the(all_, "HorizontalPodAutoscaler", "ingress")["scaleTargetRef"].update(name="ingres"),
        "HorizontalPodAutoscaler ingress: scales nothing",
    ),
    "door to nowhere": (
        lambda all_: the(all_, "Ingress", "front-door")["rules"][0]["http"]["paths"][0]["backend"]["service"].update(
            name="registri"
        ),
        "Ingress front-door: no Service behind /in/",
    ),
    "door without TLS": (
        lambda all_: the(all_, "Ingress", "front-door").pop("tls"),
        "Ingress front-door: hooks.example.com without TLS",
    ),
    "open by default": (
        lambda all_: the(all_, "NetworkPolicy", "nothing").update(policyTypes=["Ingress"]),
        "no policy denies by default",
    ),
    "way to a cloud's metadata": (
        lambda all_: the(all_, "NetworkPolicy", "dispatcher")["egress"][0]["to"][0]["ipBlock"]["except"].remove(
            "169.254.0.0/16"
        ),
        "dispatcher: its networks are not those that the code allows",
    ),
    "way out to everywhere": (
        lambda all_: the(all_, "NetworkPolicy", "registry").update(egress=[{}]),
        "NetworkPolicy registry: lets out to everywhere",
    ),
    "no way to the database": (
        lambda all_: the(all_, "NetworkPolicy", "database")["podSelector"]["matchExpressions"][0]["values"].remove(
            "migrate"
        ),
        "migrate: is not let out to port 5432",
    ),
    "way that nobody needs": (
        lambda all_: the(all_, "NetworkPolicy", "broker")["podSelector"]["matchExpressions"][0]["values"].append(
            "migrate"
        ),
        "migrate: is let out to port 5672",
    ),
    "no way to the registry": (
        lambda all_: the(all_, "NetworkPolicy", "ingress").pop("egress"),
        "ingress: is not let out to port 8081",
    ),
    "unknown field": (
        lambda all_: the(all_, "Deployment", "ingress").update(replicaz=2),
        "Deployment ingress: spec: Additional properties are not allowed ('replicaz' was unexpected)",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found(fault: str) -> None:
    spoil, told = FAULTS[fault]
    resources = copy.deepcopy(rendered("production"))
    spoil(resources)
    assert any(line.startswith(told) for line in amiss(resources)), list(amiss(resources))


SERVERS: dict[str, tuple[Callable[[list[Resource]], object], str]] = {
    "port of a server": (
        lambda all_: server(all_, "rabbitmq")["ports"][0].update(containerPort=5671),
        "rabbitmq: its Service has another port than 5671",
    ),
    "port of a server's policy": (
        lambda all_: the(all_, "NetworkPolicy", "postgres")["ingress"][0]["ports"][0].update(port=5433),
        "postgres: its policy lets in on another port than 5432",
    ),
    "probe of a server": (
        lambda all_: server(all_, "postgres")["livenessProbe"]["tcpSocket"].update(port="sql"),
        "postgres: livenessProbe asks on no port of its own",
    ),
    "password that nobody makes": (
        lambda all_: server(all_, "rabbitmq")["env"][0]["valueFrom"]["secretKeyRef"].update(key="broker-password"),
        "rabbitmq: kubernetes.md creates no key broker-password in a Secret hookledger-servers",
    ),
    "volume that there is not": (
        lambda all_: server(all_, "rabbitmq")["volumeMounts"][1].update(name="scripts"),
        "rabbitmq: there is no volume scripts",
    ),
    "tag that moves": (
        lambda all_: server(all_, "rabbitmq").update(image="rabbitmq:4"),
        "rabbitmq: image rabbitmq:4 has no tag that stays",
    ),
}


@pytest.mark.parametrize("fault", SERVERS)
def test_each_fault_of_developments_servers_is_found(fault: str) -> None:
    spoil, told = SERVERS[fault]
    resources = copy.deepcopy(rendered("dev"))
    spoil(resources)
    assert any(line.startswith(told) for line in amiss(resources)), list(amiss(resources))


def test_an_image_by_its_digest_is_no_fault() -> None:
    resources = copy.deepcopy(rendered("production"))
    container(resources, "ingress").update(image=f"registry.example.com/hookledger-ingress@sha256:{'0' * 64}")
    assert list(amiss(resources)) == []


# The same from the files on, through kustomize


@WITH_KUSTOMIZE
@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("containerPort: 8080", "containerPort: 8000", "ingress: its port http is 8000, it listens on 8080"),
        ("name: HOOKLEDGER_MASTER_KEY_FILE", "name: HOOKLEDGER_KEY_FILE", "ingress: HOOKLEDGER_KEY_FILE: "),
        ("path: /readyz", "path: /ready", "ingress: readinessProbe asks /ready, not /readyz"),
    ],
)
def test_a_fault_in_a_file_is_found_in_both_overlays(tmp_path: Path, right: str, wrong: str, told: str) -> None:
    words = manifests.kustomize()
    assert words
    tree = tmp_path / "kubernetes"
    shutil.copytree(manifests.TREE, tree)
    shutil.copytree(manifests.TREE.parent / "rabbitmq", tmp_path / "rabbitmq")
    path = tree / "base" / "ingress.yaml"
    assert right in path.read_text()
    path.write_text(path.read_text().replace(right, wrong))
    for overlay in manifests.OVERLAYS:
        resources = manifests.documents(manifests.render(tree / "overlays" / overlay, words))
        assert any(line.startswith(told) for line in amiss(resources)), overlay
