"""What the engine reads of an inner packet: its length, and the flow it belongs to (RFC 791, RFC 8200)."""

from __future__ import annotations

import struct

# A flow as it stands in the packet, not as a host sees it: protocol, source and destination address (8 or 32 octets),
# source and destination port (two times 16 bits, source high). What ICMP has instead of ports, type and code, stands in
# both places, for it is the same whichever way one looks; of the mobility header, type and a zero (RFC 4301 §4.4.1.1).
# A plain tuple: one is made for every packet.
Flow = tuple[int, bytes, int]

# Shown by no octet of this packet: ports of a fragment that is not the first, of a cut header, or of a protocol that
# has none; the protocol itself behind extension headers that cannot be followed (RFC 4301 §4.4.1.1, OPAQUE).
OPAQUE = -1

TCP, UDP, DCCP, SCTP, UDP_LITE = 6, 17, 33, 132, 136
# The protocols whose header starts with source and destination port.
PROTOCOLS_WITH_PORTS = frozenset({TCP, UDP, DCCP, SCTP, UDP_LITE})

ICMP, ICMPV6, MOBILITY = 1, 58, 135
# Those whose header starts with type and code (RFC 792, RFC 4443 §2.1), or has a type as its third octet (RFC 6275
# §6.1.1).
PROTOCOLS_WITH_TYPE = frozenset({ICMP, ICMPV6, MOBILITY})

# IPv4 header (RFC 791 §3.1): version:4 IHL:4 | TOS 1 | total length 2 | ID 2 | flags:3 fragment offset:13 | TTL 1 |
# protocol 1 | checksum 2 | source 4 | destination 4 | options. Behind it, without options, the ports.
_IPV4 = struct.Struct("!B x H 2x H x B 2x 8s")
_IPV4_AND_PORTS = struct.Struct("!2x H 2x H x B 2x 8s I")
_IPV4_NO_OPTIONS = 0x45
_OFFSET = 0x1FFF  # in units of eight octets; zero in the first fragment
_FRAGMENT = 0x3FFF  # offset and MF: either says that this is a fragment

# IPv6 header (RFC 8200 §3): version:4 traffic class:8 flow label:20 | payload length 2 | next header 1 | hop limit 1 |
# source 16 | destination 16. Behind it, without extension headers, the ports.
_IPV6 = struct.Struct("!4x H B x 32s")
_IPV6_AND_PORTS = struct.Struct("!4x H B x 32s I")
_PORTS = struct.Struct("!I")

# The extension headers that a selector looks behind (RFC 4301 §4.4.1.1): fragment, and hop-by-hop options, routing and
# destination options, which start with next header 1 | length 1, in units of eight octets less one (RFC 8200 §4.3,
# §4.4, §4.6). Whatever else follows is the protocol, AH and the mobility header too: what is in them does not pass for
# itself.
EXTENSIONS = frozenset({0, 43, 60})
FRAGMENT_HEADER = 44  # next header 1 | reserved 1 | offset:13 reserved:2 M:1 | identification 4 (RFC 8200 §4.5)
_EXTENSION = struct.Struct("!BB")
_FRAGMENT_EXTENSION = struct.Struct("!BxH4x")

# Ours. RFC 8200 §4.1 knows seven in their order; a longer chain is somebody's trick, and its flow stays OPAQUE.
MAX_EXTENSIONS = 8


def parse_inner(packet: bytes) -> tuple[int, Flow] | None:
    """Total length of the IP packet that ``packet`` starts with, in octets, and its flow.

    None where it is neither IPv4 nor IPv6, is cut, or its lengths contradict each other. Octets behind the total length
    are the caller's to judge (RFC 4303 §2.7 puts padding there). Checksums are not verified: hosts do that.
    """
    octets = len(packet)
    if octets < 20:
        return None
    first = packet[0]
    if first == _IPV4_NO_OPTIONS and octets >= 24:  # nearly every packet there is: no fragment, ports in place
        total, fragment, protocol, addresses, ports = _IPV4_AND_PORTS.unpack_from(packet)
        if protocol in PROTOCOLS_WITH_PORTS and not fragment & _FRAGMENT and 24 <= total <= octets:
            return total, (protocol, addresses, ports)
    version = first >> 4
    if version == 4:
        return _parse_ipv4(packet)
    if version == 6:
        if octets >= 44:
            payload, protocol, addresses, ports = _IPV6_AND_PORTS.unpack_from(packet)
            if protocol in PROTOCOLS_WITH_PORTS and 4 <= payload <= octets - 40:
                return 40 + payload, (protocol, addresses, ports)
        return _parse_ipv6(packet)
    return None


def _parse_ipv4(packet: bytes) -> tuple[int, Flow] | None:
    first, total, fragment, protocol, addresses = _IPV4.unpack_from(packet)
    header = (first & 0x0F) * 4
    if not 20 <= header <= total <= len(packet):
        return None
    ports = OPAQUE if fragment & _OFFSET else _ports(packet, protocol, header, total)
    return total, (protocol, addresses, ports)


def _parse_ipv6(packet: bytes) -> tuple[int, Flow] | None:
    if len(packet) < 40:
        return None
    payload, protocol, addresses = _IPV6.unpack_from(packet)
    total = 40 + payload
    if total > len(packet):
        return None
    protocol, ports = _follow(packet, protocol, total)
    return total, (protocol, addresses, ports)


def _follow(packet: bytes, protocol: int, total: int) -> tuple[int, int]:
    """Upper-layer protocol and ports behind the extension headers, each OPAQUE where the packet does not show it."""
    offset = 40
    for _ in range(MAX_EXTENSIONS + 1):
        if protocol == FRAGMENT_HEADER:
            if offset + 8 > total:
                return OPAQUE, OPAQUE
            protocol, fragment = _FRAGMENT_EXTENSION.unpack_from(packet, offset)
            if fragment >> 3:  # not the first: what it names may be one more extension header, and is not in here
                known = protocol not in EXTENSIONS and protocol != FRAGMENT_HEADER
                return (protocol if known else OPAQUE), OPAQUE
            offset += 8
        elif protocol in EXTENSIONS:
            if offset + 2 > total:
                return OPAQUE, OPAQUE
            protocol, length = _EXTENSION.unpack_from(packet, offset)
            offset += (length + 1) * 8
        else:
            return protocol, _ports(packet, protocol, offset, total)
    return OPAQUE, OPAQUE


def _ports(packet: bytes, protocol: int, offset: int, total: int) -> int:
    """Ports, or what stands in their place, of the transport header at ``offset``."""
    if protocol in PROTOCOLS_WITH_PORTS and offset + 4 <= total:
        ports: int = _PORTS.unpack_from(packet, offset)[0]
        return ports
    if protocol in PROTOCOLS_WITH_TYPE:
        kind, code = (offset + 2, None) if protocol == MOBILITY else (offset, offset + 1)
        if max(kind, code or 0) < total:
            return (packet[kind] << 8 | (0 if code is None else packet[code])) * 0x1_0001
    return OPAQUE
