"""Fragments have the ports of their packet's first, if they come after it and do not lie over it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import UDP
from scapy.layers.inet import fragment as fragment_ipv4
from scapy.layers.inet6 import IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, fragment6
from scapy.packet import Raw
from support.scapy_esp import IP, IPv6

from esp.fragment_flows import KEPT_SECONDS, MAX_PACKETS, FragmentFlows, is_later_fragment, read_fragment
from esp.inner import OPAQUE, Flow, parse_inner

if TYPE_CHECKING:
    from collections.abc import Callable


def ipv4_fragments(octets: int = 3000, size: int = 1400, *, port: int = 53, number: int = 7) -> list[bytes]:
    packet = IP(src="10.1.0.1", dst="10.2.0.1", id=number) / UDP(sport=9, dport=port) / Raw(bytes(octets))
    return [bytes(each) for each in fragment_ipv4(packet, size)]


def ipv6_fragments(octets: int = 3000, size: int = 1400, *, port: int = 53, number: int = 7) -> list[bytes]:
    packet = IPv6(src="2001:db8::1", dst="2001:db8::2") / IPv6ExtHdrHopByHop() / IPv6ExtHdrFragment(id=number)
    packet /= UDP(sport=9, dport=port) / Raw(bytes(octets))
    return [bytes(each) for each in fragment6(packet, size)]


def flow_of(packet: bytes) -> Flow:
    inner = parse_inner(packet)
    assert inner is not None
    return inner[1]


def resolved(flows: FragmentFlows, packet: bytes, now: float = 0.0) -> Flow:
    return flows.flow_of(packet, flow_of(packet), now)


BOTH = pytest.mark.parametrize("fragments", [ipv4_fragments, ipv6_fragments])


@BOTH
def test_later_fragments_are_of_the_first_ones_flow(fragments: Callable[..., list[bytes]]) -> None:
    first, *later = fragments()
    assert len(later) >= 2
    flows = FragmentFlows()
    assert resolved(flows, first) == flow_of(first)
    assert flow_of(first)[2] == 9 << 16 | 53
    for each in later:
        assert flow_of(each)[2] == OPAQUE
        assert resolved(flows, each) == flow_of(first)
        assert resolved(flows, each, KEPT_SECONDS) == flow_of(each), "another packet may have the number by then"
    assert [is_later_fragment(each) for each in (first, *later)] == [False, *[True] * len(later)]


@BOTH
def test_before_its_first_a_fragment_is_nobodys(fragments: Callable[..., list[bytes]]) -> None:
    first, later, *_ = fragments()
    flows = FragmentFlows()
    assert resolved(flows, later) == flow_of(later)
    resolved(flows, first)
    assert resolved(flows, later) == flow_of(first)
    other = fragments(number=8)[1]
    assert resolved(flows, other) == flow_of(other)


@BOTH
def test_what_would_lie_over_the_first_is_not_of_it(fragments: Callable[..., list[bytes]]) -> None:
    """RFC 1858, RFC 5722: the overlap is where another port, or other flags, would come in."""
    flows = FragmentFlows()
    resolved(flows, fragments(size=1400)[0])
    over = fragments(size=700)[1]
    assert is_later_fragment(over)
    assert resolved(flows, over) == flow_of(over)


@BOTH
def test_a_number_used_again_is_of_the_newer_packet(fragments: Callable[..., list[bytes]]) -> None:
    flows = FragmentFlows()
    resolved(flows, fragments(port=53)[0])
    resolved(flows, fragments(port=99)[0])
    assert resolved(flows, fragments()[1])[2] & 0xFFFF == 99


def test_a_first_fragment_that_hides_its_ports_leaves_nothing() -> None:
    flows = FragmentFlows()
    first, later, *_ = ipv6_fragments()
    resolved(flows, first)
    packet = IPv6(src="2001:db8::1", dst="2001:db8::2") / IPv6ExtHdrHopByHop()
    cut = bytes(packet / IPv6ExtHdrFragment(id=7, m=1, nh=60) / IPv6ExtHdrDestOpt(nh=17))
    assert flow_of(cut)[2] == OPAQUE
    resolved(flows, cut)
    assert resolved(flows, later) == flow_of(later)


def test_whole_packets_are_no_fragments() -> None:
    whole = [
        bytes(IP(src="10.1.0.1", dst="10.2.0.1", flags="DF") / UDP()),
        bytes(IPv6(src="2001:db8::1", dst="2001:db8::2") / UDP()),
        bytes(IPv6(src="2001:db8::1", dst="2001:db8::2") / IPv6ExtHdrFragment(id=1) / UDP()),
        bytes(IPv6(src="2001:db8::1", dst="2001:db8::2", nh=0)),
    ]
    for packet in whole:
        assert read_fragment(packet) is None
        assert not is_later_fragment(packet)
        assert resolved(FragmentFlows(), packet) == flow_of(packet)


def test_memory_is_bounded_and_the_oldest_goes() -> None:
    flows = FragmentFlows()
    packets = [ipv4_fragments(1500, number=number) for number in range(MAX_PACKETS + 1)]
    for first, *_ in packets:
        resolved(flows, first)
    assert resolved(flows, packets[0][1])[2] == OPAQUE
    assert resolved(flows, packets[1][1])[2] != OPAQUE
    assert resolved(flows, packets[-1][1])[2] != OPAQUE


@given(st.binary(min_size=40, max_size=120), st.sampled_from([4, 6]))
def test_no_octets_do_harm(octets: bytes, version: int) -> None:
    packet = bytes([version << 4 | 5]) + octets[1:]
    inner = parse_inner(packet)
    if inner is not None:
        FragmentFlows().flow_of(packet[: inner[0]], inner[1], 0.0)
        is_later_fragment(packet[: inner[0]])
