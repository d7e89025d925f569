"""The manifests for Kubernetes: valid, restricted, and in agreement with the code and the page."""

import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from typer.testing import CliRunner

from deploy import manifests
from libs.common.runtime.settings import PLATFORM_NAMES
from services.admin.commands import commands
from services.dispatcher import app as dispatcher
from services.ingress import app as ingress
from services.registry import app as registry
from tests.support.manifest_checks import amiss
from tests.support.manifests import CHECKOUT, PAGE, WITH_KUSTOMIZE, Resource, named, of_kind, rendered, the

COMPONENTS = manifests.TREE / "components"


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


# Rendering


@WITH_KUSTOMIZE
@pytest.mark.parametrize("overlay", manifests.OVERLAYS)
def test_the_committed_rendering_is_what_kustomize_makes_now(overlay: str) -> None:
    words = manifests.kustomize()
    assert words
    assert manifests.documents(manifests.render(manifests.TREE / "overlays" / overlay, words)) == rendered(overlay)


def test_a_changed_tree_has_another_digest_and_what_starts_the_broker_is_part_of_it(tmp_path: Path) -> None:
    tree = tmp_path / "kubernetes"
    for folder in (tree / "base", tree / "rendered", tmp_path / "rabbitmq"):
        folder.mkdir(parents=True)
    (tree / "base" / "ingress.yaml").write_text("port: 8080\n")
    before = manifests.digest(tree)
    (tree / "rendered" / "dev.yaml").write_text("no part of it\n")
    assert manifests.digest(tree) == before
    (tree / "base" / "ingress.yaml").write_text("port: 8090\n")
    changed = manifests.digest(tree)
    assert changed != before
    (tmp_path / "rabbitmq" / "start.sh").write_text("exec rabbitmq-server\n")
    assert manifests.digest(tree) != changed


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


def with_components(folder: Path) -> Path:
    """A copy of the overlay for production that takes both components."""
    tree = folder / "kubernetes"
    shutil.copytree(manifests.TREE, tree)
    path = tree / "overlays" / "production" / "kustomization.yaml"
    text = path.read_text()
    uncommented = re.sub(r"^# (components:|  - \.\./\.\./components/\S+)", r"\1", text, flags=re.MULTILINE)
    assert uncommented != text
    path.write_text(uncommented)
    return path.parent


@WITH_KUSTOMIZE
def test_production_takes_both_components(tmp_path: Path) -> None:
    words = manifests.kustomize()
    assert words
    resources = manifests.documents(manifests.render(with_components(tmp_path), words))
    assert {"HTTPRoute", "PodMonitor", "PrometheusRule"} <= {resource["kind"] for resource in resources}
    assert len(of_kind(resources, "ConfigMap")) == 1, "the address of the runbooks is no object of the cluster"


@WITH_KUSTOMIZE
def test_the_address_of_the_runbooks_is_changed_in_one_place(tmp_path: Path) -> None:
    words = manifests.kustomize()
    assert words
    overlay = with_components(tmp_path)
    component = overlay.parents[1] / "components" / "monitoring" / "kustomization.yaml"
    changed = component.read_text().replace("address=.", "address=https://git.example.com/team/hookledger/blob/main")
    component.write_text(changed)
    [rules] = of_kind(manifests.documents(manifests.render(overlay, words)), "PrometheusRule")
    alerts = [rule for group in rules["spec"]["groups"] for rule in group["rules"]]
    assert alerts
    for rule in alerts:
        address, _, page = rule["annotations"]["runbook_url"].partition("/docs/runbooks/")
        assert address == "https://git.example.com/team/hookledger/blob/main"
        assert (CHECKOUT / "docs" / "runbooks" / page).is_file()


def test_the_route_leads_where_the_ingress_does() -> None:
    [route] = component("gateway")
    resources = rendered("production")
    [rule], [door] = route["spec"]["rules"], the(resources, "Ingress", "front-door")["rules"]
    assert [match["path"]["value"] for match in rule["matches"]] == [path["path"] for path in door["http"]["paths"]]
    for backend in rule["backendRefs"]:
        assert the(resources, "Service", backend["name"])["ports"][0]["port"] == backend["port"]


def test_the_services_are_scraped_where_they_tell() -> None:
    [monitor] = [found for found in component("monitoring") if found["kind"] == "PodMonitor"]
    [scraped] = monitor["spec"]["podMetricsEndpoints"]
    assert (scraped["port"], scraped["path"]) == ("http", "/metrics")
    assert set(monitor["spec"]["selector"]["matchExpressions"][0]["values"]) == {"ingress", "registry", "dispatcher"}


# The page


def test_the_page_names_only_settings_that_exist() -> None:
    asked = set(re.findall(r"HOOKLEDGER_([A-Z_]+?)(?:_FILE)?\b", PAGE.read_text()))
    assert asked <= PLATFORM_NAMES


SCRIPTS = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_pages_commands_are_complete_lines_of_shell(script: str) -> None:
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    for program in re.findall(r"python -uc '(.*?)'", script, flags=re.DOTALL):
        compile(program, "receiver", "exec")


def test_the_pages_secrets_agree_with_each_other_and_each_pod_has_a_password_of_its_own(tmp_path: Path) -> None:
    kubectl = tmp_path / "kubectl"
    kubectl.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    kubectl.chmod(0o755)
    [script] = [script for script in SCRIPTS if "create secret generic hookledger-servers" in script]
    done = subprocess.run(
        ["bash", "-c", f"set -eu\n{script}"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    made = dict(re.findall(r"^--from-literal=([a-z-]+)=(.+)$", done.stdout, flags=re.MULTILINE))
    urls = {key: urlsplit(value) for key, value in made.items() if "://" in value}
    for name in ("ingress", "dispatcher", "registry"):
        assert (urls[f"amqp-url-{name}"].username, urls[f"amqp-url-{name}"].password) == (
            f"hookledger-{name}",
            made[f"broker-{name}"],
        )
    assert (urls["amqp-url"].username, urls["amqp-url"].password) == ("hookledger-operator", made["broker-operator"])
    passwords = [url.password for url in urls.values()] + [made["database-password"], made["broker-producer"]]
    assert len(set(passwords)) == len(passwords)
    assert all(passwords)


def test_the_page_calls_the_command_as_it_is() -> None:
    runner = CliRunner()
    called = re.findall(r"\$\(hookledger ((?:[a-z]+ )+)([^)]*)\)", PAGE.read_text())
    assert called
    for words, rest in called:
        [group, name] = words.split()[:2]
        told = runner.invoke(commands, [group, name, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
        assert told.exit_code == 0
        assert all(option in told.output for option in re.findall(r"--[a-z-]+", rest))


def test_the_pages_urls_lead_to_the_servers_of_development() -> None:
    urls = dict(re.findall(r"@([a-z]+):(\d+)/", PAGE.read_text()))
    assert set(urls) == {"postgres", "rabbitmq"}
    for name, port in urls.items():
        assert the(rendered("dev"), "Service", name)["ports"][0]["port"] == int(port)


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
