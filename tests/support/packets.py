"""IPv4 and IPv6 packets with right checksums, their fragments, and what carries ESP: written from the RFCs."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import NamedTuple

ICMP, UDP, ESP, ICMPV6, FRAGMENT = 1, 17, 50, 58, 44
ECHO_REQUEST = {4: 8, 6: 128}  # RFC 792, RFC 4443 §4.1
ECHO_REPLY = {4: 0, 6: 129}
HEADER = {4: 20, 6: 40}


def checksum(octets: bytes) -> int:
    """RFC 1071."""
    octets += bytes(len(octets) % 2)
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def _pseudo_header(source: str, destination: str, protocol: int, length: int) -> bytes:
    """RFC 8200 §8.1; that of IPv4 (RFC 768) sums to the same."""
    addresses = ip_address(source).packed + ip_address(destination).packed
    return addresses + struct.pack("!II", length, protocol)


def ip(source: str, destination: str, protocol: int, payload: bytes, *, identification: int = 0) -> bytes:
    """A packet of the addresses' family; IPv4 without DF."""
    addresses = ip_address(source).packed + ip_address(destination).packed
    if ":" in source:
        return struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + addresses + payload
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), identification, 0, 64, protocol, 0) + addresses
    return header[:10] + checksum(header).to_bytes(2) + header[12:] + payload


def udp(source: str, destination: str, ports: tuple[int, int], payload: bytes) -> bytes:
    """A UDP datagram in its packet, with a checksum, which IPv6 demands (RFC 8200 §8.1)."""
    header = struct.pack("!HHHH", *ports, 8 + len(payload), 0)
    found = checksum(_pseudo_header(source, destination, UDP, 8 + len(payload)) + header + payload)
    return ip(source, destination, UDP, header[:6] + (found or 0xFFFF).to_bytes(2) + payload)


def echo(source: str, destination: str, number: int, payload: bytes, *, reply: bool = False) -> bytes:
    """An echo message; ``number`` is its sequence number."""
    version = 6 if ":" in source else 4
    kind = (ECHO_REPLY if reply else ECHO_REQUEST)[version]
    header = struct.pack("!BBHHH", kind, 0, 0, 0x4B4B, number)
    octets = header + payload
    covered = _pseudo_header(source, destination, ICMPV6, len(octets)) + octets if version == 6 else octets
    message = header[:2] + checksum(covered).to_bytes(2) + header[4:] + payload
    return ip(source, destination, ICMPV6 if version == 6 else ICMP, message, identification=number)


class Parsed(NamedTuple):
    """A packet without options and extension headers, but for a fragment header."""

    source: str
    destination: str
    protocol: int
    payload: bytes


def parse(packet: bytes) -> Parsed:
    """What a whole packet carries."""
    if packet[0] >> 4 == 6:
        length, protocol = struct.unpack_from("!HB", packet, 4)
        addresses = packet[8:24], packet[24:40]
        payload = packet[40 : 40 + length]
    else:
        (length,), protocol = struct.unpack_from("!H", packet, 2), packet[9]
        addresses = packet[12:16], packet[16:20]
        payload = packet[(packet[0] & 15) * 4 : length]
    source, destination = (str(ip_address(each)) for each in addresses)
    return Parsed(source, destination, protocol, payload)


def fragments(packet: bytes, mtu: int, identification: int) -> list[bytes]:
    """``packet`` in pieces that fit ``mtu`` (RFC 791 §3.2, RFC 8200 §4.5); itself if it fits."""
    if len(packet) <= mtu:
        return [packet]
    version = packet[0] >> 4
    source, destination, protocol, payload = parse(packet)
    room = (mtu - HEADER[version] - (8 if version == 6 else 0)) // 8 * 8
    found = []
    for offset in range(0, len(payload), room):
        piece, more = payload[offset : offset + room], offset + room < len(payload)
        if version == 6:
            header = struct.pack("!BBHI", protocol, 0, offset | more, identification)
            found.append(ip(source, destination, FRAGMENT, header + piece))
        else:
            own = int.from_bytes(packet[4:6]) or identification & 0xFFFF
            whole = bytearray(ip(source, destination, protocol, piece, identification=own))
            whole[6:8] = (offset // 8 | more << 13).to_bytes(2)
            whole[10:12] = bytes(2)
            whole[10:12] = checksum(bytes(whole[:20])).to_bytes(2)
            found.append(bytes(whole))
    return found


class Reassembly:
    """Fragments in, whole packets out."""

    def __init__(self) -> None:
        self._pieces: dict[tuple[str, str, int, int], dict[int, tuple[bytes, bool]]] = {}

    def take(self, packet: bytes) -> bytes | None:
        """The whole packet that ``packet`` is or completes."""
        source, destination, protocol, payload = parse(packet)
        if packet[0] >> 4 == 6:
            if protocol != FRAGMENT:
                return packet
            protocol, _, place, identification = struct.unpack_from("!BBHI", payload)
            offset, more, payload = place & ~7, bool(place & 1), payload[8:]
        else:
            identification, place = struct.unpack_from("!HH", packet, 4)
            offset, more = (place & 0x1FFF) * 8, bool(place & 0x2000)
            if not offset and not more:
                return packet
        key = (source, destination, protocol, identification)
        pieces = self._pieces.setdefault(key, {})
        pieces[offset] = payload, more
        whole, more = b"", True
        while more and len(whole) in pieces:
            piece, more = pieces[len(whole)]
            whole += piece
            if not piece:
                break
        if more:
            return None
        del self._pieces[key]
        return ip(source, destination, protocol, whole, identification=identification)
