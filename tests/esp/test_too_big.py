"""ICMP errors as scapy reads them, and the packets that must not cause any."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.packet import Packet, Raw

from esp.too_big import packet_too_big

GATEWAY4, GATEWAY6 = ip_address("10.1.0.254"), ip_address("2001:db8::fe")
V4, V6 = IP(src="10.1.0.1", dst="10.2.0.1"), IPv6(src="2001:db8::1", dst="2001:db8:2::1")


def checked(packet: Packet, layer: type[Packet], field: str) -> None:
    """The checksum is what scapy computes."""
    again = packet.__class__(bytes(packet))
    del again[layer].fields[field]
    assert again.__class__(bytes(again))[layer].fields[field] == packet[layer].fields[field]


@given(octets=st.integers(0, 3000), mtu=st.integers(68, 65_535))
def test_ipv4(octets: int, mtu: int) -> None:
    about = bytes(V4 / UDP() / Raw(bytes(octets)))
    for source, expected in ((None, "10.2.0.1"), (GATEWAY4.packed, "10.1.0.254")):
        error = packet_too_big(about, mtu, source)
        assert error is not None
        found = IP(error)
        assert (found.src, found.dst, found[ICMP].type, found[ICMP].code) == (expected, "10.1.0.1", 3, 4)
        assert found[ICMP].nexthopmtu == mtu
        assert error[28:] == about[:548]  # scapy takes some of it for an extension (RFC 4884)
        assert len(error) == found.len <= 576
        checked(found, IP, "chksum")
        checked(found, ICMP, "chksum")


@given(octets=st.integers(0, 3000), mtu=st.integers(1280, 65_535))
def test_ipv6(octets: int, mtu: int) -> None:
    about = bytes(V6 / UDP() / Raw(bytes(octets)))
    for source, expected in ((None, "2001:db8:2::1"), (GATEWAY6.packed, "2001:db8::fe")):
        error = packet_too_big(about, mtu, source)
        assert error is not None
        found = IPv6(error)
        assert (found.src, found.dst, found[ICMPv6PacketTooBig].mtu) == (expected, "2001:db8::1", mtu)
        assert bytes(found[ICMPv6PacketTooBig].payload) == about[:1232]
        assert len(error) <= 1280
        checked(found, ICMPv6PacketTooBig, "cksum")


UNANSWERED = [
    V4 / ICMP(type=3),
    V4 / ICMP(type=11),
    IP(src="10.1.0.1", dst="10.2.0.1", frag=10) / Raw(bytes(20)),
    IP(src="10.1.0.1", dst="224.0.0.5") / UDP(),
    IP(src="10.1.0.1", dst="255.255.255.255") / UDP(),
    IP(src="0.0.0.0", dst="10.2.0.1") / UDP(),
    IP(src="127.0.0.1", dst="10.2.0.1") / UDP(),
    V6 / ICMPv6ParamProblem(),
    V6 / IPv6ExtHdrHopByHop() / ICMPv6ParamProblem(),
    V6 / IPv6ExtHdrFragment(offset=9, nh=17) / Raw(bytes(20)),
    IPv6(src="::", dst="2001:db8:2::1") / UDP(),
    IPv6(src="ff02::1", dst="2001:db8:2::1") / UDP(),
    IPv6(src="2001:db8::1", dst="ff02::1") / UDP(),
]


@pytest.mark.parametrize("about", UNANSWERED, ids=lambda each: each.summary())
def test_no_error_about_these(about: Packet) -> None:
    assert packet_too_big(bytes(about), 1400) is None


ANSWERED = [
    V4 / ICMP(type=8),
    V4 / TCP(),
    V6 / ICMPv6EchoRequest(),
    V6 / IPv6ExtHdrDestOpt() / UDP(),
    V6 / IPv6ExtHdrFragment(offset=0, m=1, nh=17) / UDP(),
]


@pytest.mark.parametrize("about", ANSWERED, ids=lambda each: each.summary())
def test_one_about_each_of_these(about: Packet) -> None:
    assert packet_too_big(bytes(about), 1400) is not None


def test_about_a_packet_to_many_only_where_an_address_of_ours_says_it() -> None:
    """RFC 4443 §2.4 e.3: the one error that multicast gets."""
    about = bytes(IPv6(src="2001:db8::1", dst="ff0e::1") / UDP())
    assert packet_too_big(about, 1400, GATEWAY6.packed) is not None
