"""Egress rules: what plugin.json narrows and only the operator widens."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin_server.host_api.egress import (
    PUBLIC_ONLY,
    EgressRules,
    PrivateAccess,
    Reach,
    parse_pattern,
    private_access,
    reach_of,
    rules_of,
)
from plugin_server.model.errors import FetchRefused, InvalidArgument
from plugin_server.model.project import App, Install

EVERYWHERE = PrivateAccess(everywhere=True)


def install(egress: list[str] | None, access: PrivateAccess = PUBLIC_ONLY, **config: Any) -> EgressRules:
    app = App("App", "0", "main.py", "", {"egress": egress})
    return rules_of(Install(7, app, 1, config), access)


def allows(rules: EgressRules, url: str) -> bool:
    try:
        rules.check_url(url)
    except FetchRefused:
        return False
    return True


# Addresses


@pytest.mark.parametrize(
    ("address", "reach"),
    [
        ("93.184.216.34", Reach.PUBLIC),
        ("2606:2800:220:1::1", Reach.PUBLIC),
        ("::ffff:93.184.216.34", Reach.PUBLIC),
        ("64:ff9b::5db8:d822", Reach.PUBLIC),
        ("2002:5db8:d822::1", Reach.PUBLIC),
        ("127.0.0.1", Reach.PRIVATE),
        ("127.255.255.254", Reach.PRIVATE),
        ("10.0.0.1", Reach.PRIVATE),
        ("172.31.255.255", Reach.PRIVATE),
        ("192.168.1.1", Reach.PRIVATE),
        ("100.64.0.1", Reach.PRIVATE),
        ("::1", Reach.PRIVATE),
        ("fd12::1", Reach.PRIVATE),
        ("::ffff:127.0.0.1", Reach.PRIVATE),
        ("64:ff9b::7f00:1", Reach.PRIVATE),
        ("2002:7f00:1::1", Reach.PRIVATE),
        ("2606:2800:220:1:0:5efe:a00:1", Reach.PRIVATE),
        ("0.0.0.0", Reach.RESERVED),
        ("0.1.2.3", Reach.RESERVED),
        ("169.254.169.254", Reach.RESERVED),
        ("169.254.0.1", Reach.RESERVED),
        ("100.100.100.200", Reach.RESERVED),
        ("168.63.129.16", Reach.RESERVED),
        ("192.0.0.192", Reach.RESERVED),
        ("192.0.2.1", Reach.RESERVED),
        ("192.88.99.1", Reach.RESERVED),
        ("198.18.0.1", Reach.RESERVED),
        ("224.0.0.1", Reach.RESERVED),
        ("240.0.0.1", Reach.RESERVED),
        ("255.255.255.255", Reach.RESERVED),
        ("::", Reach.RESERVED),
        ("::127.0.0.1", Reach.RESERVED),
        ("::ffff:169.254.169.254", Reach.RESERVED),
        ("64:ff9b::a9fe:a9fe", Reach.RESERVED),
        ("64:ff9b:1::7f00:1", Reach.RESERVED),
        ("2002:a9fe:a9fe::1", Reach.RESERVED),
        ("2606:2800:220:1:0:5efe:a9fe:a9fe", Reach.RESERVED),
        ("2001:0:1::1", Reach.RESERVED),
        ("2001:db8::1", Reach.RESERVED),
        ("fe80::1", Reach.RESERVED),
        ("fec0::1", Reach.RESERVED),
        ("ff02::1", Reach.RESERVED),
        ("fd00:ec2::254", Reach.RESERVED),
        ("fd20:ce::254", Reach.RESERVED),
        ("4000::1", Reach.RESERVED),
    ],
)
def test_addresses_are_told_apart(address: str, reach: Reach):
    assert reach_of(ip_address(address)) is reach


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_no_wrapping_brings_an_address_nearer(address: IPv4Address):
    number = int(address)
    wrapped = [0xFFFF << 32 | number, 0x64FF9B << 96 | number, 0x2002 << 112 | number << 80 | 1]
    assert all(reach_of(IPv6Address(inner)) >= reach_of(address) for inner in wrapped)


@given(st.ip_addresses())
def test_only_global_addresses_are_public(address: IPv4Address | IPv6Address):
    if reach_of(address) is Reach.PUBLIC and getattr(address, "ipv4_mapped", None) is None:
        assert address.is_global or address in IPV6_WITH_PUBLIC_INSIDE
        assert not address.is_multicast
        assert not address.is_loopback
        assert not address.is_link_local
        assert not address.is_unspecified


class _Nat64:
    def __contains__(self, address: IPv4Address | IPv6Address) -> bool:
        return isinstance(address, IPv6Address) and int(address) >> 32 == 0x64FF9B << 64


IPV6_WITH_PUBLIC_INSIDE = _Nat64()


# URLs


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://0/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[2002:7f00:1::]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://0xa9fea9fe/",
        "http://[fd00:ec2::254]/",
        "http://localhost:6738/",
        "http://LOCALHOST./",
        "http://db.localhost/",
        "http://metadata.google.internal/",
        "http://10.0.0.1/",
    ],
)
def test_private_addresses_are_refused_with_the_operators_setting(url: str):
    for rules in (install(None), install(["*.internal", "localhost", "127.0.0.1", "10.0.0.1", "{host}"], host=url)):
        with pytest.raises(FetchRefused, match=r"ALLOWED_PRIVATE_HOSTS|egress"):
            rules.check_url(url)


def test_any_public_host_is_allowed_without_an_egress_list():
    assert allows(install(None), "https://example.com:8443/x")
    assert allows(install(None), "http://93.184.216.34/")


def test_only_hosts_of_the_list_are_allowed():
    rules = install(["api.example.com", "*.example.org", "ports.example.com:8443"])
    assert allows(rules, "https://API.example.com./v1")
    assert allows(rules, "https://api.example.com:9000/")
    assert allows(rules, "https://a.b.example.org/")
    assert allows(rules, "https://ports.example.com:8443/")
    assert not allows(rules, "https://ports.example.com/")
    assert not allows(rules, "https://example.org/")
    assert not allows(rules, "https://evilexample.org/")
    assert not allows(rules, "https://api.example.com.evil.example/")
    assert not allows(rules, "https://evil.example/api.example.com")
    assert not allows(rules, "https://evil.example/?@api.example.com")
    assert not allows(rules, "https://evil.example/#@api.example.com")


def test_an_empty_list_allows_nothing():
    assert not allows(install([]), "https://example.com/")


def test_a_refusal_says_what_to_add():
    with pytest.raises(FetchRefused, match=r'egress.*Add "evil\.example"'):
        install(["example.com"]).check_url("https://evil.example/")


# Hosts from the config


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("example.com", "https://example.com/"),
        ("Example.com:8443", "https://example.com:8443/"),
        ("https://example.com", "https://example.com/x"),
        ("https://example.com/path?x#y", "https://example.com/x"),
        ("https://example.com:8443/path", "https://example.com:8443/x"),
        ("https://user:secret@example.com/path", "https://example.com/x"),
        (" example.com ", "https://example.com/"),
        ("http://[2606:2800:220:1::1]:8080/", "http://[2606:2800:220:1::1]:8080/"),
        ("bücher.example", "https://xn--bcher-kva.example/"),
    ],
)
def test_a_config_value_allows_its_host(value: str, url: str):
    rules = install(["{host}"], host=value)
    assert rules.problems == ()
    assert allows(rules, url)
    assert not allows(rules, "https://other.example/")


def test_the_port_of_a_config_value_counts():
    rules = install(["{host}"], host="https://example.com:8443")
    assert not allows(rules, "https://example.com/")


def test_a_placeholder_may_be_part_of_a_host():
    rules = install(
        ["{region}.api.example.com", "*.{domain}", "{domain}:99"], region="eu", domain="https://shop.example:1/"
    )
    assert allows(rules, "https://eu.api.example.com/")
    assert allows(rules, "https://www.shop.example/")
    assert allows(rules, "https://shop.example:99/")
    assert not allows(rules, "https://us.api.example.com/")
    assert not allows(rules, "https://shop.example/")


@pytest.mark.parametrize(
    "value",
    [None, "", "  ", 5, ["example.com"], "*", "*.com", "*.example.com", "https://", "a b", "..", "http:\\\\x"],
)
def test_a_wrong_config_value_allows_nothing_and_says_so(value: Any):
    rules = install(["{host}", "example.com"], host=value)
    assert len(rules.problems) == 1
    assert not allows(rules, "https://other.example/")
    assert allows(rules, "https://example.com/")
    with pytest.raises(FetchRefused, match="config value `host`"):
        rules.check_url("https://other.example/")


def test_messages_do_not_show_config_values():
    rules = install(["{key}"], key="s3cr3t value")
    with pytest.raises(FetchRefused) as caught:
        rules.check_url("https://example.com/")
    assert "s3cr3t" not in str(caught.value)


@given(st.text(max_size=30))
def test_no_config_value_opens_more_than_one_host(value: str):
    rules = install(["{host}"], host=value)
    assert rules.hosts is not None
    assert len(rules.hosts) <= 1
    assert not any(pattern.is_wildcard for pattern in rules.hosts)
    assert not allows(rules, "http://169.254.169.254/")


# What the operator allows


def test_private_addresses_can_be_allowed_together_but_not_reserved_ones():
    rules = install(None, EVERYWHERE)
    assert allows(rules, "http://127.0.0.1:8000/")
    assert allows(rules, "http://localhost:8000/")
    rules.check_address("db.example", 80, "10.0.0.1")
    assert not allows(rules, "http://169.254.169.254/")
    assert not allows(rules, "http://0.0.0.0/")
    with pytest.raises(FetchRefused):
        rules.check_address("db.example", 80, "fe80::1")


def test_private_hosts_can_be_allowed_by_name():
    rules = install(None, private_access(["*.corp.example", "db.example:5000"]))
    rules.check_address("a.corp.example", 443, "10.0.0.1")
    rules.check_address("db.example", 5000, "10.0.0.1")
    for host, port, address in [
        ("db.example", 80, "10.0.0.1"),
        ("corp.example", 443, "10.0.0.1"),
        ("a.corp.example", 443, "169.254.169.254"),
        ("evil.example", 443, "10.0.0.1"),
    ]:
        with pytest.raises(FetchRefused, match="ALLOWED_PRIVATE_HOSTS"):
            rules.check_address(host, port, address)


def test_addresses_and_networks_can_be_allowed():
    rules = install(None, private_access(["10.1.0.0/16", "169.254.169.254", "[fd00::5]"]))
    rules.check_address("a.example", 80, "10.1.2.3")
    rules.check_address("a.example", 80, "::ffff:10.1.2.3")
    assert allows(rules, "http://169.254.169.254/")
    assert allows(rules, "http://[fd00::5]/")
    with pytest.raises(FetchRefused):
        rules.check_address("a.example", 80, "10.2.0.1")


def test_what_the_operator_allows_does_not_widen_the_list_of_the_app():
    rules = install(["example.com"], EVERYWHERE)
    assert not allows(rules, "http://127.0.0.1/")


@pytest.mark.parametrize("entry", ["", "https://x.example", "*", "a.*.example", "*.10.0.0.1", "x:y", "*.*.example"])
def test_wrong_patterns_are_refused(entry: str):
    with pytest.raises(InvalidArgument):
        parse_pattern(entry)
    with pytest.raises(InvalidArgument):
        private_access([entry])
