"""What is wrong with who reaches whom in rendered manifests for Kubernetes: policies, Services, and the servers' ports."""

from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from libs.common.domain import addresses
from libs.common.runtime.settings import SettingsError
from tests.support.manifests import NAME, Resource, named, of_kind, started


def networks(resources: list[Resource]) -> Iterator[str]:
    policies = of_kind(resources, "NetworkPolicy")
    closed = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    if closed not in [policy["spec"] for policy in policies]:
        yield "no policy denies by default"
    found = named(resources, "NetworkPolicy", "dispatcher")
    blocks = [peer["ipBlock"] for rule in found["spec"]["egress"] for peer in rule["to"]] if found else []
    refused = {
        "0.0.0.0/0": {str(network) for network in addresses._BLOCKED_IPV4},
        str(addresses._GLOBAL_UNICAST): {str(network) for network in addresses._BLOCKED_IPV6},
    }
    if {block["cidr"]: set(block.get("except", [])) for block in blocks} != refused:
        yield "dispatcher: its networks are not those that the code allows"
    if found and "ingress" in found["spec"]:
        yield "dispatcher: lets somebody in"
    for policy in policies:
        development = any("HOOKLEDGER_DEV" in one["data"] for one in of_kind(resources, "ConfigMap"))
        if {} in policy["spec"].get("egress", []) and not development:
            yield f"NetworkPolicy {policy['metadata']['name']}: lets out to everywhere"


def selected(selector: Resource, pod: Mapping[str, str]) -> bool:
    """Whether a policy's selector takes a pod with these labels."""
    listed = selector.get("matchExpressions", [])
    return selector.get("matchLabels", {}).items() <= pod.items() and all(
        one["operator"] == "In" and pod.get(one["key"]) in one["values"] for one in listed
    )


def ways(resources: list[Resource]) -> Iterator[str]:
    """Each pod is let out to the ports that its settings name, and to no more."""
    policies = [policy["spec"] for policy in of_kind(resources, "NetworkPolicy")]
    for name, _, _, settings in started(resources):
        if isinstance(settings, SettingsError):
            continue
        needed = {53, 5432}
        needed |= {5672} if hasattr(settings, "amqp_url") else set()
        needed |= {urlsplit(settings.registry_url).port or 80} if hasattr(settings, "registry_url") else set()
        rules = [rule for spec in policies if selected(spec["podSelector"], {NAME: name})
                 for rule in spec.get("egress", [])]  # fmt: skip
        out = {entry["port"] for rule in rules for entry in rule.get("ports", []) if "endPort" not in entry}
        yield from (f"{name}: is not let out to port {port}" for port in sorted(needed - out))
        yield from (f"{name}: is let out to port {port}" for port in sorted(out - needed - {5671}))


def servers(resources: list[Resource]) -> Iterator[str]:
    """A server that is brought along listens where its Service and its policy lead."""
    for found in of_kind(resources, "StatefulSet"):
        name = found["metadata"]["name"]
        [container] = found["spec"]["template"]["spec"]["containers"]
        listens = {entry["name"]: entry["containerPort"] for entry in container["ports"]}
        service, policy = named(resources, "Service", name), named(resources, "NetworkPolicy", name)
        offered = {entry["targetPort"]: entry["port"] for entry in service["spec"]["ports"]} if service else {}
        let_in = {entry["port"] for rule in policy["spec"]["ingress"] for entry in rule["ports"]} if policy else set()
        if offered != listens:
            yield f"{name}: its Service has another port than {', '.join(map(str, listens.values()))}"
        if let_in != set(listens.values()):
            yield f"{name}: its policy lets in on another port than {', '.join(map(str, listens.values()))}"
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            port = container.get(probe, {}).get("tcpSocket", {}).get("port")
            if probe not in container or port not in {None, *listens}:
                yield f"{name}: {probe} asks on no port of its own"
