"""Putting together in C: what is written is, cut again, what came; and the kernel takes it."""

from __future__ import annotations

from collections import defaultdict
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest
from scapy.packet import Packet, Raw
from support.namespaces import run
from support.offload import Large, larges
from support.packets import checksum, fragments, parse
from support.scapy_esp import IP, IPOption_NOP, IPv6
from support.vnet import (
    CSUM,
    ECN,
    NEEDS_CSUM,
    NONE,
    OCTETS,
    TCPV4,
    TCPV6,
    TSO4,
    TSO6,
    UDP_L4,
    Vnet,
    send_by_tcp,
    send_by_udp,
    two_ends,
)

from esp.native._core import Coalescer, cut

ALONE = Vnet().build()
ADDRESSES = {4: ("10.0.0.1", "192.0.2.9"), 6: ("fd00::1", "2001:db8::9")}


def ip(version: int, number: int = 0, **fields: object) -> Packet:
    """A header between the same two; ``number`` is what identifications count up from 1."""
    source, destination = ADDRESSES[version]
    if version == 6:
        return IPv6(**{"src": source, "dst": destination, **fields})
    return IP(**{"src": source, "dst": destination, "id": 1 + number, **fields})


def stream(version: int, count: int, octets: int = 4, **fields: object) -> list[bytes]:
    """Segments of TCP that follow on each other."""
    return [
        bytes(ip(version, at) / tcp(**{"seq": at * octets, **fields}) / Raw(bytes([at]) * octets))
        for at in range(count)
    ]


def datagrams(version: int, sizes: list[int], **fields: object) -> list[bytes]:
    """Of one socket, one by one."""
    return [bytes(ip(version, at) / udp(**fields) / Raw(bytes([at]) * size)) for at, size in enumerate(sizes)]


def tcp(**fields: object) -> Packet:
    return TCP(**{"sport": 40_001, "dport": 40_002, "flags": "A", **fields})


def udp(**fields: object) -> Packet:
    return UDP(**{"sport": 40_001, "dport": 40_002, **fields})


def written(packets: list[bytes], *, tcp: bool = True, udp: bool = True) -> list[tuple[Vnet, bytes, int]]:
    """What is written of them, all in one batch."""
    coalescer = Coalescer(tcp=tcp, udp=udp)
    for packet in packets:
        coalescer.add(packet)
    coalescer.flush()
    return [(Vnet.parse(header), packet, count) for header, packet, count in coalescer.written]


def cut_again(writes: list[tuple[Vnet, bytes, int]]) -> list[bytes]:
    """As the kernel would have to, were it to send them on."""
    found: list[bytes] = []
    for header, packet, count in writes:
        segments = cut(header.build(), packet)
        assert segments is not None
        assert len(segments) == count
        found += segments
    return found


@given(larges())
def test_what_has_been_cut_becomes_whole_and_is_cut_the_same(large: Large) -> None:
    segments = large.segments()
    ((header, packet, count),) = written(segments)
    assert packet == large.octets
    given_up = Vnet.parse(large.header)
    assert header == given_up._replace(hdr_len=len(packet) - len(large.payload))
    assert count == len(segments)
    assert cut_again([(header, packet, count)]) == segments


@given(larges(), st.data())
def test_any_part_of_a_packet_is_written_as_one(large: Large, data: st.DataObject) -> None:
    segments = large.segments()
    first = data.draw(st.integers(0, len(segments) - 1))
    part = segments[first : data.draw(st.integers(first + 1, len(segments)))]
    writes = written(part)
    assert len(writes) == 1
    assert cut_again(writes) == part


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("upper", [tcp(flags="A"), tcp(flags="PA"), udp()], ids=["tcp", "psh", "udp"])
def test_one_alone_has_been_verified_for_the_kernel(version: int, upper: Packet) -> None:
    packet = bytes(ip(version) / upper / Raw(b"data"))
    ((header, octets, count),) = written([packet])
    transport = 20 if version == 4 else 40
    assert header == Vnet(NEEDS_CSUM, NONE, 0, 0, transport, 16 if TCP in upper else 6)
    assert count == 1
    assert octets != packet
    assert cut(header.build(), octets) == [packet]


