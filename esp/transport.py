"""Transport mode: what an IP packet between two hosts carries is the payload (RFC 4301 §4.1, RFC 4303 §3.1.1).

The IP header stays outside. Here that is one of the kernel's making: the datagram leaves through a socket, and of the
host's own header nothing but the traffic class goes along. So what would have to stand outside with it (IPv4 options,
hop-by-hop options, a routing header) cannot be sent, and a packet that has it is dropped rather than changed.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from esp.checksum import complement, corrected, ones_sum
from esp.errors import DropReason, HeaderOutside, NotWhole
from esp.inner import Flow, parse_inner
from esp.policy import address_interval
from esp.wire import NO_NEXT_HEADER

if TYPE_CHECKING:
    from esp.policy import Selector

# RFC 791 §3.1: version and IHL, TOS, total length, ID, flags and fragment offset, TTL, protocol, checksum.
_IPV4 = struct.Struct("!BBHHHBBH")
_FRAGMENT = 0x3FFF  # offset and MF
_DONT_FRAGMENT = 0x4000
# RFC 8200 §3: version, traffic class and flow label, payload length, next header, hop limit.
_IPV6 = struct.Struct("!IHBB")
_LONGEST = 0xFFFF  # octets of IPv4, of IPv6 behind its header

_HOP_BY_HOP, _ROUTING, _FRAGMENT_HEADER, _DESTINATION_OPTIONS = 0, 43, 44, 60
# What stands in front of ESP in IPv6 (RFC 4303 §3.1.1). Destination options can stand behind, and do here.
_OUTSIDE = frozenset({_HOP_BY_HOP, _ROUTING})

# The number that hosts start with (RFC 1700, "default TTL"). The outer one is not authentic, and whoever lowers it for
# each hop has done so; the packet has arrived.
_TTL = 64


class Transport:
    """What an SA in transport mode does to packets before they are sealed and after they are opened.

    Args:
        selector: between two hosts. What arrives has their addresses, whatever stands in the outer header: that is not
            authentic, and a NAT may have changed it (RFC 3948 §3.3).
    """

    __slots__ = ("_addresses", "_sum", "_version")

    def __init__(self, selector: Selector) -> None:
        self._version = selector.version
        hosts = (address_interval(one)[0] for one in (selector.remote, selector.local))
        self._addresses = b"".join(host.to_bytes(4 if selector.version == 4 else 16) for host in hosts)
        self._sum = ones_sum(self._addresses)

    def wrap(self, packet: bytes) -> tuple[bytes, int, int]:
        """Payload, next header and outer traffic class of ``packet``, an IP packet as the SPD has let it pass.

        Raises:
            NotWhole: a fragment. ESP in transport mode is for whole datagrams (RFC 4303 §3.3.4).
            HeaderOutside: it has options or extension headers that no socket of ours would put in front of ESP.
        """
        if packet[0] >> 4 == 4:
            if _FRAGMENT & int.from_bytes(packet[6:8]):
                raise NotWhole
            if packet[0] != 0x45:
                raise HeaderOutside
            return packet[20:], packet[9], packet[1]
        protocol, _ = _upper(packet[6], packet, 40)
        if protocol == _FRAGMENT_HEADER:
            raise NotWhole
        if protocol in _OUTSIDE:
            raise HeaderOutside
        return packet[40:], packet[6], (packet[0] & 0x0F) << 4 | packet[1] >> 4

    def unwrap(self, payload: bytes, next_header: int, traffic_class: int) -> tuple[bytes, Flow] | DropReason:
        """The IP packet that ``payload``, which is authentic, came in, made anew, and its flow.

        Args:
            payload: without ESP's padding.
            next_header: of the ESP trailer.
            traffic_class: of the outer header, which is the only one there was.
        """
        if next_header == NO_NEXT_HEADER:
            return DropReason.DUMMY
        protocol, offset = next_header, 0
        if self._version == 6:
            protocol, offset = _upper(next_header, payload, 0)
        if protocol in _OUTSIDE or protocol == _FRAGMENT_HEADER:
            return DropReason.BAD_NEXT_HEADER
        segment = payload[offset:]
        fixed = corrected(segment, protocol, self._sum)
        if fixed is not segment:
            payload = payload[:offset] + fixed
        header = self._header(len(payload), next_header, traffic_class)
        inner = None if header is None else parse_inner(header + payload)
        if header is None or inner is None:
            return DropReason.NOT_IP
        return header + payload, inner[1]

    def _header(self, octets: int, protocol: int, traffic_class: int) -> bytes | None:
        """For a payload of so many octets; None where that is more than IP carries."""
        if self._version == 6:
            fixed = 6 << 28 | traffic_class << 20
            return _IPV6.pack(fixed, octets, protocol, _TTL) + self._addresses if octets <= _LONGEST else None
        total = 20 + octets
        if total > _LONGEST:
            return None
        # Whole and at its end, so that it needs no identification (RFC 6864 §4.1).
        fields = (0x45, traffic_class, total, 0, _DONT_FRAGMENT, _TTL, protocol)
        checksum = complement(ones_sum(_IPV4.pack(*fields, 0)) + self._sum)
        return _IPV4.pack(*fields, checksum) + self._addresses


def _upper(protocol: int, octets: bytes, offset: int) -> tuple[int, int]:
    """What is behind destination options, which begin at ``offset`` if ``protocol`` says so, and where."""
    while protocol == _DESTINATION_OPTIONS and offset + 2 <= len(octets):
        protocol, length = octets[offset], octets[offset + 1]
        offset += (length + 1) * 8
    return protocol, offset
