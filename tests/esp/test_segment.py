"""TSO and USO in software, against scapy's idea of each segment and the kernel's of the whole."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.packet import Raw
from support.packets import checksum

from esp.segment import (
    GSO_ECN,
    GSO_NONE,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    NEEDS_CSUM,
    NONSENSE,
    VNET,
    segments,
)

SOURCES = {4: ("10.1.0.1", "10.2.0.1"), 6: ("fd00:1::1", "fd00:2::1")}
TCP_TYPES = {4: GSO_TCPV4, 6: GSO_TCPV6}
TCP_FIELD, UDP_FIELD = 16, 6
FLAGS = "FSRPAUEC"

headers = st.fixed_dictionaries(
    {
        "version": st.sampled_from([4, 6]),
        "flags": st.sets(st.sampled_from("FPAUEC")).map("".join),
        "seq": st.integers(0, 2**32 - 1),
        "identification": st.integers(0, 2**16 - 1),
        "timestamps": st.booleans(),
        "extension": st.booleans(),
    }
)


def network(version: int, identification: int = 0, *, extension: bool = False) -> Any:
    source, destination = SOURCES[version]
    if version == 6:
        head = IPv6(src=source, dst=destination, tc=2, fl=0x12345)
        return head / IPv6ExtHdrDestOpt() if extension else head
    options = [b"\x94\x04\0\0"] if extension else []  # router alert (RFC 2113)
    return IP(src=source, dst=destination, id=identification, tos=2, flags="DF", options=options)


def pseudo_header(packet: bytes, start: int, protocol: int) -> bytes:
    """RFC 9293 §3.1, RFC 8200 §8.1."""
    addresses = packet[12:20] if packet[0] >> 4 == 4 else packet[8:40]
    return addresses + struct.pack("!II", len(packet) - start, protocol)


def left_to_the_device(packet: Any, kind: int, size: int, field: int) -> tuple[bytes, bytes]:
    """What a TUN gives for ``packet``, whose checksum is not complete, with its header."""
    whole = bytearray(bytes(packet))
    layer = TCP if field == TCP_FIELD else UDP
    transport = bytes(packet[layer])
    start = len(whole) - len(transport)
    covered = pseudo_header(bytes(whole), start, 6 if layer is TCP else 17)
    whole[start + field : start + field + 2] = (checksum(covered) ^ 0xFFFF).to_bytes(2)  # its sum, as the kernel does
    return VNET.pack(NEEDS_CSUM, kind, start, size, start, field), bytes(whole)


def dissected(packet: bytes) -> Any:
    return (IP if packet[0] >> 4 == 4 else IPv6)(packet)


def is_right(packet: bytes) -> bool:
    """Whether lengths and checksums are those of the packet."""
    found = dissected(packet)
    layer, protocol = (TCP, 6) if TCP in found else (UDP, 17)
    start = len(packet) - len(found[layer].original)
    if packet[0] >> 4 == 4:
        whole = found.len == len(packet) and checksum(packet[: found.ihl * 4]) == 0
    else:
        whole = found.plen == len(packet) - 40
    return whole and checksum(pseudo_header(packet, start, protocol) + packet[start:]) == 0


@given(headers, st.binary(min_size=1, max_size=600), st.integers(1, 200))
def test_tcp_is_cut_into_what_the_host_would_have_sent(fields: dict[str, Any], data: bytes, size: int) -> None:
    version = fields["version"]
    options = [("NOP", None), ("NOP", None), ("Timestamp", (7, 9))] if fields["timestamps"] else []
    head = network(version, fields["identification"], extension=fields["extension"])
    flags = fields["flags"]
    whole = head / TCP(sport=1, dport=2, seq=fields["seq"], ack=5, flags=flags, window=77, options=options) / Raw(data)
    vnet, packet = left_to_the_device(whole, TCP_TYPES[version] | GSO_ECN * ("C" in flags), size, TCP_FIELD)
    cut = segments(vnet, packet)
    found = [dissected(each) for each in cut]
    assert b"".join(bytes(each[TCP].payload) for each in found) == data
    assert [len(each[TCP].payload) for each in found[:-1]] == [size] * (len(data) // size - (len(data) % size == 0))
    assert all(map(is_right, cut))
    for number, each in enumerate(found):
        assert each[TCP].seq == (fields["seq"] + number * size) % 2**32
        expected = set(flags) - ({"F", "P"} if number < len(found) - 1 else set()) - ({"C"} if number else set())
        assert set(str(each[TCP].flags)) == expected
        assert (each[TCP].options, each[TCP].window, each[TCP].ack) == (whole[TCP].options, 77, 5)
        if version == 4:
            assert each.id == (fields["identification"] + number) % 2**16
            assert (each.flags, each.tos, each.options) == (dissected(packet).flags, 2, dissected(packet).options)
        else:
            assert (each.tc, each.fl) == (2, 0x12345)


@given(st.sampled_from([4, 6]), st.binary(min_size=1, max_size=600), st.integers(1, 200), st.booleans())
def test_udp_is_cut_into_datagrams(version: int, data: bytes, size: int, extension: bool) -> None:
    whole = network(version, 65_530, extension=extension) / UDP(sport=1, dport=2) / Raw(data)
    cut = segments(*left_to_the_device(whole, GSO_UDP_L4, size, UDP_FIELD))
    found = [dissected(each) for each in cut]
    assert [bytes(each[UDP].payload) for each in found] == [data[at : at + size] for at in range(0, len(data), size)]
    assert [each[UDP].len for each in found] == [8 + len(each[UDP].payload) for each in found]
    assert all(map(is_right, cut))
    assert all(each[UDP].chksum for each in found), "zero says that there is none (RFC 768)"


@given(st.sampled_from([4, 6]), st.binary(max_size=100))
@example(version=4, data=bytes.fromhex("d5c4"))
def test_a_packet_that_is_whole_has_its_checksum_completed(version: int, data: bytes) -> None:
    for layer, field in ((TCP(sport=1, dport=2), TCP_FIELD), (UDP(sport=1, dport=2), UDP_FIELD)):
        whole = network(version) / layer / Raw(data)
        (completed,) = segments(*left_to_the_device(whole, GSO_NONE, 0, field))
        assert is_right(completed)
        assert segments(VNET.pack(0, GSO_NONE, 0, 0, 0, 0), completed) == (completed,)


def tcp(version: int = 4) -> tuple[bytes, bytes]:
    whole = network(version) / TCP(sport=1, dport=2, flags="A") / Raw(bytes(300))
    return left_to_the_device(whole, TCP_TYPES[version], 100, TCP_FIELD)


def spoilt(octets: bytes, at: int, value: int) -> bytes:
    return octets[:at] + bytes((value,)) + octets[at + 1 :]


@pytest.mark.parametrize(
    ("at", "value", "version"),
    [
        (0, 0x46, 4),  # a longer IP header than the host says
        (0, 0x75, 4),  # neither version
        (0, 0x65, 4),  # the other version
        (3, 0, 4),  # another total length
        (5, 0, 6),  # another payload length
        (9, 17, 4),  # UDP
        (6, 17, 6),
        (6, 60, 6),  # an extension header, where TCP starts right behind
        (32, 0x40, 4),  # a TCP header that is none
        (32, 0xF0, 4),  # no: 60 octets, and there are 320; it is one, and the data is less
    ],
)
def test_lengths_are_those_of_the_packet_or_it_is_nonsense(at: int, value: int, version: int) -> None:
    vnet, packet = tcp(version)
    assert len(segments(vnet, packet)) == 3
    cut = segments(vnet, spoilt(packet, at, value))
    assert cut == NONSENSE or value == 0xF0


@pytest.mark.parametrize(
    "vnet",
    [
        VNET.pack(0, GSO_TCPV4, 40, 100, 20, 16),  # nobody says where the checksum is
        VNET.pack(NEEDS_CSUM, GSO_TCPV4, 40, 0, 20, 16),  # segments of nothing
        VNET.pack(NEEDS_CSUM, GSO_TCPV6, 40, 100, 20, 16),
        VNET.pack(NEEDS_CSUM, GSO_UDP_L4, 40, 100, 20, 16),
        VNET.pack(NEEDS_CSUM, 3, 40, 100, 20, 16),  # UFO, which nobody asked for
        VNET.pack(NEEDS_CSUM, GSO_TCPV4, 40, 100, 24, 16),
        VNET.pack(NEEDS_CSUM, GSO_TCPV4, 40, 100, 0, 16),
        VNET.pack(NEEDS_CSUM, GSO_TCPV4, 40, 100, 400, 16),
        VNET.pack(NEEDS_CSUM, GSO_NONE, 0, 0, 400, 16),
        VNET.pack(NEEDS_CSUM, GSO_NONE, 0, 0, 20, 319),
        VNET.pack(NEEDS_CSUM, GSO_NONE, 0, 0, 0, 16),
    ],
)
def test_a_header_that_contradicts_the_packet_is_nonsense(vnet: bytes) -> None:
    assert segments(vnet, tcp()[1]) == NONSENSE


FLAG_VALUES = st.sampled_from([0, NEEDS_CSUM])
TYPES = st.sampled_from([GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, GSO_ECN | GSO_TCPV4])


@given(st.builds(VNET.pack, FLAG_VALUES, TYPES, *[st.integers(0, 90)] * 4), st.data())
def test_whatever_comes_raises_nothing_and_never_grows_without_bound(vnet: bytes, draw: st.DataObject) -> None:
    packet = draw.draw(st.one_of(st.binary(max_size=120), st.sampled_from([tcp(4)[1], tcp(6)[1]])))
    if packet:
        at = draw.draw(st.integers(0, len(packet) - 1))
        packet = spoilt(packet, at, draw.draw(st.integers(0, 255)))
    cut = segments(vnet, packet)
    assert 1 <= len(cut) <= max(len(packet), 1)
    assert all(len(each) <= len(packet) for each in cut)