# What may not be held, or has nothing that could be put together; all of it of the flow that FLOW is.
FLOW = stream(4, 2)
UNMERGED = {
    "pure acknowledgement": ip(4) / tcp(),
    "syn": ip(4) / tcp(flags="S") / Raw(b"abcd"),
    "syn-ack": ip(4) / tcp(flags="SA", seq=8) / Raw(b"abcd"),
    "rst": ip(4) / tcp(flags="RA", seq=8) / Raw(b"abcd"),
    "urgent": ip(4) / tcp(flags="UA", seq=8) / Raw(b"abcd"),
    "no acknowledgement": ip(4) / tcp(flags="P", seq=8) / Raw(b"abcd"),
    "ipv4 options": ip(4, options=[IPOption_NOP()] * 4) / tcp(seq=8) / Raw(b"abcd"),
    "first fragment": ip(4, flags="MF") / tcp(seq=8) / Raw(b"abcd"),
    "later fragment": ip(4, frag=5) / tcp(seq=8) / Raw(b"abcd"),
    "reserved flag": ip(4, flags="evil") / tcp(seq=8) / Raw(b"abcd"),
    "header checksum": ip(4, chksum=5) / tcp(seq=8) / Raw(b"abcd"),
    "tcp checksum": ip(4) / tcp(seq=8, chksum=5) / Raw(b"abcd"),
    "data offset too small": ip(4) / tcp(seq=8, dataofs=4) / Raw(b"abcd"),
    "data offset too large": ip(4) / tcp(seq=8, dataofs=15) / Raw(b"abcd"),
    "length too small": ip(4, len=43) / tcp(seq=8) / Raw(b"abcd"),
    "length too large": ip(4, len=45) / tcp(seq=8) / Raw(b"abcd"),
}


@pytest.mark.parametrize("packet", [bytes(each) for each in UNMERGED.values()], ids=list(UNMERGED))
def test_what_cannot_be_put_together_goes_as_it_is_behind_what_waits(packet: bytes) -> None:
    writes = written([*FLOW, packet])
    assert [count for _, _, count in writes] == [2, 1]
    assert cut_again(writes[:1]) == FLOW
    assert writes[1] == (Vnet(), packet, 1)


NOT_DATAGRAMS = {
    "no checksum": ip(4) / udp(chksum=0) / Raw(b"abcd"),
    "wrong checksum": ip(4) / udp(chksum=1) / Raw(b"abcd"),
    "no data": ip(4) / udp(),
    "length too small": ip(4) / udp(len=11) / Raw(b"abcd"),
    "length too large": ip(4) / udp(len=13) / Raw(b"abcd"),
}


@pytest.mark.parametrize("packet", [bytes(each) for each in NOT_DATAGRAMS.values()], ids=list(NOT_DATAGRAMS))
def test_a_datagram_that_cannot_be_put_together_goes_as_it_is(packet: bytes) -> None:
    before = datagrams(4, [4, 4])
    writes = written([*before, packet])
    assert cut_again(writes[:1]) == before
    assert writes[1:] == [(Vnet(), packet, 1)]


@pytest.mark.parametrize("version", [4, 6])
def test_what_says_another_length_than_it_has_passes_nobody(version: int) -> None:
    *before, wrong = stream(version, 3)
    # The checksum of TCP is that of the octets which are there.
    field = 3 if version == 4 else 5
    for change in (-1, 1):
        other = bytearray(wrong)
        other[field] += change
        if version == 4:
            other[10:12] = bytes(2)
            other[10:12] = checksum(bytes(other[:20])).to_bytes(2)
        writes = written([*before, bytes(other)])
        assert cut_again(writes[:1]) == before
        assert writes[1:] == [(Vnet(), bytes(other), 1)]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("upper", [tcp(), udp()], ids=["tcp", "udp"])
