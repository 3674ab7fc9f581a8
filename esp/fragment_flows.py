"""Stateful fragment checking (RFC 4301 §7.3, §7.4): whose ports a fragment without ports has.

The first fragment of a packet shows them, and those that follow it are of its flow. One that comes before the first is
of nobody's, and so is one that would lie over it: no host sends such, and whoever does has another packet in mind
(RFC 1858, RFC 5722).
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from esp.inner import EXTENSIONS, FRAGMENT_HEADER, MAX_EXTENSIONS, OPAQUE

if TYPE_CHECKING:
    from esp.inner import Flow

# Ours. What hosts wait for the rest of a packet (RFC 1122 §3.3.2 has 60 to 120 s, Linux 30); then the ID may be another
# packet's.
KEPT_SECONDS = 30.0
# Ours. Packets of which fragments are on their way: a host that sends 9,000 octets at 1 Gbit/s has 14 each millisecond.
# An entry costs 300 octets.
MAX_PACKETS = 1024

# RFC 791 §3.1: identification, flags and offset; RFC 8200 §4.5: next header, reserved, offset and M, identification.
_IPV4 = struct.Struct("!2sH")
_IPV6 = struct.Struct("!BxH4s")
_IPV4_OFFSET, _IPV4_MORE = 0x1FFF, 0x2000
_UNIT = 8


class Fragment(NamedTuple):
    """One fragment of a packet.

    Args:
        packet: what it has in common with the packet's other fragments, beside addresses.
        offset: octets before it.
        octets: of it.
        more: it is not the last.
    """

    packet: bytes
    offset: int
    octets: int
    more: bool


def read_fragment(packet: bytes) -> Fragment | None:
    """What fragment ``packet`` is, a well-formed IP packet; None for a whole one."""
    if packet[0] >> 4 == 4:
        identification, word = _IPV4.unpack_from(packet, 4)
        offset, more = (word & _IPV4_OFFSET) * _UNIT, bool(word & _IPV4_MORE)
        octets = int.from_bytes(packet[2:4]) - (packet[0] & 0x0F) * 4
        found = Fragment(identification + packet[9:10], offset, octets, more)
        return found if offset or more else None
    return _read_ipv6(packet)


def _read_ipv6(packet: bytes) -> Fragment | None:
    following, position = packet[6], 40
    for _ in range(MAX_EXTENSIONS + 1):
        if position + _IPV6.size > len(packet):
            return None
        if following == FRAGMENT_HEADER:
            _, word, identification = _IPV6.unpack_from(packet, position)
            octets = 40 + int.from_bytes(packet[4:6]) - position - _IPV6.size
            offset, more = word & 0xFFF8, bool(word & 1)
            # An atomic fragment is a whole packet (RFC 6946).
            return Fragment(identification, offset, octets, more) if offset or more else None
        if following not in EXTENSIONS:
            return None
        following, position = packet[position], position + (packet[position + 1] + 1) * _UNIT
    return None


def is_later_fragment(packet: bytes) -> bool:
    """Whether ``packet``, a well-formed IP packet, is a fragment but not the first of its packet."""
    if packet[0] >> 4 == 4:
        return bool(int.from_bytes(packet[6:8]) & _IPV4_OFFSET)
    fragment = _read_ipv6(packet)
    return fragment is not None and fragment.offset > 0


class FragmentFlows:
    """The flows of packets that pass one place in fragments."""

    __slots__ = ("_first",)

    def __init__(self) -> None:
        self._first: OrderedDict[tuple[bytes, bytes], tuple[Flow, int, float]] = OrderedDict()

    def flow_of(self, packet: bytes, flow: Flow, now: float) -> Flow:
        """The flow that ``packet`` is of: its own, or for a later fragment that of the packet's first one.

        Its own, without ports, where the first was not seen, or lies under it.

        Args:
            packet: well-formed.
            flow: as :func:`esp.inner.parse_inner` has it.
            now: seconds.
        """
        fragment = read_fragment(packet)
        if fragment is None:
            return flow
        key = flow[1], fragment.packet
        if not fragment.offset:
            self._keep(key, flow, fragment.octets, now)
            return flow
        first, end, until = self._first.get(key, (flow, 0, now))
        return first if now < until and fragment.offset >= end else flow

    def _keep(self, key: tuple[bytes, bytes], flow: Flow, end: int, now: float) -> None:
        self._first.pop(key, None)
        if flow[0] == OPAQUE or flow[2] == OPAQUE:
            return  # it hides its ports, as all of its packet does
        if len(self._first) >= MAX_PACKETS:
            self._first.popitem(last=False)
        self._first[key] = flow, end, now + KEPT_SECONDS
