"""The manifests for Kubernetes: valid, restricted, and in agreement with the code. Each check is shown to find its fault."""

import copy
import re
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import manifests
from libs.common.runtime.settings import PLATFORM_NAMES
from services.dispatcher import app as dispatcher
from services.ingress import app as ingress
from services.registry import app as registry
from tests.support.manifests import (
    NAME,
    PAGE,
    Resource,
    amiss,
    metrics,
    named,
    of_kind,
)

COMPONENTS = manifests.TREE / "components"
WITH_KUSTOMIZE = pytest.mark.skipif(manifests.kustomize() is None, reason="there is no kustomize on this machine")


@cache
def rendered(overlay: str) -> list[Resource]:
    text = manifests.committed(overlay)
    assert text is not None, "deploy/kubernetes/rendered is stale: run `make manifests`, with kustomize or kubectl"
    return manifests.documents(text)


def component(name: str) -> list[Resource]:
    files = sorted((COMPONENTS / name).glob("*.yaml"))
    return [
        document
        for path in files
        if path.name != "kustomization.yaml"
        for document in manifests.documents(path.read_text())
    ]


@pytest.mark.parametrize("overlay", manifests.OVERLAYS)
def test_nothing_is_amiss(overlay: str) -> None:
    assert list(amiss(rendered(overlay))) == []


def test_development_brings_its_servers_with_volumes() -> None:
    for name in ("postgres", "rabbitmq"):
        found = named(rendered("dev"), "StatefulSet", name)
        assert found
        assert found["spec"]["replicas"] == 1
        assert found["spec"]["volumeClaimTemplates"]


def test_production_brings_no_server_and_scales() -> None:
    resources = rendered("production")
    assert of_kind(resources, "StatefulSet") == []
    assert {found["metadata"]["name"] for found in of_kind(resources, "HorizontalPodAutoscaler")} == {
        "ingress",
        "registry",
    }
    assert named(resources, "ConfigMap", "hookledger") is None, "its name changes with its content"
    assert not any("HOOKLEDGER_DEV" in found["data"] for found in of_kind(resources, "ConfigMap"))


@pytest.mark.parametrize("overlay", manifests.OVERLAYS)
def test_no_secret_is_in_the_manifests(overlay: str) -> None:
    assert of_kind(rendered(overlay), "Secret") == []


# A fault in each place


def pod(resources: list[Resource], name: str) -> Any:
    kind = "Job" if name == "migrate" else "Deployment"
    found = named(resources, kind, name)
    assert found
    return found["spec"]["template"]["spec"]


def container(resources: list[Resource], name: str) -> Any:
    return pod(resources, name)["containers"][0]


def variable(resources: list[Resource], name: str, wanted: str) -> Any:
    return next(entry for entry in container(resources, name)["env"] if entry["name"] == wanted)


def settings(resources: list[Resource]) -> Any:
    return of_kind(resources, "ConfigMap")[0]["data"]


def the(resources: list[Resource], kind: str, name: str) -> Any:
    found = named(resources, kind, name)
    assert found
    return found["spec"]


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
        "dispatcher: HOOKLEDGER_AMPQ_URL_FILE: /run/secrets/hookledger/amqp-url is no file of a Secret's key ampq-url",
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


# Rendering


@WITH_KUSTOMIZE
@pytest.mark.parametrize("overlay", manifests.OVERLAYS)
def test_the_committed_rendering_is_what_kustomize_makes_now(overlay: str) -> None:
    words = manifests.kustomize()
    assert words
    assert manifests.documents(manifests.render(manifests.TREE / "overlays" / overlay, words)) == rendered(overlay)


def test_a_changed_tree_has_another_digest(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "ingress.yaml").write_text("port: 8080\n")
    before = manifests.digest(tmp_path)
    (tmp_path / "rendered").mkdir()
    (tmp_path / "rendered" / "dev.yaml").write_text("no part of it\n")
    assert manifests.digest(tmp_path) == before
    (tmp_path / "base" / "ingress.yaml").write_text("port: 8090\n")
    assert manifests.digest(tmp_path) != before


