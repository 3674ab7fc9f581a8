"""Flows of inner packets, with scapy as the one who knows."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.scapy_esp import IP, IPOption_NOP, IPv6
from support.tunnel import ipv4, ipv6, ports

from esp.inner import MAX_EXTENSIONS, OPAQUE, PROTOCOLS_WITH_PORTS, parse_inner

PORTS = st.integers(0, 0xFFFF)
WITH_PORTS = st.sampled_from(sorted(PROTOCOLS_WITH_PORTS))
NO_PORTS = st.sampled_from([2, 4, 41, 47, 50, 59, 253])
OCTETS = st.binary(max_size=60)
# Extension headers by next header (RFC 8200 §4).
HOP, ROUTING, FRAGMENT, OPTIONS = 0, 43, 44, 60
# What an IPv6 host reads past as well, and a selector does not (RFC 4301 §4.4.1.1): AH, mobility, HIP, shim6.
AH, MOBILITY, HIP, SHIM6 = 51, 135, 139, 140


def extension(kind: int, follows: int, units: int) -> bytes:
    if kind == FRAGMENT:
        return struct.pack("!BBHI", follows, 0, 0, 7)
    return bytes([follows, units]) + bytes((units + 1) * 8 - 2)


def chain(kinds: list[tuple[int, int]], protocol: int) -> tuple[int, bytes]:
    """First next header, and the extension headers up to ``protocol``."""
    octets = b""
    for kind, units in reversed(kinds):
        octets, protocol = extension(kind, protocol, units) + octets, kind
    return protocol, octets


@given(WITH_PORTS, PORTS, PORTS, OCTETS, st.integers(0, 10))
def test_ipv4_ports_behind_any_options(protocol: int, source: int, destination: int, rest: bytes, words: int) -> None:
    payload = ports(source, destination, 4) + rest
    options = [IPOption_NOP()] * (words * 4)
    packet = bytes(IP(src="10.1.2.3", dst="10.2.3.4", proto=protocol, options=options) / payload)
    addresses = IPv4Address("10.1.2.3").packed + IPv4Address("10.2.3.4").packed
    assert parse_inner(packet) == (len(packet), (protocol, addresses, source << 16 | destination))


@given(NO_PORTS, OCTETS)
def test_protocols_without_ports(protocol: int, payload: bytes) -> None:
    four, six = ipv4(payload, protocol=protocol), ipv6(payload, protocol=protocol)
    assert parse_inner(four) == (len(four), (protocol, four[12:20], OPAQUE))
    assert parse_inner(six) == (len(six), (protocol, six[8:40], OPAQUE))


@given(st.integers(0, 255), st.integers(0, 255), OCTETS, st.integers(0, 0x1FFF))
def test_type_and_code_of_icmp_stand_in_both_places(kind: int, code: int, rest: bytes, at: int) -> None:
    """The same whichever way one looks; a fragment but the first does not show them."""
    ports = (kind << 8 | code) * 0x1_0001
    six, four = ipv6(bytes([kind, code]) + rest, protocol=58), ipv4(bytes([kind, code]) + rest, protocol=1)
    assert parse_inner(six) == (len(six), (58, six[8:40], ports))
    assert parse_inner(four) == (len(four), (1, four[12:20], ports))
    later = bytes(IP(src="10.1.2.3", dst="10.2.3.4", proto=1, frag=at) / (bytes([kind, code]) + rest))
    parsed = parse_inner(later)
    assert parsed is not None
    assert parsed[1][2] == (OPAQUE if at else ports)
    assert parse_inner(ipv4(bytes([kind]), protocol=1)) == (21, (1, four[12:20], OPAQUE))


@given(st.integers(0, 255), OCTETS)
def test_the_mobility_header_shows_its_type(kind: int, rest: bytes) -> None:
    """RFC 6275 §6.1.1: payload protocol, length, type."""
    packet = ipv6(bytes([59, 1, kind]) + rest, protocol=MOBILITY)
    assert parse_inner(packet) == (len(packet), (MOBILITY, packet[8:40], (kind << 8) * 0x1_0001))
    cut = ipv6(bytes([59, 1]), protocol=MOBILITY)
    assert parse_inner(cut) == (len(cut), (MOBILITY, cut[8:40], OPAQUE))


@given(WITH_PORTS, st.integers(0, 0x1FFF), st.booleans(), OCTETS)
def test_only_the_first_ipv4_fragment_shows_ports(protocol: int, offset: int, more: bool, rest: bytes) -> None:
    payload = ports(5, 6, 4) + rest
    packet = bytes(IP(src="10.1.2.3", dst="10.2.3.4", proto=protocol, frag=offset, flags="MF" if more else 0) / payload)
    parsed = parse_inner(packet)
    assert parsed is not None
    assert parsed[1][2] == (OPAQUE if offset else 5 << 16 | 6)


@given(WITH_PORTS, PORTS, PORTS, OCTETS)
def test_ipv6_ports(protocol: int, source: int, destination: int, rest: bytes) -> None:
    packet = bytes(IPv6(src="2001:db8::1", dst="2001:db8::2", nh=protocol) / (ports(source, destination, 4) + rest))
    addresses = IPv6Address("2001:db8::1").packed + IPv6Address("2001:db8::2").packed
    assert parse_inner(packet) == (len(packet), (protocol, addresses, source << 16 | destination))


KINDS = st.sampled_from((HOP, ROUTING, FRAGMENT, OPTIONS))


@given(st.lists(st.tuples(KINDS, st.integers(0, 3)), max_size=MAX_EXTENSIONS), WITH_PORTS)
def test_ipv6_extension_headers_are_followed(kinds: list[tuple[int, int]], protocol: int) -> None:
    first, headers = chain(kinds, protocol)
    packet = ipv6(headers + ports(7, 8), protocol=first)
    parsed = parse_inner(packet)
    assert parsed == (len(packet), (protocol, packet[8:40], 7 << 16 | 8))


@pytest.mark.parametrize("kind", [AH, MOBILITY, HIP, SHIM6])
def test_what_is_wrapped_does_not_pass_for_itself(kind: int) -> None:
    """UDP to port 8 behind AH is AH, in IPv6 as in IPv4 (RFC 4301 §4.4.1.1)."""
    wrapped = bytes([17, 2]) + bytes(14) + ports(7, 8)
    for packet in (ipv6(wrapped, protocol=kind), ipv4(wrapped, protocol=kind)):
        parsed = parse_inner(packet)
        assert parsed is not None
        assert (parsed[1][0], parsed[1][2]) == (kind, 0 if kind == MOBILITY else OPAQUE)


def test_a_longer_chain_is_opaque() -> None:
    first, headers = chain([(OPTIONS, 0)] * (MAX_EXTENSIONS + 1), 17)
    packet = ipv6(headers + ports(7, 8), protocol=first)
    assert parse_inner(packet) == (len(packet), (OPAQUE, packet[8:40], OPAQUE))


@given(st.lists(st.tuples(KINDS, st.integers(0, 3)), min_size=1, max_size=4), st.data())
def test_ipv6_headers_that_end_too_early_are_opaque(kinds: list[tuple[int, int]], data: st.DataObject) -> None:
    first, headers = chain(kinds, 17)
    cut = (headers + ports(7, 8))[: data.draw(st.integers(0, len(headers) + 3))]
    parsed = parse_inner(ipv6(cut, protocol=first))
    assert parsed is not None
    assert parsed[1][2] == OPAQUE


@pytest.mark.parametrize(
    ("named", "protocol"), [(17, 17), (58, 58), (AH, AH), (OPTIONS, OPAQUE), (FRAGMENT, OPAQUE), (HOP, OPAQUE)]
)
def test_a_later_ipv6_fragment_shows_its_protocol_only_if_it_names_one(named: int, protocol: int) -> None:
    packet = ipv6(struct.pack("!BBHI", named, 0, 185 << 3, 7) + ports(7, 8), protocol=FRAGMENT)
    assert parse_inner(packet) == (len(packet), (protocol, packet[8:40], OPAQUE))


@given(st.booleans(), WITH_PORTS, st.binary(max_size=3))
def test_a_transport_header_without_ports_in_it(six: bool, protocol: int, stump: bytes) -> None:
    packet = (ipv6 if six else ipv4)(stump, protocol=protocol)
    # What lies behind the packet's own end is not its ports.
    parsed = parse_inner(packet + bytes(8))
    assert parsed is not None
    assert parsed[0] == len(packet)
    assert parsed[1][2] == OPAQUE


@given(st.booleans(), OCTETS, OCTETS)
def test_octets_behind_the_packet_change_nothing(six: bool, payload: bytes, behind: bytes) -> None:
    packet = (ipv6 if six else ipv4)(payload, protocol=17)
    assert parse_inner(packet + behind) == parse_inner(packet)


@given(st.booleans(), OCTETS)
@settings(max_examples=20)
def test_every_truncation_is_refused(six: bool, payload: bytes) -> None:
    packet = (ipv6 if six else ipv4)(payload, protocol=17)
    assert [parse_inner(packet[:octets]) for octets in range(len(packet))] == [None] * len(packet)


@pytest.mark.parametrize("first", [0x44, 0x40, 0x4F])
def test_an_ipv4_header_length_that_cannot_be(first: int) -> None:
    packet = bytes([first]) + ipv4(bytes(12), protocol=17)[1:]
    assert parse_inner(packet) is None


def test_an_ipv4_total_length_within_its_header() -> None:
    packet = ipv4(bytes(12))
    assert parse_inner(packet[:2] + b"\x00\x13" + packet[4:]) is None


def slow_length(octets: bytes) -> int | None:
    """Total length by the letter of RFC 791 §3.1 and RFC 8200 §3."""
    if len(octets) >= 20 and octets[0] >> 4 == 4:
        total = int.from_bytes(octets[2:4])
        return total if 20 <= (octets[0] & 15) * 4 <= total <= len(octets) else None
    if len(octets) >= 40 and octets[0] >> 4 == 6:
        total = 40 + int.from_bytes(octets[4:6])
        return total if total <= len(octets) else None
    return None


# The version and the length are drawn apart: of plain random octets hardly any would pass for a packet.
@given(st.sampled_from([0x44, 0x45, 0x46, 0x4F, 0x60, 0x6F, 0x00, 0x50]), st.integers(0, 130), st.binary(max_size=120))
def test_any_octets_get_an_answer(first: int, length: int, rest: bytes) -> None:
    octets = bytes([first, 0]) + length.to_bytes(2) + length.to_bytes(2) + rest
    parsed = parse_inner(octets)
    assert (parsed and parsed[0]) == slow_length(octets)
    if parsed is not None:
        _, (protocol, addresses, flow_ports) = parsed
        assert len(addresses) == (8 if first >> 4 == 4 else 32)
        assert OPAQUE <= protocol <= 255
        assert OPAQUE <= flow_ports <= 0xFFFFFFFF
