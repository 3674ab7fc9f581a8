"""Flow labels: the same for a flow, spread over the flows, and nobody's to guess."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from support.tunnel import ipv4, ipv6, ports

from esp.flow_label import MAX_FLOWS, FlowLabels

KEY = bytes(range(16))


def udp(source: int, payload: bytes = b"") -> bytes:
    return ipv4(ports(source, 53) + payload, protocol=17)


@given(source=st.integers(0, 65_535), payload=st.binary(max_size=20))
def test_all_packets_of_a_flow_have_one_label_of_20_bits(source: int, payload: bytes) -> None:
    labels = FlowLabels(KEY)
    label = labels.label_of(udp(source))
    assert 0 < label < 1 << 20
    assert labels.label_of(udp(source, payload)) == label == FlowLabels(KEY).label_of(udp(source, payload))


def test_flows_are_spread_whatever_tells_them_apart() -> None:
    labels = FlowLabels(KEY)
    packets = [udp(source) for source in range(1000)]
    packets += [ipv6(destination=f"2001:db8:2::{host:x}") for host in range(1000)]
    packets += [ipv4(protocol=protocol) for protocol in (1, 47, 50)]
    found = Counter(labels.label_of(packet) for packet in packets)
    assert len(found) > 1950, "a few of two thousand meet among a million"
    shares = Counter(label % 4 for label in found)
    assert min(shares.values()) > 400, "four paths have a fair share each"


def test_another_key_has_other_labels() -> None:
    assert FlowLabels(KEY).label_of(udp(1)) != FlowLabels(bytes(16)).label_of(udp(1))


def test_what_is_no_packet_has_a_label_too() -> None:
    assert 0 < FlowLabels(KEY).label_of(b"") < 1 << 20


def test_many_flows_are_forgotten_and_found_again() -> None:
    labels = FlowLabels(KEY)
    first = labels.label_of(udp(0))
    for source in range(1, MAX_FLOWS + 10):
        labels.label_of(udp(source))
    assert labels.label_of(udp(0)) == first
