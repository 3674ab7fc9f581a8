"""From frames to the KINK messages in them: link layers, IPv4 and IPv6, fragments, UDP, the non-ESP marker. Pure.

What is not UDP to or from a port of interest is passed over; what is cut or broken below UDP cannot be told from
other traffic, so it is counted and no more.
"""

from __future__ import annotations

import struct
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kinkvpn.decode.capture import Frame

# Specification: LINKTYPE_ numbers of draft-ietf-opsawg-pcaplinktype.
NULL, ETHERNET, LOOP, SLL, SLL2 = 0, 1, 108, 113, 276
RAW: Final = frozenset({12, 14, 101, 228, 229})  # 12 and 14: DLT_RAW of some systems, found in files
IPV4_TYPE, IPV6_TYPE = 0x0800, 0x86DD
VLAN_TYPES: Final = frozenset({0x8100, 0x88A8, 0x9100})
UDP: Final = 17
FRAGMENT, AUTHENTICATION = 44, 51
EXTENSIONS: Final = frozenset({0, 43, 60, 135, AUTHENTICATION, FRAGMENT})  # RFC 8200 §4, RFC 6275, RFC 4302
MORE_FRAGMENTS, OFFSET_BITS = 0x2000, 0x1FFF  # RFC 791 §3.1
UDP_HEADER: Final = struct.Struct("!4H")  # RFC 768

KINK_PORT: Final = 910  # RFC 4430 §9
ESP_PORT: Final = 4500  # RFC 3948 §2.2: KINK too, behind the marker
NON_ESP_MARKER: Final = bytes(4)
MAX_DATAGRAM: Final = 65535

