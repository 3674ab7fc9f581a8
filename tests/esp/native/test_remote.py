"""Endpoints as sockets have them."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esp.native._core import Place
from esp.sa import Endpoint

PORTS = st.integers(0, 65_535)
ADDRESSES = (st.ip_addresses(v=4) | st.ip_addresses(v=6)).map(str)
LINK_LOCAL = st.builds(
    lambda number, scope: f"fe80::{number:x}%{scope}", st.integers(1, 0xFFFF), st.integers(1, 2**32 - 1)
)


@given(ADDRESSES | LINK_LOCAL, PORTS)
def test_there_and_back(address: str, port: int) -> None:
    host, _percent, scope = Place(address, port).endpoint().address.partition("%")
    expected, _, interface = address.partition("%")
    make = IPv6Address if ":" in host else IPv4Address
    assert make(host) == make(expected)
    assert scope == interface
    assert Place(address, port).endpoint().port == port


@given(st.lists(st.tuples(ADDRESSES | LINK_LOCAL, PORTS), min_size=2, max_size=2))
def test_equal_are_those_with_the_same_text(two: list[tuple[str, int]]) -> None:
    one, other = (Place(*each) for each in two)
    assert (one == other) is (one.endpoint() == other.endpoint())
    assert one == Place(*two[0])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("192.0.2.1", 1), ("192.0.2.1", 2)),
        (("192.0.2.1", 1), ("192.0.2.2", 1)),
        (("::1", 1), ("::1", 2)),
        (("::1", 1), ("::2", 1)),
        (("fe80::1%1", 1), ("fe80::1%2", 1)),
        (("fe80::1%1", 1), ("fe80::1", 1)),
        (("::", 0), ("0.0.0.0", 0)),
        (("::ffff:192.0.2.1", 1), ("192.0.2.1", 1)),
    ],
)
def test_what_tells_two_apart(one: tuple[str, int], other: tuple[str, int]) -> None:
    assert Place(*one) != Place(*other)


def test_an_interface_may_be_named() -> None:
    index = socket.if_nametoindex("lo")
    assert Place("fe80::1%lo", 4500).endpoint() == Endpoint(f"fe80::1%{index}", 4500)


@pytest.mark.parametrize(
    "address", ["", "localhost", "1.2.3", "1.2.3.4.5", "::1::", "1" * 200, "[::1]", "192.0.2.1 ", "fe80::1 %2"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="no address and port"):
        Place(address, 4500)


@pytest.mark.parametrize("port", [-1, 65_536, 2**31 - 1])
def test_nor_is_what_is_no_port(port: int) -> None:
    with pytest.raises(ValueError, match="no address and port"):
        Place("192.0.2.1", port)
