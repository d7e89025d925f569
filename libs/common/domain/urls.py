"""The URLs that endpoints may have, judged as text: no name is resolved here.

A parser of its own, and a stricter one than any client's: attacks live where two parsers read one text differently, so
whatever could be read in two ways is refused. Resolved addresses are judged by `addresses`, on each attempt.

Source for the terms: https://url.spec.whatwg.org/
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

from libs.common.domain.addresses import AddressPolicy, refusal

MAX_URL_BYTES: Final = 2048
_MAX_NAME_CHARACTERS: Final = 253
_MAX_PORT: Final = 65535
_DEFAULT_PORTS: Final[Mapping[str, int]] = {"http": 80, "https": 443}

# https://fetch.spec.whatwg.org/#port-blocking
_BAD_PORTS: Final = frozenset(
    (
        *(1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104),
        *(109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515),
        *(526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049),
        *(3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080),
    )
)

_FORBIDDEN: Final = re.compile(r"[\x00-\x20\x7f\\#]")
_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?]*)(/[^?]*)?(?:\?(.*))?")
_AUTHORITY: Final = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::([^:]*))?")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_LABEL: Final = re.compile(r"[a-z0-9_-]{1,63}")
# What resolvers take for a number, 0x alone included: https://url.spec.whatwg.org/#ends-in-a-number-checker
_NUMERIC_LABEL: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_LOCAL_DOMAINS: Final = ("localhost", "internal", "local")
# Characters that no URI may hold and every browser encodes: https://url.spec.whatwg.org/#path-percent-encode-set
_ENCODED: Final = str.maketrans({character: f"%{ord(character):02X}" for character in '"<>^`{|}'})


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetUrl:
    """A URL that may be sent to, in the one form in which it is stored.

    Attributes:
        scheme: `https`, or `http` where that is allowed.
        host: a lower-case name, an IPv4 address, or an IPv6 address without its brackets.
        port: the port to connect to, whether or not the text names it.
        path: begins with `/`.
        query: what follows the `?`; None without one. Receivers keep tokens there: it stays out of the ledger.
    """

    scheme: str
    host: str
    port: int
    path: str
    query: str | None

    @property
    def without_query(self) -> str:
        """The URL up to its query: what may be shown and recorded."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path}"

    @property
    def text(self) -> str:
        """The whole URL, normalised: parsing it again gives this value."""
        return self.without_query if self.query is None else f"{self.without_query}?{self.query}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlRefusal:
    """Why a URL may not be sent to. `detail` quotes no more of it than a port or an address."""

    detail: str


class _RefusedError(Exception):
    """Carries a refusal's detail up through the steps of one parse."""


def parse_target(text: str, policy: AddressPolicy, *, https_only: bool = True) -> TargetUrl | UrlRefusal:
    """The URL in `text`, if an endpoint may have it under `policy`.

    Development allows http, private addresses, plain host names and any port, together; what is ambiguous is refused
    there too. `https_only=False` allows http in production.
    """
    try:
        scheme, authority, path, query = _split(text)
        _check_scheme(scheme, plain_http=policy.development or not https_only)
        host_text, port_text = _split_authority(authority)
        target = TargetUrl(
            scheme=scheme,
            host=_parse_host(host_text, policy),
            port=_DEFAULT_PORTS[scheme] if port_text is None else _parse_port(port_text, policy),
            path=path.translate(_ENCODED),
            query=None if query is None else query.translate(_ENCODED),
        )
        # The normalised text may be the longer one, and has to be readable again.
        _check_length(target.text)
    except _RefusedError as refused:
        return UrlRefusal(detail=str(refused))
    return target


def _split(text: str) -> tuple[str, str, str, str | None]:
    """Scheme (lower case), authority, path and query."""
    if not text.isascii():
        raise _RefusedError("a URL is ASCII: international names are written as xn--, other characters as %XX")
    _check_length(text)
    if _FORBIDDEN.search(text):
        raise _RefusedError("a URL holds no space, control character, backslash or fragment")
    parts = _URL.fullmatch(text)
    if parts is None:
        raise _RefusedError("a URL is absolute: https://host/path")
    return parts[1].lower(), parts[2], parts[3] or "/", parts[4]


def _check_length(text: str) -> None:
    if len(text) > MAX_URL_BYTES:
        raise _RefusedError(f"a URL is at most {MAX_URL_BYTES} bytes")


def _check_scheme(scheme: str, *, plain_http: bool) -> None:
    if scheme != "https" and not (plain_http and scheme == "http"):
        raise _RefusedError("the URL's scheme is not https")


def _split_authority(authority: str) -> tuple[str, str | None]:
    """Host (an IPv6 address still in its brackets) and port."""
    if "@" in authority:
        raise _RefusedError("a URL holds no user name or password")
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        raise _RefusedError("the URL's host and port cannot be told apart")
    return parts[1], parts[2]


def _parse_port(text: str, policy: AddressPolicy) -> int:
    port = int(text) if _PORT.fullmatch(text) else 0
    if not 1 <= port <= _MAX_PORT:
        raise _RefusedError(f"a port is a number from 1 to {_MAX_PORT}")
    if port in _BAD_PORTS and not policy.development:
        raise _RefusedError(f"port {port} belongs to another protocol than HTTP")
    return port


def _parse_host(text: str, policy: AddressPolicy) -> str:
    host = _parse_ipv6(text[1:-1]) if text.startswith("[") else _parse_name(text.lower())
    if not isinstance(host, str):
        refused = refusal(host, policy)
        if refused is not None:
            raise _RefusedError(refused.detail)
    elif not policy.development and _is_local(host):
        raise _RefusedError(f"the host is a local name: a single label, or under .{', .'.join(_LOCAL_DOMAINS)}")
    return str(host)


def _parse_ipv6(text: str) -> IPv6Address:
    # ipaddress would take a zone id, which means something on the sender's machine only.
    if "%" in text:
        raise _RefusedError("an IPv6 address in a URL has no zone id")
    try:
        return IPv6Address(text)
    except AddressValueError:
        raise _RefusedError("what stands in brackets is not an IPv6 address") from None


def _parse_name(name: str) -> str | IPv4Address:
    if name.endswith("."):
        raise _RefusedError("a host name does not end with a full stop")
    labels = name.split(".")
    if len(name) > _MAX_NAME_CHARACTERS or not all(_LABEL.fullmatch(label) for label in labels):
        raise _RefusedError(
            f"a host name is labels of 1 to 63 letters, digits, - and _, at most {_MAX_NAME_CHARACTERS} in all"
        )
    if not _NUMERIC_LABEL.fullmatch(labels[-1]):
        return name
    # 0x7f.1, 2130706433 and 0177.0.0.1 are all 127.0.0.1 to a resolver; leading zeros are octal to some.
    try:
        return IPv4Address(name)
    except AddressValueError:
        raise _RefusedError("a host that ends in a number is four decimal numbers from 0 to 255") from None


def _is_local(name: str) -> bool:
    *parents, last = name.split(".")
    return not parents or last in _LOCAL_DOMAINS
