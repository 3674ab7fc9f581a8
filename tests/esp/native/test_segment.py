"""Cutting in C: each segment is to the octet what scapy builds, and what the kernel hands out is cut right."""

from __future__ import annotations

import struct
from collections import Counter
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting
from scapy.packet import Packet, Raw
from support.offload import FIELD, PLAIN, TCP_HEADERS, UDP_HEADERS, WITH_OPTIONS, Large, is_right, larges
from support.packets import checksum
from support.scapy_esp import IP, IPv6
from support.vnet import (
    CSUM,
    ECN,
    NEEDS_CSUM,
    OCTETS,
    TCPV4,
    TCPV6,
    TSO4,
    TSO6,
    UDP_L4,
    USO4,
    USO6,
    Vnet,
    send_by_tcp,
    send_by_udp,
    two_ends,
)

from esp.native._core import cut
from esp.segment import segments

ADDRESSES = {4: ("10.0.0.1", "192.0.2.9"), 6: ("fd00::1", "2001:db8::9")}


def ip(version: int) -> Packet:
    source, destination = ADDRESSES[version]
    return (IP if version == 4 else IPv6)(src=source, dst=destination)


def tcp(version: int = 4, **fields: object) -> Packet:
    return ip(version) / TCP(sport=40_001, dport=40_002, **{"flags": "A", **fields})


def udp(version: int = 4) -> Packet:
    return ip(version) / UDP(sport=40_001, dport=40_002)


@given(larges(st.one_of(PLAIN, WITH_OPTIONS)))
def test_segments_are_those_that_scapy_builds(large: Large) -> None:
    assert cut(large.header, large.octets) == large.segments()


@given(larges(st.one_of(PLAIN, WITH_OPTIONS)))
def test_the_portable_engine_cuts_the_same(large: Large) -> None:
    ours, theirs = cut(large.header, large.octets) or [], segments(large.header, large.octets)
    field = large.transport + FIELD[large.protocol]
    assert [one_zero(segment, field) for segment in ours] == [one_zero(segment, field) for segment in theirs]


def one_zero(packet: bytes, field: int) -> bytes:
    """Zero has two forms in ones' complement, and in the headers of IPv4 and TCP either is right."""
    octets = bytearray(packet)
    for at in (10, field) if octets[0] >> 4 == 4 else (field,):
        if octets[at : at + 2] == b"\xff\xff":
            octets[at : at + 2] = bytes(2)
    return bytes(octets)


@given(larges())
def test_without_needs_csum_the_field_is_not_read(large: Large) -> None:
    header = Vnet.parse(large.header)._replace(flags=0, csum_start=0, csum_offset=0)
    assert cut(header.build(), large.octets) == large.segments()


@pytest.mark.parametrize(("version", "octets"), [(4, 65_535), (6, 40 + 65_535)])
def test_the_largest_that_there_is(version: int, octets: int) -> None:
    headers = tcp(version)
    large = Large(headers, bytes(range(256)) * 255 + bytes(octets - 255 * 256 - len(headers)), 1_368)
    assert len(large.octets) == octets
    assert cut(large.header, large.octets) == large.segments()


def test_the_end_of_a_source_route_stays_in_the_checksum() -> None:
    """The kernel has put the last address into the sum, which is not the one that the packet shows on its way."""
    routed = IPv6(src="fd00::1", dst="2001:db8::5") / IPv6ExtHdrRouting(addresses=["2001:db8::9"], segleft=1)
    large = Large(routed / tcp(6)[TCP], bytes(range(200)), 60)
    found = cut(large.header, large.octets)
    assert found == large.segments()
    final = bytes.fromhex("20010db8000000000000000000000009")
    for segment in found:
        covered = segment[8:24] + final + struct.pack("!II", len(segment) - 64, 6) + segment[64:]
        assert checksum(covered) == 0


@given(below=PLAIN, upper=st.one_of(TCP_HEADERS, UDP_HEADERS), payload=st.binary(max_size=90))
def test_a_whole_packet_gets_its_checksum_alone(below: Packet, upper: Packet, payload: bytes) -> None:
    large = Large(below / upper, payload, 1_400)
    header = Vnet.parse(large.header)
    whole = cut(header._replace(gso_type=0, gso_size=0).build(), large.octets)
    assert whole is not None
    assert same_but_for_zero(whole, bytes(below / upper / Raw(payload)), header.csum_start + header.csum_offset)
    assert cut(Vnet().build(), large.octets) == [large.octets]
    if payload:  # too little to be cut, as the kernel sees it too
        assert cut(large.header, large.octets) == whole


