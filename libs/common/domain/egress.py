"""The way out: straight to the receiver, or through an HTTP proxy that all but some hosts are reached by."""

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit, urlunsplit

Network = IPv4Network | IPv6Network


class EgressError(ValueError):
    """The proxy, or an exception from it, is not written as it should be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Egress:
    """How receivers are reached.

    Attributes:
        proxy: the proxy's URL without credentials, or None for none.
        credentials: user and password for it.
        names: hosts that are reached without it; one that begins with a dot stands for all below it.
        networks: literal addresses that are.
    """

    proxy: str | None = None
    credentials: tuple[str, str] | None = field(default=None, repr=False)
    names: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    def proxied(self, host: str) -> bool:
        """Whether `host`, a name in lower case or an address without brackets, is reached through the proxy."""
        if self.proxy is None:
            return False
        try:
            address = ip_address(host)
        except ValueError:
            parts = host.split(".")
            above = {"." + ".".join(parts[start:]) for start in range(1, len(parts))}
            return host not in self.names and self.names.isdisjoint(above)
        return not any(address in network for network in self.networks)


def parse_egress(proxy: str, exceptions: str) -> Egress:
    """The way out that the settings name.

    Args:
        proxy: `http://host:port`, with `user:password@` where it asks for one; empty for no proxy.
        exceptions: hosts, suffixes (`.corp.example`), addresses and networks (CIDR), by commas.

    Raises:
        EgressError: one of them is not of that form. The text does not repeat the proxy, which may hold a password.
    """
    names, networks = _exceptions(exceptions)
    if not proxy:
        if names or networks:
            raise EgressError("there are exceptions from a proxy, and no proxy")
        return Egress()
    try:
        parts = urlsplit(proxy)
        port = parts.port
    except ValueError:
        raise EgressError("it is not http://host:port") from None
    if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise EgressError("it is not http://host:port")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    bare = urlunsplit(("http", f"{host}:{port or 80}", "", "", ""))
    credentials = (parts.username, parts.password or "") if parts.username else None
    return Egress(proxy=bare, credentials=credentials, names=names, networks=networks)


def _exceptions(text: str) -> tuple[frozenset[str], tuple[Network, ...]]:
    names: set[str] = set()
    networks: list[Network] = []
    for part in (each.strip().lower() for each in text.split(",")):
        if not part:
            continue
        try:
            networks.append(ip_network(part))
        except ValueError:
            if not part.isascii() or any(character in part for character in "/:*@ "):
                raise EgressError(f"{part} is no host, suffix or network") from None
            names.add(part)
    return frozenset(names), tuple(networks)
