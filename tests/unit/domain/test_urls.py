"""Which URLs an endpoint may have, and how they are stored."""

import json
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from libs.common.domain.addresses import Address, AddressPolicy, vet_all
from libs.common.domain.urls import TargetUrl, UrlRefusal, parse_target

PRODUCTION = AddressPolicy()
DEVELOPMENT = AddressPolicy(development=True)
CORPUS = json.loads((Path(__file__).parents[2] / "data" / "ssrf-urls.json").read_text())


def stored(text: str, policy: AddressPolicy = PRODUCTION, *, https_only: bool = True) -> str:
    target = parse_target(text, policy, https_only=https_only)
    assert isinstance(target, TargetUrl), target
    return target.text


def detail(text: str, policy: AddressPolicy = PRODUCTION, *, https_only: bool = True) -> str:
    refused = parse_target(text, policy, https_only=https_only)
    assert isinstance(refused, UrlRefusal), refused
    return refused.detail


# The way that a URL becomes a connection, with the corpus as the resolver


def resolve(target: TargetUrl, answers: list[str]) -> list[Address]:
    """As a resolver: literals are their own answer."""
    try:
        return [ip_address(target.host)]
    except ValueError:
        return [ip_address(answer) for answer in answers]


def is_connected(url: str, answers: list[str]) -> bool:
    target = parse_target(url, PRODUCTION)
    return isinstance(target, TargetUrl) and vet_all(resolve(target, answers), PRODUCTION) is None


@pytest.mark.parametrize("case", [pytest.param(case, id=ascii(case["url"])) for case in CORPUS])
def test_the_corpus_is_connected_to_where_it_may_be(case: dict[str, Any]) -> None:
    assert is_connected(case["url"], case.get("dns", [])) is (case["expected"] == "allowed"), case["why"]


@pytest.mark.parametrize("case", [pytest.param(case, id=case["url"]) for case in CORPUS if "rebind_to" in case])
def test_a_name_that_turns_private_is_refused_from_then_on(case: dict[str, Any]) -> None:
    assert not is_connected(case["url"], case["rebind_to"])


# One form for storing


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("https://example.com", "https://example.com/"),
        ("https://example.com?x=1", "https://example.com/?x=1"),
        ("https://example.com/?", "https://example.com/?"),
        ("HTTPS://Example.COM/Hook?X=Y", "https://example.com/Hook?X=Y"),
        ("https://example.com:443/", "https://example.com/"),
        ("https://example.com:0443/", "https://example.com/"),
        ("https://example.com:8443/a", "https://example.com:8443/a"),
        ("https://[2606:4700:4700:0:0:0:0:1111]:8443/", "https://[2606:4700:4700::1111]:8443/"),
        ("https://example.com/a@b:c//d", "https://example.com/a@b:c//d"),
        ("https://example.com/a?b/c?d=e[]=@", "https://example.com/a?b/c?d=e[]=@"),
        ("https://example.com/%7e/{id}?q=<a|b>", "https://example.com/%7e/%7Bid%7D?q=%3Ca%7Cb%3E"),
        ("https://xn--bcher-kva.example/", "https://xn--bcher-kva.example/"),
    ],
)
def test_a_url_is_stored_in_one_form(text: str, normalised: str) -> None:
    assert stored(text) == normalised
    assert stored(normalised) == normalised


def test_plain_http_is_stored_likewise() -> None:
    assert stored("http://a", DEVELOPMENT) == "http://a/"
    assert stored("http://A:80", DEVELOPMENT) == "http://a/"
    assert stored("http://a:443", DEVELOPMENT) == "http://a:443/"


def test_a_url_is_read_into_what_a_connection_needs() -> None:
    assert parse_target("https://Example.com:8443/hook?token=s3cret", PRODUCTION) == TargetUrl(
        scheme="https", host="example.com", port=8443, path="/hook", query="token=s3cret"
    )


def test_the_query_can_be_kept_out_of_what_is_recorded() -> None:
    target = parse_target("https://[2606:4700:4700::1111]:8443/hook?token=s3cret", PRODUCTION)
    assert isinstance(target, TargetUrl)
    assert target.without_query == "https://[2606:4700:4700::1111]:8443/hook"
    assert target.text == "https://[2606:4700:4700::1111]:8443/hook?token=s3cret"


# What is refused everywhere, a developer's machine included


