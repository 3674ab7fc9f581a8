"""ICMP to the inside: a packet is too big for the tunnel (RFC 1191 §4, RFC 4443 §3.2, RFC 4301 §8.2.1)."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

from esp.checksum import ICMPV6, complement, ones_sum

ICMP = 1
_UNREACHABLE, _FRAGMENTATION_NEEDED = 3, 4  # type and code (RFC 792)
_PACKET_TOO_BIG = 2  # type; code 0 (RFC 4443 §3.2)
# type 1 | code 1 | checksum 2 | unused 2, next-hop MTU 2 (RFC 1191 §4).
_ICMP = struct.Struct("!BBHHH")
# type 1 | code 1 | checksum 2 | MTU 4 (RFC 4443 §3.2).
_ICMPV6 = struct.Struct("!BBHI")
_IPV4 = struct.Struct("!BBHHHBBH")
_IPV6 = struct.Struct("!IHBB")
_INTERNETWORK_CONTROL = 0xC0  # precedence of what routers say (RFC 1812 §4.3.2.5)
_LIFE = 64

# An error tells as much of the packet as fits these (RFC 1812 §4.3.2.3, RFC 4443 §2.4 c).
_LONGEST = {4: 576, 6: 1280}
# ICMP for which there is an answer, or that is one: nothing else may be answered by an error (RFC 1122 §3.2.2).
_QUERIES = frozenset({0, 8, 13, 14})
_ERRORS_END = 128  # ICMPv6 types below it are errors (RFC 4443 §2.1)
_REDIRECT = 137  # RFC 4443 §2.4 e.2
_HOP_BY_HOP = 0
_BROADCAST = IPv4Address("255.255.255.255")


def packet_too_big(packet: bytes, mtu: int, source: bytes | None = None) -> bytes | None:
    """The ICMP error that tells the sender of ``packet`` to send no more than ``mtu`` octets.

    None where no error may be sent: about an ICMP error, about a fragment that is not the first, to or from an address
    that is not one host's (RFC 1122 §3.2.2, RFC 4443 §2.4 e).

    Args:
        packet: well-formed IPv4 or IPv6.
        mtu: octets, as for :func:`esp.mtu.largest_inner`.
        source: the address it comes from, packed; None takes the packet's destination, which is where it would have
            gone: hosts match what is quoted, not who quotes it.
    """
    return (_ipv4 if packet[0] >> 4 == 4 else _ipv6)(packet, mtu, source)


def _ipv4(packet: bytes, mtu: int, source: bytes | None) -> bytes | None:
    header_octets = (packet[0] & 0x0F) * 4
    fragment = int.from_bytes(packet[6:8]) & 0x1FFF
    is_error = packet[9] == ICMP and (len(packet) <= header_octets or packet[header_octets] not in _QUERIES)
    if fragment or is_error or not _one_ipv4_host(packet[12:16]) or not _one_ipv4_host(packet[16:20]):
        return None
    quoted = packet[: _LONGEST[4] - 20 - _ICMP.size]
    checksum = complement(ones_sum(_ICMP.pack(_UNREACHABLE, _FRAGMENTATION_NEEDED, 0, 0, mtu) + quoted))
    message = _ICMP.pack(_UNREACHABLE, _FRAGMENTATION_NEEDED, checksum, 0, mtu) + quoted
    total, addresses = 20 + len(message), (source or packet[16:20]) + packet[12:16]
    bare = _IPV4.pack(0x45, _INTERNETWORK_CONTROL, total, 0, 0, _LIFE, ICMP, 0) + addresses
    header = _IPV4.pack(0x45, _INTERNETWORK_CONTROL, total, 0, 0, _LIFE, ICMP, complement(ones_sum(bare))) + addresses
    return header + message


def _one_ipv4_host(address: bytes) -> bool:
    found = IPv4Address(address)
    return not (found.is_multicast or found.is_unspecified or found.is_loopback or found == _BROADCAST)


def _ipv6(packet: bytes, mtu: int, source: bytes | None) -> bytes | None:
    sender, receiver = packet[8:24], packet[24:40]
    if not _one_ipv6_host(sender) or _is_error(packet):
        return None
    if source is None:
        # Packet Too Big is sent about a multicast packet too (RFC 4443 §2.4 e.3), but not from a group.
        if IPv6Address(receiver).is_multicast:
            return None
        source = receiver
    quoted = packet[: _LONGEST[6] - 40 - _ICMPV6.size]
    bare = _ICMPV6.pack(_PACKET_TOO_BIG, 0, 0, mtu) + quoted
    addresses = source + sender
    # The pseudo-header (RFC 8200 §8.1): addresses, length, next header.
    checksum = complement(ones_sum(addresses) + len(bare) + ICMPV6 + ones_sum(bare))
    message = _ICMPV6.pack(_PACKET_TOO_BIG, 0, checksum, mtu) + quoted
    return _IPV6.pack(6 << 28, len(message), ICMPV6, _LIFE) + addresses + message


def _one_ipv6_host(address: bytes) -> bool:
    found = IPv6Address(address)
    return not (found.is_multicast or found.is_unspecified or found.is_loopback)


def _is_error(packet: bytes) -> bool:
    """An ICMPv6 error or redirect, or what cannot be told from one: a fragment that is not the first."""
    following, position = packet[6], 40
    while following in (_HOP_BY_HOP, 43, 60, 44) and position + 8 <= len(packet):
        if following == 44:
            if int.from_bytes(packet[position + 2 : position + 4]) >> 3:
                return True
            following, position = packet[position], position + 8
        else:
            following, position = packet[position], position + 8 * (packet[position + 1] + 1)
    if following != ICMPV6:
        return False
    return position >= len(packet) or packet[position] < _ERRORS_END or packet[position] == _REDIRECT