def test_a_tree_that_cannot_be_rendered_is_refused_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(manifests, "CHECKOUT", tmp_path)
    monkeypatch.setattr(manifests, "kustomize", lambda: None)
    assert manifests.main() == 0
    assert "as committed" in capsys.readouterr().out
    monkeypatch.setattr(manifests, "RENDERED", tmp_path)
    assert manifests.main() == 2
    assert "install kustomize" in capsys.readouterr().err


# Components


@WITH_KUSTOMIZE
def test_production_takes_both_components(tmp_path: Path) -> None:
    words = manifests.kustomize()
    assert words
    subprocess.run(["cp", "-r", str(manifests.TREE), str(tmp_path / "tree")], check=True)
    path = tmp_path / "tree" / "overlays" / "production" / "kustomization.yaml"
    text = path.read_text()
    uncommented = re.sub(r"^# (components:|  - \.\./\.\./components/\S+)", r"\1", text, flags=re.MULTILINE)
    path.write_text(uncommented)
    found = {resource["kind"] for resource in manifests.documents(manifests.render(path.parent, words))}
    assert {"HTTPRoute", "PodMonitor", "PrometheusRule"} <= found


def test_the_route_leads_where_the_ingress_does() -> None:
    [route] = component("gateway")
    resources = rendered("production")
    [rule], [door] = route["spec"]["rules"], the(resources, "Ingress", "front-door")["rules"]
    assert [match["path"]["value"] for match in rule["matches"]] == [path["path"] for path in door["http"]["paths"]]
    for backend in rule["backendRefs"]:
        assert the(resources, "Service", backend["name"])["ports"][0]["port"] == backend["port"]


def test_every_metric_that_an_alert_names_exists() -> None:
    known = metrics()
    [rules] = [found for found in component("monitoring") if found["kind"] == "PrometheusRule"]
    for rule in rules["spec"]["groups"][0]["rules"]:
        asked = set(re.findall(r"\bhookledger_\w+", rule["expr"]))
        assert asked
        assert asked <= known, rule["alert"]
    assert "hookledger_attempts_total" in known
    assert "hookledger_attempts" not in known


def test_the_services_are_scraped_where_they_tell() -> None:
    [monitor] = [found for found in component("monitoring") if found["kind"] == "PodMonitor"]
    [scraped] = monitor["spec"]["podMetricsEndpoints"]
    assert (scraped["port"], scraped["path"]) == ("http", "/metrics")
    assert set(monitor["spec"]["selector"]["matchExpressions"][0]["values"]) == {"ingress", "registry", "dispatcher"}


# The page


def test_the_page_names_only_settings_that_exist() -> None:
    asked = set(re.findall(r"HOOKLEDGER_([A-Z_]+?)(?:_FILE)?\b", PAGE.read_text()))
    assert asked <= PLATFORM_NAMES


def test_the_page_adds_up_the_connections_to_postgres() -> None:
    resources = rendered("production")
    scaled = {name: the(resources, "HorizontalPodAutoscaler", name)["maxReplicas"] for name in ("ingress", "registry")}
    fixed = the(resources, "Deployment", "dispatcher")["replicas"]
    most = (
        scaled["ingress"] * ingress.POOL_SIZE + scaled["registry"] * registry.POOL_SIZE + fixed * dispatcher.POOL_SIZE
    )
    assert f"**{most}**" in PAGE.read_text()


def test_the_rendered_files_are_yaml_under_their_heading() -> None:
    for overlay in manifests.OVERLAYS:
        text = (manifests.RENDERED / f"{overlay}.yaml").read_text()
        assert text.startswith(manifests.heading(overlay, manifests.digest()))
        assert len(list(yaml.safe_load_all(text))) > 20