@pytest.mark.parametrize("policy", [PRODUCTION, DEVELOPMENT], ids=["production", "development"])
@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "absolute"),
        ("example.com", "absolute"),
        ("/hook", "absolute"),
        ("https:example.com", "absolute"),
        ("https://", "host name is labels"),
        ("https:///hook", "host name is labels"),
        ("https://:443/", "host name is labels"),
        ("ftp://example.com/", "scheme"),
        ("ws://example.com/", "scheme"),
        ("https://example.com/#top", "fragment"),
        ("https://example.com/#", "fragment"),
        ("https://example.com\\@evil.example/", "backslash"),
        ("https://example.com/a b", "space"),
        ("https://example.com/\n", "control character"),
        ("https://example.com/\x7f", "control character"),
        ("https://example.com/\x00", "control character"),
        ("https://user@example.com/", "user name"),
        ("https://@example.com/", "user name"),
        ("https://bücher.example/", "ASCII"),
        ("https://example.com/ü", "ASCII"),
        ("https://example.com/\udcff", "ASCII"),
        ("https://example.com./", "full stop"),
        ("https://localhost./", "full stop"),
        ("https://./", "full stop"),
        ("https://a..b/", "host name is labels"),
        ("https://.example.com/", "host name is labels"),
        ("https://exa%6dple.com/", "host name is labels"),
        ("https://exa$mple.com/", "host name is labels"),
        (f"https://{'a' * 64}.com/", "host name is labels"),
        (f"https://{'a.' * 127}com/", "host name is labels"),
        ("https://2130706433/", "ends in a number"),
        ("https://0x7f000001/", "ends in a number"),
        ("https://0x/", "ends in a number"),
        ("https://example.0X7F/", "ends in a number"),
        ("https://example.123/", "ends in a number"),
        ("https://1.2.3/", "ends in a number"),
        ("https://1.2.3.4.5/", "ends in a number"),
        ("https://93.184.215.014/", "ends in a number"),
        ("https://93.184.215.256/", "ends in a number"),
        ("https://[93.184.215.14]/", "not an IPv6 address"),
        ("https://[]/", "not an IPv6 address"),
        ("https://[example.com]/", "not an IPv6 address"),
        ("https://[2606:4700:4700::1111%25eth0]/", "zone id"),
        ("https://[2606:4700:4700::1111%eth0]/", "zone id"),
        ("https://[2606:4700:4700::1111/", "cannot be told apart"),
        ("https://[2606:4700:4700::1111]443/", "cannot be told apart"),
        ("https://2606:4700:4700::1111/", "cannot be told apart"),
        ("https://example.com:/", "port"),
        ("https://example.com:0/", "port"),
        ("https://example.com:65536/", "port"),
        ("https://example.com:+443/", "port"),
        ("https://example.com:-1/", "port"),
        ("https://example.com:443:443/", "cannot be told apart"),
        (f"https://example.com:{'4' * 5000}/", "2048"),
    ],
)
def test_what_is_ambiguous_is_refused_everywhere(text: str, fault: str, policy: AddressPolicy) -> None:
    assert fault in detail(text, policy)


def test_a_url_is_at_most_2048_bytes_and_so_is_its_stored_form() -> None:
    base = "https://example.com/"
    assert len(stored(base + "a" * (2048 - len(base)))) == 2048
    assert "2048" in detail(base + "a" * (2049 - len(base)))
    assert "2048" in detail(base + "{" * 1000)


def test_a_refusal_does_not_repeat_what_a_url_may_hide() -> None:
    assert "s3cret" not in detail("https://user:s3cret@example.com/")
    assert "s3cret" not in detail("https://localhost/?token=s3cret")


# What production refuses and development allows, together


LOCAL = {
    "http://example.com/": "scheme",
    "https://127.0.0.1/": "loopback",
    "https://[::1]/": "outside 2000::/3",
    "https://receiver/": "local name",
    "https://localhost/": "local name",
    "https://app.localhost/": "local name",
    "https://metadata.google.internal/": "local name",
    "https://printer.LOCAL/": "local name",
    "https://example.com:22/": "another protocol",
    "https://example.com:6000/": "another protocol",
    "https://example.com:10080/": "another protocol",
    "http://localhost:6379/": "scheme",
}


@pytest.mark.parametrize(("text", "fault"), LOCAL.items())
def test_production_refuses_what_is_local(text: str, fault: str) -> None:
    assert fault in detail(text)


@pytest.mark.parametrize("text", LOCAL)
def test_development_allows_what_is_local(text: str) -> None:
    assert stored(text, DEVELOPMENT) == text.lower()


def test_http_may_be_allowed_in_production_and_nothing_else_with_it() -> None:
    assert stored("http://example.com/", https_only=False) == "http://example.com/"
    assert "loopback" in detail("http://127.0.0.1/", https_only=False)
    assert "local name" in detail("http://localhost/", https_only=False)
    assert "scheme" in detail("ftp://example.com/", https_only=False)


def test_a_literal_in_an_allowed_network_is_allowed_over_https() -> None:
    cluster = AddressPolicy(allowed_networks=(ip_network("10.96.0.0/12"),))
    assert stored("https://10.96.0.10/", cluster) == "https://10.96.0.10/"
    assert "scheme" in detail("http://10.96.0.10/", cluster)
    assert stored("http://10.96.0.10/", cluster, https_only=False) == "http://10.96.0.10/"
    assert "private" in detail("https://10.1.2.3/", cluster)
    assert "local name" in detail("https://receiver/", cluster)