# Ours. Datagrams whose fragments are not all there: a host sends its fragments in a row, so few are open at once, and
# each may take 64 KiB.
MAX_INCOMPLETE: Final = 256
MAX_VLAN_TAGS: Final = 4
MAX_EXTENSIONS: Final = 16

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address and a UDP port."""

    address: Address
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Datagram:
    """One UDP datagram that carries KINK.

    Args:
        frame: number of the frame that completed it.
        time: POSIX seconds, or None.
        source, destination: ends.
        octets: the KINK message, without a marker.
        missing: octets that were on the wire and not in the capture.
        marked: whether a non-ESP marker was before it.
        fragments: how many frames it took.
    """

    frame: int
    time: float | None
    source: Endpoint
    destination: Endpoint
    octets: bytes
    missing: int = 0
    marked: bool = False
    fragments: int = 1


@dataclass(frozen=True, slots=True)
class _Packet:
    """An IP packet, or one fragment: ``offset`` and ``more`` are 0 and False in a whole one.

    Addresses stay octets: most packets of a capture are somebody else's, and an address object costs more than all
    the rest.
    """

    source: bytes
    destination: bytes
    protocol: int
    payload: bytes
    missing: int
    identification: bytes
    offset: int
    more: bool


@dataclass(slots=True)
class _Pieces:
    """Fragments of one datagram, by offset."""

    parts: dict[int, bytes] = field(default_factory=dict)
    size: int = 0
    missing: int = 0
    total: int | None = None

    def add(self, packet: _Packet) -> None:
        """One more, unless one with this offset is there."""
        if packet.offset not in self.parts:
            self.parts[packet.offset] = packet.payload
            self.size += len(packet.payload)
        if not packet.more:
            self.total, self.missing = packet.offset + len(packet.payload) + packet.missing, packet.missing

    def whole(self) -> bytes | None:
        """The payload, once no octet is missing; what overlaps is as the earlier offset has it."""
        if self.total is None or self.size + self.missing < self.total:
            return None
        octets = b""
        for offset in sorted(self.parts):
            if offset > len(octets):
                return None
            octets += self.parts[offset][len(octets) - offset :]
        return octets[: self.total] if len(octets) + self.missing >= self.total else None


@dataclass(slots=True)
class Passed:
    """What was in the capture besides the messages.

    Args:
        frames: all of them.
        link_types: frames by a link type that is not understood.
        other_marked: datagrams behind a non-ESP marker that are not KINK (IKE has the same place).
        incomplete: UDP datagrams of which a fragment is missing.
    """

    frames: int = 0
    link_types: Counter[int] = field(default_factory=Counter)
    other_marked: int = 0
    incomplete: int = 0


class Extractor:
    """Finds KINK datagrams in frames.

    Args:
        ports: UDP ports that carry KINK beside 910, and 4500 behind the marker.
    """

    def __init__(self, ports: Iterable[int] = ()) -> None:
        self._ports = frozenset({KINK_PORT, *ports})
        self._pieces: OrderedDict[tuple[bytes, bytes, bytes, int], _Pieces] = OrderedDict()
        self.passed = Passed()

    def extract(self, frames: Iterable[Frame]) -> Iterator[Datagram]:
        """The KINK datagrams, in the order in which they were complete. Passes on what reading ``frames`` raises."""
        for frame in frames:
            if (datagram := self.feed(frame)) is not None:
                yield datagram
        self.passed.incomplete += len(self._pieces)
        self._pieces.clear()

    def feed(self, frame: Frame) -> Datagram | None:
        """The KINK datagram that this frame carries or completes."""
        self.passed.frames += 1
        cut = max(0, frame.length - len(frame.octets))
        packet = self._packet(frame, cut)
        if packet is None or packet.protocol != UDP:
            return None
        count = 1
        if packet.offset or packet.more:
            gathered = self._gather(packet)
            if gathered is None:
                return None
            packet, count = gathered
        return self._datagram(frame, packet, count)

    def _packet(self, frame: Frame, cut: int) -> _Packet | None:
        octets = self._network(frame)
        if not octets:
            return None
        version = octets[0] >> 4
        if version == 4:
            return _read_ipv4(octets, cut)
        return _read_ipv6(octets, cut) if version == 6 else None

    def _network(self, frame: Frame) -> bytes:
        """What the link carries, empty if that is not IP. The version comes from the packet, as in raw captures."""
        octets = frame.octets
        if frame.link_type in RAW:
            return octets
        if frame.link_type in (NULL, LOOP):
            return octets[4:]  # the address family differs between systems and says nothing more
        if frame.link_type == ETHERNET:
            return _by_type(octets, 12)
        if frame.link_type == SLL:
            return _by_type(octets, 14)
        if frame.link_type == SLL2:
            return _by_type(octets[:2] + octets[20:], 0)
        self.passed.link_types[frame.link_type] += 1
        return b""

    def _gather(self, packet: _Packet) -> tuple[_Packet, int] | None:
        """The whole packet and its number of fragments, if this fragment was the one that it lacked."""
        key = packet.source, packet.destination, packet.identification, packet.protocol
        pieces = self._pieces.setdefault(key, _Pieces())
        if packet.offset + len(packet.payload) > MAX_DATAGRAM:
            return None
        pieces.add(packet)
        payload = pieces.whole()
        if payload is None:
            if len(self._pieces) > MAX_INCOMPLETE:
                self._pieces.popitem(last=False)
                self.passed.incomplete += 1
            return None
        del self._pieces[key]
        whole = _Packet(*key[:2], UDP, payload, pieces.missing, b"", 0, False)
        return whole, len(pieces.parts)

    def _datagram(self, frame: Frame, packet: _Packet, fragments: int) -> Datagram | None:
        if len(packet.payload) < UDP_HEADER.size:
            return None
        source, destination, length, _checksum = UDP_HEADER.unpack_from(packet.payload)
        ours = source in self._ports or destination in self._ports
        marked = packet.payload.startswith(NON_ESP_MARKER, UDP_HEADER.size)
        if not ours and not (marked and ESP_PORT in (source, destination)):
            return None
        octets = packet.payload[UDP_HEADER.size : max(length, UDP_HEADER.size) if length else None]
        missing = max(0, length - UDP_HEADER.size - len(octets)) if packet.missing else 0
        if not ours and not resembles_kink(octets[4:], missing):
            self.passed.other_marked += 1
            return None
        ends = Endpoint(ip_address(packet.source), source), Endpoint(ip_address(packet.destination), destination)
        message = octets[4:] if marked else octets
        return Datagram(frame.number, frame.time, *ends, message, missing, marked, fragments)


def resembles_kink(octets: bytes, missing: int = 0) -> bool:
    """Whether two of MjVer, Length and DOI are those of KINK; IKE begins with eight random octets (RFC 7296 §3.1)."""
    if len(octets) < 16:
        return False
    _, version, length, doi = struct.unpack_from("!BBHI", octets)
    return [version >> 4 == 1, length == len(octets) + missing, doi == 1].count(True) >= 2


def _by_type(octets: bytes, at: int) -> bytes:
    """What follows the EtherType at ``at``, beyond VLAN tags, if it is IP."""
    for _ in range(MAX_VLAN_TAGS + 1):
        if len(octets) < at + 2:
            return b""
        (kind,) = struct.unpack_from("!H", octets, at)
        if kind not in VLAN_TYPES:
            return octets[at + 2 :] if kind in (IPV4_TYPE, IPV6_TYPE) else b""
        at += 4
    return b""


def _read_ipv4(octets: bytes, cut: int) -> _Packet | None:
    """RFC 791 §3.1. A total length of 0 is what the capture of an offloaded packet has."""
    if len(octets) < 20:
        return None
    header, total = (octets[0] & 15) * 4, int.from_bytes(octets[2:4], "big")
    if header < 20:
        return None
    whole = total or len(octets) + cut
    fragment = int.from_bytes(octets[6:8], "big")
    payload = octets[header:whole]
    return _Packet(
        source=octets[12:16],
        destination=octets[16:20],
        protocol=octets[9],
        payload=payload,
        missing=max(0, whole - header - len(payload)),
        identification=octets[4:6],
        offset=(fragment & OFFSET_BITS) * 8,
        more=bool(fragment & MORE_FRAGMENTS),
    )


def _read_ipv6(octets: bytes, cut: int) -> _Packet | None:
    """RFC 8200 §3 and §4."""
    if len(octets) < 40:
        return None
    length = int.from_bytes(octets[4:6], "big")
    whole = 40 + length if length else len(octets) + cut
    protocol, at, identification, fragment = octets[6], 40, b"", 0
    for _ in range(MAX_EXTENSIONS):
        if protocol not in EXTENSIONS:
            break
        if len(octets) < at + 8:
            return None
        following, size = octets[at], (octets[at + 1] + 1) * 8
        if protocol == FRAGMENT:
            fragment, identification, size = int.from_bytes(octets[at + 2 : at + 4], "big"), octets[at + 4 : at + 8], 8
        elif protocol == AUTHENTICATION:
            size = (octets[at + 1] + 2) * 4
        protocol, at = following, at + size
        if fragment >> 3:
            break  # only the first fragment has the headers that follow
    payload = octets[at:whole]
    return _Packet(
        source=octets[8:24],
        destination=octets[24:40],
        protocol=protocol,
        payload=payload,
        missing=max(0, whole - at - len(payload)),
        identification=identification,
        offset=fragment & ~7,
        more=bool(fragment & 1),
    )
