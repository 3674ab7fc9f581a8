"""How large a packet may be so that its datagram fits the path (RFC 4301 §8.1, RFC 4303 §2, RFC 3948 §2.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esp.ah import ah_octets
from esp.sa import Encapsulation, Mode, SecurityProtocol
from esp.wire import ESP_HEADER

if TYPE_CHECKING:
    from esp.suite import Suite

# RFC 791 §3.1 without options, RFC 8200 §3 without extension headers: what our sockets send.
IP_HEADER_OCTETS = {4: 20, 6: 40}
UDP_HEADER_OCTETS = 8
_TRAILER_OCTETS = 2  # pad length and next header

# RFC 791 §3.1: every host takes a datagram of 576 octets, and no path is narrower today. RFC 8200 §5.
SMALLEST_PATH = {4: 576, 6: 1280}
LARGEST_PATH = 65_535


def largest_inner(
    suite: Suite,
    mode: Mode,
    encapsulation: Encapsulation,
    outer: int,
    path: int,
    protocol: SecurityProtocol = SecurityProtocol.ESP,
) -> int:
    """Octets of the largest inner packet whose datagram has no more than ``path`` octets.

    Args:
        suite: what seals it.
        mode: in transport mode the packet's own IP header, without options, is the outer one.
        encapsulation: whether there is a UDP header.
        outer: IP version of the outer header, 4 or 6.
        path: octets of the largest IP packet that the path carries.
        protocol: AH (RFC 4302) has a header, and neither padding nor UDP.
    """
    if protocol is SecurityProtocol.AH:
        return path - _ah_overhead(suite, mode, outer)
    room = path - _overhead(suite, encapsulation, outer)
    payload = room - room % suite.block_octets - _TRAILER_OCTETS
    return payload + (IP_HEADER_OCTETS[outer] if mode is Mode.TRANSPORT else 0)


def outer_octets(
    suite: Suite,
    mode: Mode,
    encapsulation: Encapsulation,
    outer: int,
    inner: int,
    protocol: SecurityProtocol = SecurityProtocol.ESP,
) -> int:
    """Octets of the IP packet that an inner packet of ``inner`` octets leaves in; arguments as above."""
    if protocol is SecurityProtocol.AH:
        return inner + _ah_overhead(suite, mode, outer)
    payload = inner - (IP_HEADER_OCTETS[outer] if mode is Mode.TRANSPORT else 0)
    text = payload + _TRAILER_OCTETS
    return _overhead(suite, encapsulation, outer) + text + -text % suite.block_octets


def _ah_overhead(suite: Suite, mode: Mode, outer: int) -> int:
    return (IP_HEADER_OCTETS[outer] if mode is Mode.TUNNEL else 0) + ah_octets(suite, outer)


def _overhead(suite: Suite, encapsulation: Encapsulation, outer: int) -> int:
    udp = UDP_HEADER_OCTETS if encapsulation is Encapsulation.UDP else 0
    return IP_HEADER_OCTETS[outer] + udp + ESP_HEADER.size + suite.iv_octets + suite.icv_octets