def test_whatever_a_header_is_cut_to_goes_as_it_is(version: int, upper: Packet) -> None:
    transport = bytes(ip(version) / upper)[20 if version == 4 else 40 :]
    for length in range(len(transport)):
        packet = bytes(
            ip(version, **{"proto" if version == 4 else "nh": 6 if TCP in upper else 17}) / transport[:length]
        )
        assert written([packet]) == [(Vnet(), packet, 1)]


@pytest.mark.parametrize("version", [4, 6])
def test_no_checksum_is_none_even_where_zero_were_right(version: int) -> None:
    unsummed = bytes(ip(version) / udp() / Raw(bytes(2)))
    # With the checksum of zeros for its data, a datagram has the sum 0, which is sent as 0xFFFF.
    summed = bytes(ip(version) / udp() / Raw(unsummed[-4:-2]))
    assert summed[-4:-2] == b"\xff\xff"
    packet = summed[:-4] + bytes(2) + summed[-2:]
    assert written([packet] * 2) == [(Vnet(), packet, 1)] * 2


@pytest.mark.parametrize("version", [4, 6])
def test_fragments_and_extension_headers_pass_nobody_of_their_flow(version: int) -> None:
    before = datagrams(version, [40, 40])
    large = bytes(ip(version, 2) / udp() / Raw(b"b" * 200))
    pieces = fragments(large, 120, 3)
    assert len(pieces) > 1
    writes = written([*before, *pieces])
    assert cut_again(writes[:1]) == before
    assert writes[1:] == [(Vnet(), piece, 1) for piece in pieces]


@pytest.mark.parametrize("version", [4, 6])
def test_other_protocols_hold_nobody_up(version: int) -> None:
    echo = bytes(ip(version) / (ICMP() if version == 4 else ICMPv6EchoRequest()) / Raw(b"ping"))
    first, second = stream(version, 2)
    writes = written([first, echo, second])
    assert writes[0] == (Vnet(), echo, 1)
    assert cut_again(writes[1:]) == [first, second]
    assert len(writes) == 2


# The first of two segments; what the second has that follows on it; what makes it another.
TCP4 = {"id": 7, "tos": 8, "ttl": 60}
TCP4_NEXT = {**TCP4, "id": 8}
STAMPS = [("NOP", None), ("NOP", None), ("Timestamp", (5, 6))]
SIX = {"tc": 8, "fl": 77, "hlim": 60}
HEADER = {"seq": 100, "ack": 9, "window": 500, "options": STAMPS}
NEXT = {**HEADER, "seq": 104}


def pair(version: int, network: dict[str, object], transport: dict[str, object], data: bytes = b"efgh") -> list[bytes]:
    """A segment, and one that is said to follow it."""
    first = ip(version, **(TCP4 if version == 4 else SIX)) / tcp(**HEADER) / Raw(b"abcd")
    return [bytes(first), bytes(ip(version, **network) / tcp(**transport) / Raw(data))]


@pytest.mark.parametrize(
    "segments",
    [
        pair(4, TCP4_NEXT, NEXT),
        pair(4, TCP4_NEXT, {**NEXT, "flags": "PA"}),
        pair(4, TCP4_NEXT, {**NEXT, "flags": "FA"}),
        pair(4, TCP4_NEXT, NEXT, b"e"),
        pair(6, SIX, NEXT),
    ],
)
def test_what_follows_is_written_together(segments: list[bytes]) -> None:
    writes = written(segments)
    assert [count for _, _, count in writes] == [2]
    assert cut_again(writes) == segments


