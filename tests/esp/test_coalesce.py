"""What is put together again is what segmentation makes the same packets of, and is right where all of them are."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw
from support.packets import checksum

from esp.coalesce import LARGEST, coalesce
from esp.segment import NEEDS_CSUM, VNET, segments

HOSTS = {4: ("10.1.0.1", "10.2.0.1"), 6: ("fd00:1::1", "fd00:2::1")}
LOCAL = {bytes((10, 2, 0, 1)), bytes.fromhex("fd000002000000000000000000000001")}
NOWHERE: set[bytes] = set()


def segment(version: int, sequence: int, data: bytes, identification: int = 0, **tcp: Any) -> bytes:
    source, destination = HOSTS[version]
    outer = IPv6(src=source, dst=destination) if version == 6 else IP(src=source, dst=destination, id=identification)
    defaults: dict[str, Any] = {"flags": "A", "options": [("NOP", None), ("NOP", None), ("Timestamp", (1, 2))]}
    return bytes(outer / TCP(sport=1, dport=2, seq=sequence % 2**32, ack=9, **(defaults | tcp)) / Raw(data))


def burst(version: int, sizes: list[int], start: int = 1000, **last: Any) -> list[bytes]:
    packets, sequence = [], start
    for number, size in enumerate(sizes):
        more = last if number == len(sizes) - 1 else {}
        packets.append(segment(version, sequence, bytes((number,)) * size, 100 + number, **more))
        sequence += size
    return packets


def is_right(packet: bytes) -> bool:
    """Whether a host would take it: lengths, the IPv4 header's checksum, and that of TCP (RFC 9293 §3.1)."""
    four = packet[0] >> 4 == 4
    addresses, segment = (packet[12:20], packet[20:]) if four else (packet[8:40], packet[40:])
    octets = int.from_bytes(packet[2:4]) if four else 40 + int.from_bytes(packet[4:6])
    whole = octets == len(packet) and (not four or checksum(packet[:20]) == 0)
    return whole and checksum(addresses + struct.pack("!II", len(segment), 6) + segment) == 0


def written(packets: list[bytes], local: set[bytes]) -> list[tuple[bytes, bytes]]:
    """Vnet header and packet of each write."""
    found = list(coalesce(packets, local))
    assert [packet for each in found for packet in each.packets] == packets
    return [(each.buffers[0], b"".join(each.buffers[1:])) for each in found]


HALVES = st.integers(1, 40)


@given(st.sampled_from([4, 6]), st.integers(2, 12), HALVES, st.integers(1, 80), st.sampled_from(["A", "PA"]))
def test_a_burst_becomes_one_packet_that_the_host_finds_right(
    version: int, count: int, half: int, last: int, flags: str
) -> None:
    size = 2 * half
    packets = burst(version, [size] * (count - 1) + [min(last, size)], flags=flags)
    ((vnet, packet),) = written(packets, LOCAL)
    told, kind, headers, gso, start, offset = VNET.unpack(vnet)
    assert (told, start, offset) == (0, 0, 0), "it is to look"
    assert (kind, headers, gso) == (1 if version == 4 else 4, len(packets[0]) - size, size)
    assert is_right(packet)
    assert packet[headers:] == b"".join(each[headers:] for each in packets)
    # What it stands for, cut again with the host's own idea of a checksum that is left to the device, is what came.
    start = 20 if version == 4 else 40
    addresses = packet[12:20] if version == 4 else packet[8:40]
    pseudo = checksum(addresses + struct.pack("!II", len(packet) - start, 6)) ^ 0xFFFF
    unsummed = packet[: start + 16] + pseudo.to_bytes(2) + packet[start + 18 :]
    assert list(segments(VNET.pack(NEEDS_CSUM, kind, headers, gso, start, 16), unsummed)) == packets


@pytest.mark.parametrize("version", [4, 6])
def test_what_is_for_others_and_data_of_odd_length_stay_as_they_are(version: int) -> None:
    for packets, local in ((burst(version, [20, 20]), NOWHERE), (burst(version, [21, 21]), LOCAL)):
        assert written(packets, local) == [(bytes(10), packet) for packet in packets]


