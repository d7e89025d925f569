"""Which addresses may be connected to: the guard between an endpoint's URL and our own network.

Explicit networks, not `ipaddress.is_global`: that one passes multicast, NAT64, and 6to4 around a loopback address, and
changes between versions of Python.

Sources: the IANA special-purpose registries,
https://www.iana.org/assignments/iana-ipv4-special-registry and
https://www.iana.org/assignments/iana-ipv6-special-registry
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

_BLOCKED_IPV4: Final[Mapping[IPv4Network, str]] = {
    IPv4Network("0.0.0.0/8"): "this network",
    IPv4Network("10.0.0.0/8"): "private",
    IPv4Network("100.64.0.0/10"): "carrier-grade NAT, and metadata of some clouds",
    IPv4Network("127.0.0.0/8"): "loopback",
    IPv4Network("169.254.0.0/16"): "link-local, and metadata of most clouds",
    IPv4Network("172.16.0.0/12"): "private",
    IPv4Network("192.0.0.0/24"): "IETF protocol assignments",
    IPv4Network("192.0.2.0/24"): "documentation",
    IPv4Network("192.31.196.0/24"): "AS112",
    IPv4Network("192.52.193.0/24"): "AMT",
    IPv4Network("192.88.99.0/24"): "6to4 relay",
    IPv4Network("192.168.0.0/16"): "private",
    IPv4Network("192.175.48.0/24"): "AS112",
    IPv4Network("198.18.0.0/15"): "benchmarking",
    IPv4Network("198.51.100.0/24"): "documentation",
    IPv4Network("203.0.113.0/24"): "documentation",
    IPv4Network("224.0.0.0/4"): "multicast",
    IPv4Network("240.0.0.0/4"): "reserved, and broadcast",
    # Public by its number, and yet the host of the machine: Azure's WireServer.
    IPv4Network("168.63.129.16/32"): "cloud host",
}

# Everything else in IPv6 is denied: unassigned today may be routed tomorrow.
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
_BLOCKED_IPV6: Final[Mapping[IPv6Network, str]] = {
    IPv6Network("2001::/23"): "IETF protocol assignments, Teredo among them",
    IPv6Network("2001:db8::/32"): "documentation",
    IPv6Network("2002::/16"): "6to4, which may wrap any IPv4 address",
    IPv6Network("2620:4f:8000::/48"): "AS112",
    IPv6Network("3fff::/20"): "documentation",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressPolicy:
    """Where endpoints may live.

    Attributes:
        development: anywhere at all; for a developer's own machine.
        allowed_networks: there too, beside the public addresses; for receivers inside one's own cluster.
    """

    development: bool = False
    allowed_networks: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressRefusal:
    """An address that must not be connected to, and why; `address` is None where there was none to judge."""

    address: Address | None
    detail: str


def refusal(address: Address, policy: AddressPolicy) -> AddressRefusal | None:
    """Why `address` must not be connected to under `policy`, or None.

    An IPv4 address in IPv6 clothes (`::ffff:a.b.c.d`) is judged as the IPv4 address that it reaches.
    """
    if policy.development:
        return None
    judged = (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
    if any(judged in network for network in policy.allowed_networks):
        return None
    why = _why_blocked(judged)
    return None if why is None else AddressRefusal(address=address, detail=f"{address} is not public: {why}")


def vet_all(addresses: Collection[Address], policy: AddressPolicy) -> AddressRefusal | None:
    """Why a name with these addresses must not be connected to, or None.

    One bad answer refuses the whole set: a name that mixes public and private answers has no honest use, and which of
    them the connection would take is the attacker's choice. No answer at all is refused too.
    """
    if not addresses:
        return AddressRefusal(address=None, detail="the name has no address")
    return next((bad for address in addresses if (bad := refusal(address, policy))), None)


def _why_blocked(address: Address) -> str | None:
    if isinstance(address, IPv4Address):
        return next((why for network, why in _BLOCKED_IPV4.items() if address in network), None)
    if address not in _GLOBAL_UNICAST:
        return "outside 2000::/3"
    return next((why for network, why in _BLOCKED_IPV6.items() if address in network), None)