@pytest.mark.parametrize(
    "segments",
    [
        pair(4, {**TCP4_NEXT, "id": 7}, NEXT),
        pair(4, {**TCP4_NEXT, "id": 9}, NEXT),
        pair(4, {**TCP4_NEXT, "tos": 9}, NEXT),
        pair(4, {**TCP4_NEXT, "ttl": 61}, NEXT),
        pair(4, {**TCP4_NEXT, "flags": "DF"}, NEXT),
        pair(4, {**TCP4_NEXT, "src": "10.0.0.2"}, NEXT),
        pair(4, {**TCP4_NEXT, "dst": "192.0.2.8"}, NEXT),
        pair(4, TCP4_NEXT, {**NEXT, "sport": 40_003}),
        pair(4, TCP4_NEXT, {**NEXT, "dport": 40_003}),
        pair(4, TCP4_NEXT, {**NEXT, "seq": 103}),
        pair(4, TCP4_NEXT, {**NEXT, "seq": 105}),
        pair(4, TCP4_NEXT, {**NEXT, "seq": 100}),
        pair(4, TCP4_NEXT, {**NEXT, "ack": 10}),
        pair(4, TCP4_NEXT, {**NEXT, "window": 501}),
        pair(4, TCP4_NEXT, {**NEXT, "urgptr": 1}),
        pair(4, TCP4_NEXT, {**NEXT, "reserved": 1}),
        pair(4, TCP4_NEXT, {**NEXT, "flags": "EA"}),
        pair(4, TCP4_NEXT, {**NEXT, "flags": "CA"}),
        pair(4, TCP4_NEXT, {**NEXT, "options": []}),
        pair(4, TCP4_NEXT, {**NEXT, "options": [*STAMPS[:2], ("Timestamp", (5, 7))]}),
        pair(4, TCP4_NEXT, NEXT, b"efghi"),
        pair(6, {**SIX, "tc": 9}, NEXT),
        pair(6, {**SIX, "fl": 78}, NEXT),
        pair(6, {**SIX, "hlim": 61}, NEXT),
        pair(6, {**SIX, "src": "fd00::2"}, NEXT),
        pair(6, {**SIX, "dst": "2001:db8::8"}, NEXT),
    ],
)
def test_what_differs_is_not(segments: list[bytes]) -> None:
    writes = written(segments)
    assert [count for _, _, count in writes] == [1, 1]
    # Of two flows, either may be first; of one, the first is.
    assert sorted(cut_again(writes)) == sorted(segments)
    if segments[0][12:24] == segments[1][12:24] and segments[0][0] >> 4 == 4:
        assert cut_again(writes) == segments


@pytest.mark.parametrize("last", [{"flags": "PA"}, {"flags": "FA"}], ids=["psh", "fin"])
def test_nothing_follows_the_end(last: dict[str, str]) -> None:
    packets = stream(6, 4)
    packets[1] = stream(6, 2, **last)[1]
    writes = written(packets)
    assert [count for _, _, count in writes] == [2, 2]
    assert cut_again(writes) == packets


def test_nothing_follows_a_short_one() -> None:
    packets = datagrams(4, [9, 9, 4, 4, 9])
    writes = written(packets)
    assert [count for _, _, count in writes] == [3, 1, 1]
    assert cut_again(writes) == packets


def test_identifications_say_nothing_under_df() -> None:
    """RFC 6864 §4.1. Linux sends zero in datagrams of sockets that are not connected."""
    packets = [bytes(ip(4, flags="DF", id=number) / udp() / Raw(b"abcd")) for number in (0, 0, 9)]
    ((header, packet, count),) = written(packets)
    assert count == 3
    assert header.gso_type == UDP_L4
    assert IP(packet).id == 0


def test_congestion_windows_are_reduced_once() -> None:
    packets = stream(6, 4)
    packets[::2] = stream(6, 4, flags="CA")[::2]
    writes = written(packets)
    assert [(header.gso_type, count) for header, _, count in writes] == [(TCPV6 | ECN, 2)] * 2
    assert cut_again(writes) == packets


