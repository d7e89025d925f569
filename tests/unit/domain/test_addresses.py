"""Which addresses may be connected to."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address, ip_network

import pytest

from libs.common.domain.addresses import Address, AddressPolicy, AddressRefusal, refusal, vet_all

PRODUCTION = AddressPolicy()
DEVELOPMENT = AddressPolicy(development=True)

# First and last address of every blocked network, and their neighbours that are public.
BLOCKED = """
    0.0.0.0 0.255.255.255          10.0.0.0 10.255.255.255        100.64.0.0 100.127.255.255
    127.0.0.0 127.255.255.255      169.254.0.0 169.254.255.255    172.16.0.0 172.31.255.255
    192.0.0.0 192.0.0.255          192.0.2.0 192.0.2.255          192.31.196.0 192.31.196.255
    192.52.193.0 192.52.193.255    192.88.99.0 192.88.99.255      192.168.0.0 192.168.255.255
    192.175.48.0 192.175.48.255    198.18.0.0 198.19.255.255      198.51.100.0 198.51.100.255
    203.0.113.0 203.0.113.255      224.0.0.0 239.255.255.255      240.0.0.0 255.255.255.255
    168.63.129.16
    :: ::1 100::1 64:ff9b::808:808 64:ff9b:1::1 1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff
    2001:: 2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff    2001:db8:: 2001:db8:ffff:ffff:ffff:ffff:ffff:ffff
    2002:: 2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff   2620:4f:8000:: 2620:4f:8000:ffff:ffff:ffff:ffff:ffff
    3fff:: 3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff    4000:: 5f00::1 fc00:: fd00:ec2::254 fe80::1 fec0::1 ff02::1
    ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::127.0.0.1 ::ffff:0:127.0.0.1
"""

PUBLIC = """
    1.0.0.0 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 168.63.129.15 168.63.129.17
    169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0 192.0.3.0 192.31.195.255 192.31.197.0
    192.52.192.255 192.52.194.0 192.88.98.255 192.88.100.0 192.167.255.255 192.169.0.0 192.175.47.255 192.175.49.0
    198.17.255.255 198.20.0.0 198.51.99.255 198.51.101.0 203.0.112.255 203.0.114.0 223.255.255.255
    2000:: 2001:200:: 2001:db7:ffff:ffff:ffff:ffff:ffff:ffff 2001:db9:: 2003:: 2606:4700:4700::1111
    2620:4f:7fff:ffff:ffff:ffff:ffff:ffff 2620:4f:8001:: 3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff
    3fff:1000:: 3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ::ffff:8.8.8.8
"""


@pytest.mark.parametrize("address", BLOCKED.split())
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    refused = refusal(ip_address(address), PRODUCTION)
    assert refused is not None
    assert refused.address == ip_address(address)


@pytest.mark.parametrize("address", PUBLIC.split())
def test_a_public_address_is_not(address: str) -> None:
    assert refusal(ip_address(address), PRODUCTION) is None


def test_a_refusal_says_what_the_address_is() -> None:
    assert refusal(IPv4Address("127.0.0.1"), PRODUCTION) == AddressRefusal(
        address=IPv4Address("127.0.0.1"), detail="127.0.0.1 is not public: loopback"
    )


@pytest.mark.parametrize("address", BLOCKED.split())
def test_development_connects_anywhere(address: str) -> None:
    assert refusal(ip_address(address), DEVELOPMENT) is None


@pytest.mark.parametrize(
    ("network", "inside", "outside"),
    [
        ("10.96.0.0/12", "10.96.0.10", "10.112.0.1"),
        ("10.96.0.0/12", "::ffff:10.96.0.10", "::ffff:10.112.0.1"),
        ("fd00:1::/32", "fd00:1::5", "fd00:2::5"),
    ],
)
def test_an_allowed_network_is_allowed_beside_the_public_ones_and_no_more(
    network: str, inside: str, outside: str
) -> None:
    policy = AddressPolicy(allowed_networks=(ip_network(network),))
    assert refusal(ip_address(inside), policy) is None
    assert refusal(ip_address(outside), policy) is not None
    assert refusal(IPv4Address("8.8.8.8"), policy) is None


def test_one_bad_answer_refuses_the_whole_set() -> None:
    public: Address = IPv4Address("93.184.215.14")
    private: Address = IPv6Address("::1")
    assert vet_all([public], PRODUCTION) is None
    for answers in ([public, private], [private, public]):
        refused = vet_all(answers, PRODUCTION)
        assert refused is not None
        assert refused.address == private


@pytest.mark.parametrize(
    "policy", [PRODUCTION, DEVELOPMENT, AddressPolicy(allowed_networks=(IPv4Network("10.0.0.0/8"),))]
)
def test_a_name_without_an_address_is_refused(policy: AddressPolicy) -> None:
    assert vet_all([], policy) == AddressRefusal(address=None, detail="the name has no address")