def same_but_for_zero(whole: list[bytes], expected: bytes, field: int) -> bool:
    """The kernel too writes 0xFFFF for 0 where it does not look what the protocol is."""
    (packet,) = whole
    return packet == expected or (
        packet[field : field + 2] == b"\xff\xff"
        and packet == expected[:field] + b"\xff\xff" + expected[field + 2 :]
        and expected[field : field + 2] == b"\0\0"
    )


@pytest.mark.parametrize("version", [4, 6])
def test_udp_never_sends_zero_for_a_checksum_that_is_zero(version: int) -> None:
    datagram = bytes(udp(version) / Raw(bytes(2)))
    # What the checksum is with zeros makes it zero when it is the payload.
    payload = datagram[-4:-2]
    large = Large(udp(version), payload * 3, 2)
    fields = [segment[-4:-2] for segment in cut(large.header, large.octets) or []]
    assert fields == [b"\xff\xff"] * 3
    whole = Large(udp(version), payload, 1_400)
    assert cut(whole.header, whole.octets)[0][-4:-2] == b"\xff\xff"


def test_flags_stand_where_they_belong() -> None:
    large = Large(tcp(flags="FPAEC", seq=2**32 - 5), b"0123456789", 4)
    found = [IP(segment)[TCP] for segment in cut(large.header, large.octets) or []]
    assert [str(segment.flags) for segment in found] == ["AEC", "AE", "FPAE"]
    assert [segment.seq for segment in found] == [2**32 - 5, 2**32 - 1, 3]


def changed(large: Large, place: int, value: bytes) -> bytes:
    return large.octets[:place] + value + large.octets[place + len(value) :]


# What would be a data offset, were the header four octets shorter, is one.
FOUR = Large(tcp(ack=0x50 << 24), bytes(100), 30)
SIX, DATAGRAM = Large(tcp(6), bytes(100), 30), Large(udp(), bytes(100), 30)
EXTENDED = Large(ip(6) / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / udp(6)[UDP], bytes(100), 30)
FOUR_HEADER, SIX_HEADER, DATAGRAM_HEADER = (Vnet.parse(large.header) for large in (FOUR, SIX, DATAGRAM))
LONG_CHAIN = IPv6(src="fd00::1", dst="fd00::2", nh=60) / Raw(b"\x3c\0" + bytes(6)) / Raw((b"\x3c\0" + bytes(6)) * 8)


@pytest.mark.parametrize(
    ("header", "packet"),
    [
        (FOUR_HEADER._replace(gso_size=0), FOUR.octets),
        (FOUR_HEADER._replace(gso_type=TCPV6), FOUR.octets),
        (FOUR_HEADER._replace(gso_type=UDP_L4), FOUR.octets),
        (FOUR_HEADER._replace(gso_type=3), FOUR.octets),
        (FOUR_HEADER._replace(gso_type=ECN), FOUR.octets),
        (FOUR_HEADER._replace(csum_start=24), FOUR.octets),
        (FOUR_HEADER._replace(csum_offset=6), FOUR.octets),
        (FOUR_HEADER, FOUR.octets[:-1]),
        (FOUR_HEADER, FOUR.octets + b"\0"),
        (FOUR_HEADER, b""),
        (FOUR_HEADER._replace(flags=0), changed(FOUR, 0, b"\x44")),
        (FOUR_HEADER, changed(FOUR, 0, b"\x55")),
        (FOUR_HEADER, changed(FOUR, 6, b"\x20\0")),
        (FOUR_HEADER, changed(FOUR, 6, b"\0\1")),
        (FOUR_HEADER, changed(FOUR, 9, b"\x11")),
        (FOUR_HEADER, changed(FOUR, 32, b"\x40")),
        (FOUR_HEADER, bytes(tcp(flags="S"))),
        (FOUR_HEADER, changed(FOUR, 2, b"\0\x28")[:40]),
        (FOUR_HEADER, changed(FOUR, 2, b"\0\x20")[:32]),
        (SIX_HEADER, SIX.octets[:-1]),
        (SIX_HEADER, SIX.octets[:39]),
        (SIX_HEADER._replace(gso_type=TCPV4), SIX.octets),
        (SIX_HEADER, changed(SIX, 6, b"\x2c")),
        (SIX_HEADER, changed(SIX, 4, b"\0\x01\x3c")[:41]),
        (SIX_HEADER, bytes(IPv6(src="fd00::1", dst="fd00::2") / IPv6ExtHdrFragment() / tcp(6)[TCP] / Raw(bytes(99)))),
        (SIX_HEADER, bytes(LONG_CHAIN)),
        (DATAGRAM_HEADER, changed(DATAGRAM, 24, b"\0\x6b")),
        (DATAGRAM_HEADER, changed(DATAGRAM, 24, b"\0\x6d")),
        (DATAGRAM_HEADER, bytes(udp())),
        (DATAGRAM_HEADER._replace(gso_type=TCPV4), DATAGRAM.octets),
        (Vnet(), b""),
        (Vnet(NEEDS_CSUM, csum_start=20, csum_offset=0), FOUR.octets[:21]),
        (Vnet(NEEDS_CSUM, csum_start=0xFFFF, csum_offset=0xFFFF), FOUR.octets),
        (Vnet(NEEDS_CSUM, csum_start=20, csum_offset=len(FOUR.octets) - 21), FOUR.octets),
    ],
)
def test_what_makes_no_sense_is_refused(header: Vnet, packet: bytes) -> None:
    assert cut(header.build(), packet) is None