@pytest.mark.parametrize("version", [4, 6])
def test_one_write_takes_so_many_octets(version: int) -> None:
    packets = stream(version, 30, octets=5_000)
    writes = written(packets)
    assert [count for _, _, count in writes] == [13, 13, 4]
    assert max(len(packet) for _, packet, _ in writes) <= 65_535 < 14 * 5_000
    assert cut_again(writes) == packets


def test_one_write_takes_so_many_segments() -> None:
    packets = datagrams(6, [2] * 150)
    writes = written(packets)
    assert [count for _, _, count in writes] == [64, 64, 22]
    assert cut_again(writes) == packets


def essence(packet: bytes) -> bytes:
    """All of it but identifications that say nothing, and which of its two forms a sum of zero has."""
    octets = bytearray(packet)
    if len(octets) >= 20 and octets[0] >> 4 == 4 and octets[6] == 0x40:
        octets[4:6] = octets[10:12] = bytes(2)
        if octets[9] == 6 and octets[36:38] == b"\xff\xff":
            octets[36:38] = bytes(2)
    return bytes(octets)


def flow(packet: bytes) -> tuple[object, ...]:
    """Addresses and ports, or where they cannot be told, addresses; then a flow has only itself to be in order with."""
    source, destination, protocol, payload = parse(packet)
    return source, destination, protocol, payload[:4]


@st.composite
def batches(draw: st.DrawFn) -> list[bytes]:
    """Segments of several packets and all that is no segment, each packet's in order, those of several mixed."""
    streams = [large.segments() for large in draw(st.lists(larges(), min_size=1, max_size=5))]
    streams += [[bytes(each)] for each in draw(st.lists(st.sampled_from(list(UNMERGED.values())), max_size=3))]
    streams += [FLOW] * draw(st.integers(0, 2))
    random = draw(st.randoms(use_true_random=False))
    mixed = []
    while streams := [stream for stream in streams if stream]:
        chosen = random.choice(streams)
        run_of = random.randint(1, 4)
        mixed += chosen[:run_of]
        streams[streams.index(chosen)] = chosen[run_of:]
    if draw(st.booleans()):
        random.shuffle(mixed)
    return mixed


@given(batches())
def test_nothing_is_lost_or_overtaken_in_its_flow(packets: list[bytes]) -> None:
    writes = written(packets)
    assert sum(count for _, _, count in writes) == len(packets)
    came: dict[object, list[bytes]] = defaultdict(list)
    went: dict[object, list[bytes]] = defaultdict(list)
    for packet in packets:
        came[flow(packet)].append(essence(packet))
    for packet in cut_again(writes):
        went[flow(packet)].append(essence(packet))
    assert went == came


@pytest.mark.parametrize("version", [4, 6])
def test_more_flows_than_there_is_room_for(version: int) -> None:
    flows = [datagrams(version, [1, 1, 1], sport=port) for port in range(50_000, 50_150)]
    writes = written([segments[number] for number in range(3) for segments in flows])
    found: dict[object, list[bytes]] = defaultdict(list)
    for packet in cut_again(writes):
        found[flow(packet)].append(packet)
    assert found == {flow(segments[0]): segments for segments in flows}


@given(large=larges(), data=st.data())
def test_a_wrong_checksum_never_becomes_a_right_one(large: Large, data: st.DataObject) -> None:
    segments = large.segments()
    number = data.draw(st.integers(0, len(segments) - 1))
    damaged = bytearray(segments[number])
    # In IPv6 no checksum covers what is in front of the addresses.
    place = data.draw(st.integers(0 if damaged[0] >> 4 == 4 else 8, len(damaged) - 1))
    damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    segments[number] = bytes(damaged)
    writes = written(segments)
    assert (Vnet(), bytes(damaged), 1) in writes
    assert sum(count for _, _, count in writes) == len(segments)


@given(st.lists(st.binary(max_size=120), max_size=8))
def test_any_octets_are_written_as_they_are(packets: list[bytes]) -> None:
    assert written(packets) == [(Vnet(), packet, 1) for packet in packets]


