"""What holds of the guard for any address, network and URL."""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from hypothesis import example, given
from hypothesis import strategies as st

from libs.common.domain.addresses import Address, AddressPolicy, Network, refusal, vet_all
from libs.common.domain.urls import TargetUrl, UrlRefusal, parse_target

PRODUCTION = AddressPolicy()
ADDRESSES: st.SearchStrategy[Address] = st.ip_addresses(v=4) | st.ip_addresses(v=6)
NETWORKS: st.SearchStrategy[Network] = st.builds(
    lambda address, prefix: ip_network((address, prefix), strict=False), ADDRESSES, st.integers(8, 32)
)
POLICIES = st.builds(
    AddressPolicy, development=st.booleans(), allowed_networks=st.lists(NETWORKS, max_size=3).map(tuple)
)

# Texts that get as far as being URLs, and some that do not.
HOSTS = (
    st.from_regex(r"[a-zA-Z0-9_.\-]{1,20}", fullmatch=True)
    | st.from_regex(r"(0x)?[0-9a-f]{1,3}(\.[0-9]{1,3}){0,4}", fullmatch=True)
    | st.from_regex(r"[a-zA-Z]{1,5}\.(com|local|internal|localhost|[0-9]|0x[0-9a-f]?)\.?", fullmatch=True)
    | st.ip_addresses(v=4).map(str)
    | st.ip_addresses(v=6).map("[{}]".format)
    | st.text(max_size=5)
)
PARTS = st.text(st.characters(max_codepoint=0x80), max_size=20)
URLS = st.text(max_size=30) | st.builds(
    "{}://{}{}{}".format,
    st.sampled_from(["https", "http", "HTTPS", "ftp"]),
    HOSTS,
    st.just("") | st.integers(-1, 70000).map(":{}".format),
    st.just("") | PARTS.map("/{}".format) | PARTS.map("?{}".format) | st.builds("/{}?{}".format, PARTS, PARTS),
)


@given(st.ip_addresses(v=4), POLICIES)
def test_an_ipv4_address_is_judged_alike_in_ipv6_clothes(address: IPv4Address, policy: AddressPolicy) -> None:
    mapped = IPv6Address(b"\x00" * 10 + b"\xff\xff" + address.packed)
    assert (refusal(address, policy) is None) is (refusal(mapped, policy) is None)


@given(ADDRESSES)
def test_nothing_local_is_public(address: Address) -> None:
    local = address.is_private or address.is_loopback or address.is_link_local or address.is_multicast
    if local and getattr(address, "ipv4_mapped", None) is None:
        assert refusal(address, PRODUCTION) is not None


@given(st.lists(ADDRESSES, max_size=5), POLICIES)
def test_a_set_is_as_good_as_its_worst_address(addresses: list[Address], policy: AddressPolicy) -> None:
    good = bool(addresses) and all(refusal(address, policy) is None for address in addresses)
    assert (vet_all(addresses, policy) is None) is good


@given(ADDRESSES, POLICIES)
def test_a_policy_only_adds_to_what_is_public(address: Address, policy: AddressPolicy) -> None:
    if refusal(address, PRODUCTION) is None:
        assert refusal(address, policy) is None


@given(URLS, POLICIES, st.booleans())
@example("https://example.com/" + "{" * 700, PRODUCTION, True)
@example("https://" + "example.com?" + "a" * 2036, PRODUCTION, True)
def test_a_stored_url_reads_back_as_itself(text: str, policy: AddressPolicy, https_only: bool) -> None:
    target = parse_target(text, policy, https_only=https_only)
    assert isinstance(target, TargetUrl | UrlRefusal)
    if isinstance(target, TargetUrl):
        assert parse_target(target.text, policy, https_only=https_only) == target


@given(URLS)
def test_what_production_takes_is_a_public_address_or_a_name_under_some_domain(text: str) -> None:
    target = parse_target(text, PRODUCTION)
    if isinstance(target, UrlRefusal):
        return
    assert target.scheme == "https"
    try:
        address = ip_address(target.host)
    except ValueError:
        assert re.fullmatch(r"([a-z0-9_-]+\.)+[a-z0-9_-]*[a-z_-][a-z0-9_-]*", target.host)
        assert not target.host.endswith((".localhost", ".internal", ".local"))
        assert not re.search(r"\.0x[0-9a-f]*$", target.host)
    else:
        assert refusal(address, PRODUCTION) is None


@given(URLS, POLICIES)
def test_development_takes_all_that_any_policy_takes(text: str, policy: AddressPolicy) -> None:
    if isinstance(parse_target(text, policy, https_only=False), TargetUrl):
        assert isinstance(parse_target(text, AddressPolicy(development=True)), TargetUrl)
