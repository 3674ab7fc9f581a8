"""Flows and boxes in C, against those of Python, which scapy vouches for."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from hypothesis import example, given
from hypothesis import strategies as st
from support.scapy_esp import IP, IPOption_NOP, IPv6
from support.selectors import flows, selectors
from support.slow_spd import slow_match
from support.tunnel import ipv4, ipv6

from esp.fragment_flows import is_later_fragment
from esp.inner import MAX_EXTENSIONS, Flow, parse_inner
from esp.native._core import match_box, parse_flow
from esp.policy import Direction, Selector
from esp.spd import Match, SelectorMatcher

EXTENSIONS = [0, 43, 44, 60]
# Those that show ports, those that have something in their place, extension headers, others that are none.
PROTOCOLS = [*EXTENSIONS, 1, 6, 17, 33, 47, 50, 51, 58, 59, 132, 135, 136, 139, 253]
MATCHES = [Match.NO, Match.YES, Match.UNKNOWN]


def same(packet: bytes) -> None:
    expected = parse_inner(packet)
    found = parse_flow(packet)
    assert (None if found is None else found[:2]) == expected


@st.composite
def extension(draw: st.DrawFn, kind: int, follows: int) -> bytes:
    """Well-formed, as a rule: some say that they are longer than the packet."""
    if kind == 44:
        place = draw(st.sampled_from([0, 1, 6, 7, 8, 9, 0xFFF8, 0xFFF9]))
        return struct.pack("!BBHI", follows, 0, place, 7)
    units = draw(st.integers(0, 2))
    said = draw(st.sampled_from([units, units, units, 255]))
    return bytes([follows, said]) + bytes((units + 1) * 8 - 2)


@st.composite
def six(draw: st.DrawFn) -> bytes:
    """IPv6 with a chain of extension headers, often one longer than is followed."""
    kinds = draw(st.lists(st.sampled_from(EXTENSIONS), max_size=MAX_EXTENSIONS + 2))
    octets, protocol = draw(st.binary(max_size=12)), draw(st.sampled_from(PROTOCOLS))
    for kind in reversed(kinds):
        octets, protocol = draw(extension(kind, protocol)) + octets, kind
    return ipv6(octets, protocol=protocol)


@st.composite
def four(draw: st.DrawFn) -> bytes:
    """IPv4 with options, as a fragment or not."""
    header = IP(
        src="10.1.2.3",
        dst="10.2.3.4",
        proto=draw(st.sampled_from(PROTOCOLS)),
        frag=draw(st.sampled_from([0, 0, 1, 0x1FFF])),
        flags=draw(st.sampled_from([0, "MF", "DF"])),
        options=[IPOption_NOP()] * draw(st.integers(0, 40)),
    )
    return bytes(header / draw(st.binary(max_size=12)))


@given(four() | six(), st.integers(0, 30))
def test_flows_are_those_of_python_whole_cut_and_with_more_behind(packet: bytes, cut: int) -> None:
    same(packet)
    same(packet[: len(packet) - cut])
    same(packet + bytes(cut))


@given(four() | six(), st.data())
def test_flows_are_those_of_python_with_an_octet_changed(packet: bytes, data: st.DataObject) -> None:
    wrong = bytearray(packet)
    wrong[data.draw(st.integers(0, len(wrong) - 1))] = data.draw(st.integers(0, 255))
    same(bytes(wrong))


@given(st.binary(max_size=80))
@example(b"")
@example(b"\x40" + bytes(19))
@example(b"\x45\0\0\x13" + bytes(16))
def test_any_octets_do_no_harm(octets: bytes) -> None:
    same(octets)
    for version in (0x45, 0x4F, 0x60):
        same(bytes([version]) + octets)


def test_every_length_of_every_kind() -> None:
    for protocol in PROTOCOLS:
        for size in range(20):
            for packet in (ipv4(bytes(range(size)), protocol=protocol), ipv6(bytes(size), protocol=protocol)):
                for length in range(len(packet) + 1):
                    same(packet[:length])


@given(four() | six())
def test_fragments_are_known_whatever_their_place(packet: bytes) -> None:
    """Later ones are all that the reference engine has to look for; the first has to be seen before them."""
    found = parse_flow(packet)
    if found is not None and is_later_fragment(packet):
        assert found[2]


def test_an_atomic_fragment_is_one() -> None:
    atomic = parse_flow(bytes(IPv6(nh=44) / (struct.pack("!BBHI", 17, 0, 0, 7) + bytes(8))))
    whole = parse_flow(ipv4(bytes(8), protocol=17))
    assert atomic is not None
    assert whole is not None
    assert (atomic[2], whole[2]) == (True, False)


def boxed(selector: Selector, flow: Flow, direction: Direction = Direction.OUTBOUND) -> Match:
    matcher = SelectorMatcher(selector, direction)
    return MATCHES[match_box(selector.version, matcher.intervals, matcher.names_opaque, flow)]


@given(selectors(), flows())
def test_boxes_match_as_the_slow_ones(selector: Selector, flow: Flow) -> None:
    for direction in Direction:
        assert boxed(selector, flow, direction) is slow_match(selector, flow, direction)


@given(st.integers(0, 2**128 - 1), st.integers(0, 2**128 - 1), st.integers(0, 2**128 - 1))
@example(2**64 - 1, 2**64, 2**64 - 1)
@example(2**64, 2**64 + 2**63, 2**64 - 1)
@example(0, 2**128 - 1, 2**128 - 1)
@example(2**127, 2**128 - 1, 2**127 - 1)
def test_intervals_of_ipv6_cross_the_halves_of_an_address(first: int, last: int, at: int) -> None:
    first, last = sorted((first, last))
    anything = (-1, 255), (-1, 65_535), (-1, 65_535)
    everywhere = (0, 2**128 - 1)
    flow = (17, at.to_bytes(16) + ip_address("::").packed, 0)
    found = match_box(6, ((first, last), everywhere, *anything), False, flow)
    assert found == (1 if first <= at <= last else 0)
