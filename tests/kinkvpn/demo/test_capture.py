"""The verdict on frames that scapy built, on broken pcap files, and on a real wire."""

from __future__ import annotations

import io
import os
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6MLReport2,
    ICMPv6ND_NS,
    ICMPv6ND_RS,
    IPv6,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    fragment6,
)
from scapy.layers.ipsec import ESP
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from kinkvpn.demo.capture import CANARY, SNAPLEN, Capture, Classifier, Kind, read_pcap
from kinkvpn.demo.namespace import LabFailed, Namespace, join

if TYPE_CHECKING:
    from pathlib import Path

A, B, A6, B6 = "192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"
SPIS = {A: frozenset({0x1000}), B: frozenset({0x2000}), B6: frozenset({0x2000})}


def kink(message: int, body: bytes = b"body", *, version: int = 0x10, doi: int = 1, excess: int = 0) -> bytes:
    """RFC 4430 §4: type, version, length, DOI, XID, next payload, A-bit, checksum length."""
    return struct.pack("!BBHIIBBH", message, version, 16 + len(body) + excess, doi, 7, 0, 0, 0) + body


def ethernet(**fields: int) -> Packet:
    """With addresses, or scapy would ask the network for them."""
    return Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02", **fields)


def outer(source: str = A, target: str = B) -> Packet:
    return ethernet() / (IPv6(src=source, dst=target) if ":" in source else IP(src=source, dst=target))


def udp(payload: bytes, source: int = 4500, destination: int = 4500) -> Packet:
    return outer() / UDP(sport=source, dport=destination) / Raw(payload)


def esp(spi: int = 0x2000) -> Packet:
    return ESP(spi=spi, seq=1, data=os.urandom(40))


PERMITTED = [
    (Kind.KINK, udp(kink(1), 910, 910)),
    (Kind.KINK, udp(kink(3), 910, 40000)),
    (Kind.KINK, udp(bytes(4) + kink(2))),
    (Kind.KINK, outer(A6, B6) / UDP(sport=910, dport=910) / Raw(kink(6))),
    (Kind.ESP, outer() / UDP(sport=4500, dport=4500) / esp()),
    (Kind.ESP, outer(B, A) / UDP(sport=4500, dport=4500) / esp(0x1000)),
    (Kind.ESP, outer(A6, B6) / UDP(sport=4500, dport=4500) / esp()),
    (Kind.KEEPALIVE, udp(b"\xff")),
    (Kind.ARP, ethernet() / ARP(psrc=A, pdst=B)),
    (Kind.ND, outer(A6, B6) / ICMPv6ND_NS(tgt=B6)),
    (Kind.ND, outer(A6, "ff02::2") / ICMPv6ND_RS()),
    (Kind.ND, outer("::", "ff02::16") / IPv6ExtHdrHopByHop() / ICMPv6MLReport2()),
]
LEAKS = {
    "ping": outer() / ICMP() / Raw(b"x" * 40),
    "ping6": outer(A6, B6) / ICMPv6EchoRequest(),
    "tcp": outer() / TCP(dport=5001),
    "dns": udp(b"query", 4000, 53),
    "kerberos": udp(b"query", 4000, 88),
    "raw ESP, where ESP in UDP was agreed": outer() / esp(),
    "ESP with an SPI of nobody": outer() / UDP(sport=4500, dport=4500) / esp(0x3000),
    "ESP with the SPI of the other direction": outer() / UDP(sport=4500, dport=4500) / esp(0x1000),
    "short ESP": udp(struct.pack("!I", 0x2000) + b"abc"),
    "clear packet on 4500": udp(bytes(IP(src=A, dst=B) / TCP())),
    "clear packet on 910": udp(bytes(IP(src=A, dst=B) / TCP()), 910, 910),
    "KINK of an unknown type": udp(kink(7), 910, 910),
    "KINK of another version": udp(kink(1, version=0x20), 910, 910),
    "KINK of another DOI": udp(kink(1, doi=2), 910, 910),
    "KINK with something behind it": udp(kink(1, excess=-4), 910, 910),
    "plaintext that looks like ESP": udp(struct.pack("!II", 0x2000, 1) + CANARY),
    "plaintext in KINK": udp(kink(1, CANARY), 910, 910),
    "empty UDP": outer() / UDP(sport=4500, dport=4500),
    "VLAN": ethernet() / Dot1Q(vlan=1) / IP(src=A, dst=B) / UDP(sport=4500, dport=4500) / esp(),
    "IP version that contradicts the ethertype": ethernet(type=0x0800) / IPv6(src=A6, dst=B6),
}


@pytest.mark.parametrize(("kind", "packet"), PERMITTED)
@pytest.mark.parametrize("cut", [None, SNAPLEN, 64])
def test_what_may_be_on_the_wire(kind: Kind, packet: Packet, cut: int | None) -> None:
    classifier = Classifier(SPIS)
    assert classifier.add(bytes(packet)[:cut]) in {kind, *({Kind.LEAK} if cut == 64 and IPv6 in packet else ())}