@given(header=st.binary(min_size=OCTETS, max_size=OCTETS), packet=st.binary(max_size=200))
def test_any_octets_are_cut_or_refused(header: bytes, packet: bytes) -> None:
    found = cut(header, packet)
    assert found is None or sum(map(len, found)) >= len(packet)


@given(large=larges(st.one_of(PLAIN, WITH_OPTIONS)), data=st.data())
def test_damaged_ones_are_cut_or_refused(large: Large, data: st.DataObject) -> None:
    damaged = bytearray(large.header + large.octets[: data.draw(st.integers(1, len(large.octets)))])
    place = data.draw(st.integers(0, min(len(damaged) - 1, OCTETS + 80)))
    damaged[place] = data.draw(st.integers(0, 255))
    found = cut(damaged[:OCTETS], damaged[OCTETS:])
    assert found is None or sum(map(len, found)) >= len(damaged) - OCTETS


def test_every_truncation_is_refused() -> None:
    for large in (FOUR, SIX, DATAGRAM, EXTENDED):
        assert all(cut(large.header, large.octets[:length]) is None for length in range(len(large.octets)))


class Cut:
    """What is read of a device, cut, each segment looked at, and passed on one by one."""

    def __init__(self) -> None:
        self.reads: Counter[int] = Counter()  # by gso_type
        self.segments: list[bytes] = []

    def __call__(self, batch: list[bytes]) -> list[bytes]:
        found: list[bytes] = []
        for read in batch:
            pieces = cut(read[:OCTETS], read[OCTETS:])
            assert pieces is not None, read[:100].hex()
            self.reads[Vnet.parse(read[:OCTETS]).gso_type & ~ECN if len(pieces) > 1 else 0] += 1
            found += pieces
        self.segments += found
        return [Vnet().build() + segment for segment in found]


@pytest.mark.root
@pytest.mark.parametrize(("version", "gso_type"), [(4, TCPV4), (6, TCPV6)])
def test_what_the_kernels_tcp_sends_arrives_cut(version: int, gso_type: int) -> None:
    sent = bytes(range(256)) * 4_000
    passing = Cut()
    with two_ends(CSUM | TSO4 | TSO6) as ends:
        assert send_by_tcp(ends, version, sent, passing) == sent
    assert passing.reads[gso_type]
    assert all(map(is_right, passing.segments[:: max(1, len(passing.segments) // 200)]))


@pytest.mark.root
@pytest.mark.parametrize("version", [4, 6])
def test_what_the_kernel_sends_of_udp_at_once_arrives_cut(version: int) -> None:
    sent = [bytes([number]) * 1_000 for number in range(20)] + [b"last"]
    passing = Cut()
    with ExitStack() as stack:
        try:
            ends = stack.enter_context(two_ends(CSUM | TSO4 | TSO6 | USO4 | USO6))
        except OSError as error:
            # TUN_F_USO4 and TUN_F_USO6 came with Linux 6.2, and Debian 12 has 6.1: there is nothing to cut there.
            pytest.skip(f"this kernel hands out no UDP to be cut: {error}")  # TUN takes USO from Linux 6.2 on
        assert send_by_udp(ends, version, [b"".join(sent)], len(sent), passing, segment=1_000) == sent
    assert passing.reads[UDP_L4] == 1
    assert all(map(is_right, passing.segments))
