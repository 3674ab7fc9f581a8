"""Hosts and ports as people and clients write them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinkvpn.proxy.target import MalformedRequest, Target, parse_target


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("example.com:443", "example.com", 443),
        ("EXAMPLE.com.:1", "example.com", 1),
        ("_ldap._tcp.example.com:389", "_ldap._tcp.example.com", 389),
        ("localhost:65535", "localhost", 65_535),
        ("192.0.2.1:80", IPv4Address("192.0.2.1"), 80),
        ("[2001:db8::1]:80", IPv6Address("2001:db8::1"), 80),
    ],
)
def test_names_and_addresses(text: str, host: object, port: int) -> None:
    assert parse_target(text) == Target(host, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":80",
        "a",
        "a:",
        "a:0",
        "a:65536",
        "a:+1",
        "a:1_0",
        "a:٣",
        "2001:db8::1:80",
        "[::1]",
        "a b:80",
        "-a:80",
        "a..b:80",
        "192.0.2.256:80",
        "1.2.3:80",
        "x" * 64 + ":80",
        ".".join(["abcdefgh"] * 30) + ":80",
        "ä:80",
        "[a]:80",
    ],
)
def test_what_is_neither(text: str) -> None:
    with pytest.raises(MalformedRequest):
        parse_target(text)


@given(st.ip_addresses(), st.integers(1, 65_535))
def test_what_is_printed_is_read_again(address: IPv4Address | IPv6Address, port: int) -> None:
    target = Target(address, port)
    assert parse_target(str(target)) == target


@given(st.text(max_size=80))
def test_any_text_is_a_target_or_the_one_error(text: str) -> None:
    try:
        found = parse_target(text)
    except MalformedRequest:
        return
    assert 1 <= found.port <= 65_535
    assert not isinstance(found.host, str) or found.host.isascii()