@pytest.mark.parametrize("packet", LEAKS.values(), ids=LEAKS)
def test_what_may_not(packet: Packet) -> None:
    classifier = Classifier(SPIS)
    assert classifier.add(bytes(packet), 12.5) is Kind.LEAK
    assert classifier.traffic.leaked == 1
    assert classifier.traffic.leaks[0].startswith("12.500000 ")


def test_a_fragment_is_what_its_first_fragment_was() -> None:
    classifier = Classifier(SPIS)
    long = kink(1, os.urandom(2000))
    whole = IP(src=A, dst=B, id=7, flags=0) / UDP(sport=910, dport=910) / Raw(long)
    pieces = [bytes(ethernet() / piece) for piece in fragment(whole, fragsize=1400)]
    assert [classifier.add(piece) for piece in pieces] == [Kind.KINK, Kind.KINK]
    pieces = fragment6(IPv6(src=A6, dst=B6) / IPv6ExtHdrFragment(id=9) / UDP(sport=910, dport=910) / Raw(long), 1280)
    assert [classifier.add(bytes(ethernet() / piece)) for piece in pieces] == [Kind.KINK, Kind.KINK]
    assert classifier.traffic.kink == {"CREATE": 2}


def test_a_fragment_of_nothing_is_a_leak() -> None:
    classifier = Classifier(SPIS)
    classifier.add(bytes(udp(kink(1), 910, 910)))
    assert classifier.add(bytes(ethernet() / IP(src=A, dst=B, id=1, frag=100) / Raw(b"x" * 40))) is Kind.LEAK


@given(st.binary(max_size=120), st.sampled_from([b"", bytes(ethernet(type=0x0800)), bytes(ethernet(type=0x86DD))]))
def test_any_octets_get_a_verdict(octets: bytes, start: bytes) -> None:
    classifier = Classifier(SPIS)
    classifier.add(start + octets)
    assert classifier.traffic.packets.total() == 1


@pytest.mark.parametrize("packet", [packet for _, packet in PERMITTED])
def test_every_truncation_gets_a_verdict(packet: Packet) -> None:
    classifier = Classifier(SPIS)
    octets = bytes(packet)
    for length in range(len(octets)):
        classifier.add(octets[:length])
    assert classifier.traffic.packets.total() == len(octets)


def pcap(*frames: bytes, order: str = "<", magic: int = 0xA1B2C3D4, link: int = 1) -> bytes:
    records = (struct.pack(f"{order}4I", 5, 500, len(frame), 1500) + frame for frame in frames)
    return struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 256, link) + b"".join(records)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("magic", "second"), [(0xA1B2C3D4, 1e-6), (0xA1B23C4D, 1e-9)])
def test_pcap_of_either_order_and_clock(order: str, magic: int, second: float) -> None:
    read = list(read_pcap(io.BytesIO(pcap(b"one", b"three", order=order, magic=magic))))
    assert read == [(5 + 500 * second, b"one"), (5 + 500 * second, b"three")]


def test_truncated_or_foreign_files_are_refused() -> None:
    whole = pcap(b"one", b"three")
    for length in range(len(whole)):
        if length in (24, 24 + 16 + 3):
            continue  # ends between two frames, as a pcap may
        with pytest.raises(ValueError, match=r"not a pcap file|cut off"):
            list(read_pcap(io.BytesIO(whole[:length])))
    with pytest.raises(ValueError, match="Ethernet"):
        list(read_pcap(io.BytesIO(pcap(link=101))))
    with pytest.raises(ValueError, match="not a pcap"):
        list(read_pcap(io.BytesIO(bytes(100))))


@pytest.mark.root
def test_capture_sees_every_packet_of_a_wire(tmp_path: Path) -> None:
    with Namespace("a") as a, Namespace("b") as b:
        join(a, "wire", b, "wire")
        a.ip(f"address add {A}/30 dev wire")
        b.ip(f"address add {B}/30 dev wire")
        with Capture(a, "wire", tmp_path / "wire.pcap") as capture:
            a.run(["ping", "-n", "-c", "200", "-i", "0.002", B])
            # Right after the last packet: what the kernel has not handed over yet must not be lost.
            assert capture.stop() == 0
            traffic = capture.classify(SPIS)
    assert traffic.packets[Kind.LEAK] == 400
    assert set(traffic.packets) == {Kind.LEAK, Kind.ARP}
    assert traffic.leaks[0].endswith(f"IPv4 {A} > {B} protocol 1")
    assert len(traffic.leaks) == 10


@pytest.mark.root
def test_capture_says_why_it_cannot(tmp_path: Path) -> None:
    with Namespace("a") as a, pytest.raises(LabFailed, match="No such device") as raised:
        Capture(a, "wire", tmp_path / "wire.pcap").start()
    assert raised.value.host == "a"
