"""Checksums, with scapy as the one who knows."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest
from scapy.packet import Packet, Raw
from support.scapy_esp import IP, IPv6

from esp.checksum import complement, corrected, ones_sum

DATA = st.binary(max_size=70)
PORT = st.integers(0, 0xFFFF)
FOUR = ("10.0.0.5", "192.0.2.1"), ("198.51.100.7", "192.0.2.1")
SIX = ("fd00::5", "2001:db8::1"), ("2001:db8:9::7", "2001:db8::1")


def addresses(pair: tuple[str, str]) -> int:
    return ones_sum(b"".join(ip_address(one).packed for one in pair))


def segment(pair: tuple[str, str], upper: Packet) -> bytes:
    """``upper`` with the checksum that scapy gives it between these two."""
    source, destination = pair
    packet = (IPv6 if ":" in source else IP)(src=source, dst=destination) / upper
    octets = bytes(packet)
    return octets[40:] if ":" in source else octets[20:]


def words(octets: bytes) -> int:
    """RFC 1071 §4.1, word by word."""
    total = 0
    for at in range(0, len(octets), 2):
        total += int.from_bytes(octets[at : at + 2].ljust(2, b"\0"))
        total = (total & 0xFFFF) + (total >> 16)
    return total


@given(DATA)
def test_the_sum_is_that_of_rfc_1071(octets: bytes) -> None:
    assert ones_sum(octets) % 0xFFFF == words(octets) % 0xFFFF
    assert ones_sum(octets + complement(ones_sum(octets)).to_bytes(2)) == 0 or len(octets) % 2


UPPER = st.one_of(
    st.builds(lambda s, d, data: (6, TCP(sport=s, dport=d) / Raw(data)), PORT, PORT, DATA),
    st.builds(lambda s, d, data: (17, UDP(sport=s, dport=d) / Raw(data)), PORT, PORT, DATA),
)


@given(upper=UPPER, versions=st.sampled_from([FOUR, SIX]))
def test_what_a_nat_broke_is_mended_and_what_is_right_is_left_alone(
    upper: tuple[int, Packet], versions: tuple[tuple[str, str], tuple[str, str]]
) -> None:
    protocol, layer = upper
    sent, received = versions
    before, after = segment(sent, layer), segment(received, layer)
    assert corrected(before, protocol, addresses(sent)) is before
    mended = corrected(before, protocol, addresses(received))
    assert corrected(mended, protocol, addresses(received)) is mended
    assert mended == after or {mended[16:18], after[16:18]} == {b"\0\0", b"\xff\xff"}


@given(DATA)
def test_icmpv6_has_a_pseudo_header_and_icmp_has_none(data: bytes) -> None:
    sent, received = SIX
    echo = ICMPv6EchoRequest(data=data)
    assert corrected(segment(sent, echo), 58, addresses(received)) == segment(received, echo)
    four = segment(FOUR[0], ICMP() / Raw(data))
    assert corrected(four, 1, addresses(FOUR[1])) is four


@given(DATA)
def test_udp_without_a_checksum_stays_without(data: bytes) -> None:
    datagram = struct.pack("!HHHH", 5, 6, 8 + len(data), 0) + data
    assert corrected(datagram, 17, addresses(FOUR[0])) is datagram


@given(DATA, st.binary(min_size=1, max_size=9))
def test_what_is_behind_a_udp_datagram_is_not_part_of_it(data: bytes, padding: bytes) -> None:
    sent, received = FOUR
    datagram = UDP(sport=5, dport=6) / Raw(data)
    mended = corrected(segment(sent, datagram) + padding, 17, addresses(received))
    assert mended == segment(received, datagram) + padding


@pytest.mark.parametrize(
    ("octets", "protocol"),
    [
        (b"\1" * 7, 17),
        (b"\1" * 19, 6),
        (b"\1" * 3, 58),
        (struct.pack("!HHHH", 5, 6, 7, 9), 17),
        (struct.pack("!HHHH", 5, 6, 9, 9), 17),
        (b"\1" * 40, 132),
        (b"", 6),
    ],
)
def test_what_is_too_short_or_none_of_these_is_left_to_the_host(octets: bytes, protocol: int) -> None:
    assert corrected(octets, protocol, addresses(FOUR[0])) is octets