@given(st.sampled_from([4, 6]), st.integers(2, 9), HALVES, st.data())
def test_one_bit_wrong_anywhere_never_becomes_right(version: int, count: int, half: int, draw: st.DataObject) -> None:
    packets = burst(version, [2 * half] * count)
    which = draw.draw(st.integers(0, count - 1))
    # Not the lengths, which are the engine's to check, nor the hop limit of IPv6, which nothing covers.
    at = draw.draw(st.integers(8 if version == 6 else 4, len(packets[0]) - 1))
    spoilt = bytearray(packets[which])
    spoilt[at] ^= 1 << draw.draw(st.integers(0, 7))
    packets[which] = bytes(spoilt)
    assert not is_right(packets[which])
    (wrong,) = [each for each in coalesce(packets, LOCAL) if packets[which] in each.packets]
    told, kind, *_ = VNET.unpack(wrong.buffers[0])
    assert not told, "the host is not told to make it right"
    assert not is_right(b"".join(wrong.buffers[1:])), "and drops it"
    assert (kind == 0) == (len(wrong.packets) == 1)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    "second",
    [
        {"flags": "FA"},
        {"flags": "SA"},
        {"flags": "RA"},
        {"flags": "UA"},
        {"flags": "EA"},
        {"flags": "CA"},
        {"window": 77},
        {"ack": 10},
        {"options": []},
        {"options": [("NOP", None), ("NOP", None), ("Timestamp", (1, 3))]},
        {"sport": 3},
        {"urgptr": 1},
    ],
    ids=str,
)
def test_what_differs_stays_apart(version: int, second: dict[str, Any]) -> None:
    packets = [segment(version, 1000, bytes(20))]
    fields = {"sport": 1, "ack": 9} | second
    source, destination = HOSTS[version]
    outer = IPv6(src=source, dst=destination) if version == 6 else IP(src=source, dst=destination)
    options = [("NOP", None), ("NOP", None), ("Timestamp", (1, 2))]
    fields = {"dport": 2, "seq": 1020, "flags": "A", "options": options} | fields
    packets.append(bytes(outer / TCP(**fields) / bytes(20)))
    assert len(written(packets, LOCAL)) == 2
    assert len(written([*packets[::-1]], LOCAL)) == 2
    assert len(written([packets[0], segment(version, 1020, bytes(20))], LOCAL)) == 1, "else it says nothing"


@pytest.mark.parametrize("version", [4, 6])
def test_gaps_larger_ones_and_bursts_that_have_ended_start_anew(version: int) -> None:
    one, two, three = burst(version, [20, 20, 20])
    pushed = segment(version, 1020, bytes(20), flags="PA")
    short = segment(version, 1020, bytes(8))
    after_short = segment(version, 1028, bytes(8))
    longer = segment(version, 1020, bytes(22))
    nothing = segment(version, 1020, b"")
    for packets, writes in [
        ([one, two, three], 1),
        ([one, three], 2),
        ([two, one], 2),
        ([one, one], 2),
        ([one, pushed, three], 2),
        ([one, short, after_short], 2),
        ([one, longer], 2),
        ([one, nothing], 2),
        ([nothing, nothing], 2),
        ([], 0),
    ]:
        assert len(written(packets, LOCAL)) == writes


def test_other_protocols_fragments_and_options_are_left_alone() -> None:
    source, destination = HOSTS[4]
    for outer in (
        IP(src=source, dst=destination) / UDP(sport=1, dport=2) / Raw(bytes(40)),
        IP(src=source, dst=destination, flags="MF") / TCP(flags="A") / Raw(bytes(40)),
        IP(src=source, dst=destination, options=[b"\x94\x04\0\0"]) / TCP(flags="A") / Raw(bytes(40)),
        IP(src=source, dst=destination, proto=6) / Raw(bytes(60)),
        IPv6(src="fd00::1", dst="fd00::2", nh=44) / Raw(bytes(80)),
        IP(src=source, dst=destination, proto=6) / Raw(b""),
    ):
        packet = bytes(outer)
        assert written([packet, packet], NOWHERE) == [(bytes(10), packet)] * 2


@pytest.mark.parametrize("version", [4, 6])
def test_no_more_than_a_packet_can_be(version: int) -> None:
    packets = burst(version, [1300] * 120)
    sizes = [len(packet) for _, packet in written(packets, LOCAL)]
    assert len(sizes) == 3
    assert max(sizes) <= LARGEST
    assert sizes[0] > LARGEST - 1400