@given(large=larges(), data=st.data())
def test_damaged_headers_do_no_harm(large: Large, data: st.DataObject) -> None:
    packets = []
    for segment in large.segments():
        damaged = bytearray(segment[: data.draw(st.integers(0, len(segment)))])
        if damaged:
            damaged[data.draw(st.integers(0, min(79, len(damaged) - 1)))] = data.draw(st.integers(0, 255))
        packets += [segment, bytes(damaged)]
    assert sum(count for _, _, count in written(packets)) == len(packets)


@pytest.mark.parametrize(("tcp_allowed", "udp_allowed"), [(False, True), (True, False), (False, False)])
def test_what_is_not_allowed_is_left_alone(tcp_allowed: bool, udp_allowed: bool) -> None:
    of_tcp, of_udp = stream(6, 2), datagrams(6, [4, 4])
    writes = written(of_tcp + of_udp, tcp=tcp_allowed, udp=udp_allowed)
    assert sorted(count for _, _, count in writes) == sorted(
        ([2] if tcp_allowed else [1, 1]) + ([2] if udp_allowed else [1, 1])
    )
    for packets, allowed in ((of_tcp, tcp_allowed), (of_udp, udp_allowed)):
        assert ((Vnet(), packets[0], 1) in writes) is not allowed


def test_what_waits_is_written_before_the_switches_change() -> None:
    coalescer = Coalescer()
    packets = stream(6, 3)
    coalescer.add(packets[0])
    coalescer.allow(tcp=False, udp=False)
    coalescer.add(packets[1])
    assert [count for _, _, count in coalescer.written] == [1, 1]
    assert coalescer.written[1] == (ALONE, packets[1], 1)
    coalescer.allow(tcp=True, udp=False)
    coalescer.add(packets[2])
    assert len(coalescer.written) == 2
    coalescer.flush()
    assert len(coalescer.written) == 3


class Coalesced:
    """What is read of a device, cut, put together again, and written by batches."""

    def __init__(self) -> None:
        self.writes: list[tuple[Vnet, int]] = []

    def __call__(self, batch: list[bytes]) -> list[bytes]:
        coalescer = Coalescer()
        for read in batch:
            segments = cut(read[:OCTETS], read[OCTETS:])
            assert segments is not None
            for segment in segments:
                coalescer.add(segment)
        coalescer.flush()
        self.writes += [(Vnet.parse(header), count) for header, _, count in coalescer.written]
        return [header + packet for header, packet, _ in coalescer.written]


def wrong_checksums(namespace: str) -> int:
    """What the kernel of ``namespace`` has counted of them, in all protocols."""
    lines = run("ip", "netns", "exec", namespace, "nstat", "-asz").splitlines()
    return sum(int(line.split()[1]) for line in lines if "CsumErr" in line.split()[0])


@pytest.mark.root
@pytest.mark.parametrize(("version", "gso_type"), [(4, TCPV4), (6, TCPV6)])
def test_the_kernels_tcp_takes_what_is_written(version: int, gso_type: int) -> None:
    sent = bytes(range(256)) * 4_000
    passing = Coalesced()
    with two_ends(CSUM | TSO4 | TSO6) as ends:
        assert send_by_tcp(ends, version, sent, passing) == sent
        assert wrong_checksums(ends[1].namespace) == 0
    assert any(header.gso_type == gso_type and count > 1 for header, count in passing.writes)


@pytest.mark.root
@pytest.mark.parametrize("version", [4, 6])
def test_the_kernel_makes_datagrams_of_what_is_written(version: int) -> None:
    # Most of a write each, and a short one at its end.
    sent = [Random(number).randbytes(1_000 if number % 10 else 600) for number in range(40)]
    passing = Coalesced()
    with two_ends(CSUM | TSO4 | TSO6) as ends:
        assert send_by_udp(ends, version, sent, len(sent), passing) == sent
        assert wrong_checksums(ends[1].namespace) == 0
    assert any(header.gso_type == UDP_L4 and count > 1 for header, count in passing.writes)
