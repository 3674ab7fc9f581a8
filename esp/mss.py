"""The maximum segment size in a SYN, lowered to what a tunnel carries (RFC 9293 §3.7.1, RFC 6691).

A host that sends by it never needs the ICMP errors that firewalls between it and the tunnel throw away.
"""

from __future__ import annotations

from esp.checksum import complement

_SYN = 0x02
_OFFSET = 0x1FFF  # of an IPv4 fragment (RFC 791 §3.1)
_FLAGS, _CHECKSUM, _TCP_HEADER = 13, 16, 20  # octets of the TCP header (RFC 9293 §3.1)
_END, _NO_OPERATION, _MSS, _MSS_OCTETS = 0, 1, 2, 4


def clamp(packet: bytes, mtu: int) -> bytes:
    """``packet`` with its MSS option lowered to ``mtu`` less both headers; the very same octets where nothing is to do.

    RFC 6691: the option does not count options, IP's or TCP's; who sends some sends less data with them.

    Args:
        packet: well-formed IPv4 or IPv6, TCP right behind the IP header and its options. Fragments that are not the
            first are left as they are: what stands there is data, whatever it looks like.
        mtu: octets of the largest packet.
    """
    header = (packet[0] & 0x0F) * 4 if packet[0] >> 4 == 4 else 40
    if len(packet) < header + _TCP_HEADER or not packet[header + _FLAGS] & _SYN:
        return packet
    if packet[0] >> 4 == 4 and _OFFSET & int.from_bytes(packet[6:8]):
        return packet
    limit = mtu - (20 if packet[0] >> 4 == 4 else 40) - _TCP_HEADER
    position = _find(packet, header)
    if position is None or limit <= 0:
        return packet
    offered = int.from_bytes(packet[position : position + 2])
    if offered <= limit:
        return packet
    lowered = packet[:position] + limit.to_bytes(2) + packet[position + 2 :]
    # RFC 1624 §3. Where the option begins at an odd octet, its value stands across two words: take them both.
    begin = position - (position - header) % 2
    before, after = (_words(each[begin : begin + 4]) for each in (packet, lowered))
    field = header + _CHECKSUM
    checksum = complement((int.from_bytes(packet[field : field + 2]) ^ 0xFFFF) - before + after)
    return lowered[:field] + checksum.to_bytes(2) + lowered[field + 2 :]


def _words(octets: bytes) -> int:
    return int.from_bytes(octets[:2]) + int.from_bytes(octets[2:4])


def _find(packet: bytes, header: int) -> int | None:
    """Where the value of the MSS option stands."""
    position = header + _TCP_HEADER
    end = min(header + (packet[header + 12] >> 4) * 4, len(packet))
    while position < end and packet[position] != _END:
        if packet[position] == _NO_OPERATION:
            position += 1
            continue
        octets = packet[position + 1] if position + 1 < end else 0
        if octets < 2 or position + octets > end:
            return None
        if packet[position] == _MSS:
            return position + 2 if octets == _MSS_OCTETS else None
        position += octets
    return None
