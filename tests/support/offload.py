"""Large packets as a kernel hands them out for cutting, and their segments: scapy is the one who knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st
from scapy.layers.inet import TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop
from scapy.packet import Packet, Raw
from support.packets import checksum
from support.scapy_esp import IP, IPv6
from support.vnet import ECN, NEEDS_CSUM, TCPV4, TCPV6, UDP_L4, Vnet

if TYPE_CHECKING:
    from collections.abc import Callable

NUMBER = st.integers(0, 0xFFFF)
# None of them belongs to a protocol that scapy would look for in the payload.
PORT = st.integers(40_001, 40_008)
FIELD = {6: 16, 17: 6}

_timestamps = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)).map(
    lambda values: [("NOP", None), ("NOP", None), ("Timestamp", values)]
)
TCP_HEADERS = st.builds(
    TCP,
    sport=PORT,
    dport=PORT,
    seq=st.one_of(st.integers(0, 2**32 - 1), st.integers(2**32 - 9_000, 2**32 - 1)),
    ack=st.integers(0, 2**32 - 1),
    window=NUMBER,
    reserved=st.integers(0, 7),
    flags=st.sets(st.sampled_from("FPEC")).map(lambda flags: "A" + "".join(sorted(flags))),
    options=st.one_of(st.just([]), _timestamps),
)
UDP_HEADERS = st.builds(UDP, sport=PORT, dport=PORT)
IPV4_HEADERS = st.builds(
    IP,
    src=st.ip_addresses(v=4).map(str),
    dst=st.ip_addresses(v=4).map(str),
    tos=st.integers(0, 255),
    ttl=st.integers(1, 255),
    id=NUMBER,
    flags=st.sampled_from(["", "DF"]),
)
IPV6_HEADERS = st.builds(
    IPv6,
    src=st.ip_addresses(v=6).map(str),
    dst=st.ip_addresses(v=6).map(str),
    tc=st.integers(0, 255),
    fl=st.integers(0, 2**20 - 1),
    hlim=st.integers(1, 255),
)
PLAIN = st.one_of(IPV4_HEADERS, IPV6_HEADERS)


def _with_options(header: Packet) -> Packet:
    header.options = [IPOption_NOP()] * 4
    return header


WITH_OPTIONS = st.one_of(
    IPV4_HEADERS.map(_with_options),
    IPV6_HEADERS.map(lambda header: header / IPv6ExtHdrHopByHop()),
    IPV6_HEADERS.map(lambda header: header / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt()),
)


class Large:
    """A packet and the size of the segments that are to be made of it.

    Attributes:
        header: as it comes with the packet.
        octets: the packet as the kernel leaves it, the sum of the pseudo-header in the place of the checksum.
    """

    def __init__(self, headers: Packet, payload: bytes, size: int, hdr_len: int = 0) -> None:
        self._headers, self.payload, self.size = headers, payload, size
        self.upper = TCP if TCP in headers else UDP
        whole = bytes(headers / Raw(payload))
        self.transport = len(bytes(_below(headers)))
        field = FIELD[self.protocol]
        at = self.transport + field
        # Of the right checksum and of all that it covers: what is left is the pseudo-header.
        covered = whole[self.transport : at] + bytes(2) + whole[at + 2 :]
        right = int.from_bytes(whole[at : at + 2])
        rest = (0xFFFF ^ right) + checksum(covered)
        self.octets = whole[:at] + ((rest & 0xFFFF) + (rest >> 16)).to_bytes(2) + whole[at + 2 :]
        self.header = Vnet(NEEDS_CSUM, self._gso_type(), hdr_len, size, self.transport, field).build()

    @property
    def protocol(self) -> int:
        return 6 if self.upper is TCP else 17

    def _gso_type(self) -> int:
        if self.upper is UDP:
            return UDP_L4
        ecn = ECN if "C" in self._headers[TCP].flags else 0
        return ecn | (TCPV4 if IP in self._headers else TCPV6)

    def segments(self) -> list[bytes]:
        """As scapy builds each of them, from nothing but the fields of its own that cutting gives it."""
        starts = range(0, len(self.payload), self.size)
        return [self._segment(number, start, start == starts[-1]) for number, start in enumerate(starts)]

    def _segment(self, number: int, start: int, last: bool) -> bytes:
        headers = self._headers.copy()
        if IP in headers:
            headers[IP].id = (headers[IP].id + number) % 2**16
        if TCP in headers:
            headers[TCP].seq = (headers[TCP].seq + start) % 2**32
            flags = str(headers[TCP].flags)
            headers[TCP].flags = "".join(
                flag for flag in flags if not (flag in "FP" and not last) and not (flag == "C" and number)
            )
        return bytes(headers / Raw(self.payload[start : start + self.size]))


def _below(headers: Packet) -> Packet:
    """What is in front of the transport header."""
    copy = headers.copy()
    copy[TCP if TCP in copy else UDP].underlayer.remove_payload()
    return copy


@st.composite
def larges(draw: Callable[..., object], below: st.SearchStrategy[Packet] = PLAIN) -> Large:
    """A packet of up to eight segments."""
    headers = draw(below) / draw(st.one_of(TCP_HEADERS, UDP_HEADERS))
    size = draw(st.one_of(st.integers(1, 1_400), st.sampled_from([1, 63, 64, 127, 128, 129, 1_368])))
    octets = draw(st.integers(size + 1, 8 * size))
    payload = draw(st.randoms(use_true_random=False)).randbytes(octets)
    return Large(headers, payload, size, draw(NUMBER))


def is_right(packet: bytes) -> bool:
    """Whether scapy, building it anew, gives it the same lengths and checksums."""
    parsed = IP(packet) if packet[0] >> 4 == 4 else IPv6(packet)
    for layer, fields in ((IP, ("len", "chksum")), (IPv6, ("plen",)), (TCP, ("chksum",)), (UDP, ("len", "chksum"))):
        if layer in parsed:
            for field in fields:
                delattr(parsed[layer], field)
    return bytes(parsed) == packet
