"""The way out: a proxy for all but some."""

import pytest

from libs.common.domain.egress import Egress, EgressError, parse_egress

PROXY = "http://proxy.corp.example:3128"


def test_without_a_proxy_everything_is_reached_straight() -> None:
    assert parse_egress("", "") == Egress()
    assert not parse_egress("", "").proxied("a.example")


def test_credentials_are_taken_off_the_url_and_shown_nowhere() -> None:
    found = parse_egress("http://user:s3cret@proxy.corp.example:3128/", "")
    assert found.proxy == PROXY
    assert found.credentials == ("user", "s3cret")
    assert "s3cret" not in repr(found)


@pytest.mark.parametrize(
    ("host", "proxied"),
    [
        ("a.example", True),
        ("corp.example", True),
        ("hooks.corp.example", False),
        ("deep.hooks.corp.example", False),
        ("notcorp.example", True),
        ("exact.example", False),
        ("sub.exact.example", True),
        ("10.1.2.3", False),
        ("11.1.2.3", True),
        ("fd00::1", False),
    ],
)
def test_names_suffixes_and_networks_are_exceptions(host: str, *, proxied: bool) -> None:
    found = parse_egress(PROXY, ".corp.example, exact.example,10.0.0.0/8,fd00::/8")
    assert found.proxied(host) is proxied


@pytest.mark.parametrize(
    "proxy", ["https://proxy:1", "proxy:3128", "http://", "http://p:x", "http://p:1/path", "ftp://p"]
)
def test_what_is_no_proxy_is_refused_without_repeating_it(proxy: str) -> None:
    with pytest.raises(EgressError, match=r"^it is not http://host:port$"):
        parse_egress(proxy, "")


@pytest.mark.parametrize("exceptions", ["*.example", "http://a", "10.0.0.1/8", "a b"])
def test_what_is_no_exception_is_refused(exceptions: str) -> None:
    with pytest.raises(EgressError):
        parse_egress(PROXY, exceptions)


def test_exceptions_from_no_proxy_are_a_mistake() -> None:
    with pytest.raises(EgressError):
        parse_egress("", "a.example")
