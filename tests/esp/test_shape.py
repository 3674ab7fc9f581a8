"""Packets of one shape are treated alike: whatever decides over a packet is the same in all of a run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.packet import Raw

from esp.inner import parse_inner
from esp.shape import NO_SHAPE, runs, shape_of
from esp.tunnel import traffic_class_of


def built(six: bool, tcp: bool, port: int, flags: str, tos: int, fragment: int, data: bytes, sequence: int) -> bytes:
    upper = TCP(sport=port, dport=2, flags=flags, seq=sequence) if tcp else UDP(sport=port, dport=2)
    if six:
        return bytes(IPv6(src="fd00::1", dst="fd00::2", tc=tos) / upper / Raw(data))
    return bytes(IP(src="10.0.0.1", dst="10.0.0.2", tos=tos, frag=fragment, id=sequence & 0xFFFF) / upper / Raw(data))


PACKETS = st.builds(
    built,
    six=st.booleans(),
    tcp=st.booleans(),
    port=st.sampled_from([1, 1, 1, 3]),
    flags=st.sampled_from(["A", "A", "PA", "S", "FA"]),
    tos=st.sampled_from([0, 0, 0, 2]),
    fragment=st.sampled_from([0, 0, 0, 1]),
    data=st.sampled_from([bytes(30), b"\x02" * 30, bytes(31)]),
    sequence=st.integers(0, 2**32 - 1),
)
# Some that are no packets at all, and some whose length is not theirs.
ANYTHING = PACKETS | st.binary(max_size=60) | st.builds(lambda packet: packet + b"\0", PACKETS)


def is_syn(packet: bytes) -> bool:
    at = 20 if packet[0] >> 4 == 4 else 40
    return packet[9 if at == 20 else 6] == 6 and bool(packet[at + 13] & 2)


@given(st.lists(ANYTHING, max_size=30))
def test_a_run_has_one_length_flow_and_traffic_class_and_no_syn(packets: list[bytes]) -> None:
    found = list(runs(packets))
    assert [packet for run in found for packet in run] == packets
    assert all(found)
    for first, *others in found:
        for packet in others:
            assert len(packet) == len(first)
            assert parse_inner(packet) == parse_inner(first)
            assert traffic_class_of(packet) == traffic_class_of(first)
            assert packet[6:8] == first[6:8], "fragment bits, or half of what IPv6 has there"
            assert not is_syn(packet)
            assert not is_syn(first)


@pytest.mark.parametrize("six", [False, True])
@pytest.mark.parametrize("tcp", [False, True])
def test_a_burst_of_one_flow_is_one_run(six: bool, tcp: bool) -> None:
    burst = [built(six, tcp, 1, "A", 2, 0, bytes(100), number * 100) for number in range(10)]
    last = built(six, tcp, 1, "PA", 2, 0, bytes(60), 1000)
    assert list(runs([*burst, last])) == [burst, [last]]
    assert list(runs([])) == []


def test_nothing_is_like_a_packet_that_has_to_be_looked_at() -> None:
    plain = built(False, True, 1, "A", 0, 0, bytes(30), 0)
    assert shape_of(plain) is not None
    options = bytes(IP(src="10.0.0.1", dst="10.0.0.2", options=[b"\x94\x04\0\0"]) / TCP() / Raw(bytes(30)))
    extension = bytes(IPv6(src="fd00::1", dst="fd00::2") / IPv6ExtHdrDestOpt() / TCP(flags="A"))
    echo = bytes(IP(src="10.0.0.1", dst="10.0.0.2", proto=1) / Raw(bytes(30)))
    syn, fragment = built(True, True, 1, "S", 0, 0, b"", 0), built(False, False, 1, "", 0, 3, bytes(30), 0)
    for packet in (options, extension, echo, syn, fragment, b"", plain[:30], b"\x45" * 24):
        assert shape_of(packet) is None, packet.hex()
    octets, mask, value = NO_SHAPE
    assert int.from_bytes(plain[:octets]) & mask != value
