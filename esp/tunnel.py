"""Tunnel mode: a whole IP packet is the payload (RFC 4301 §5.1.2, RFC 4303 §3.1.2).

Of the inner header nothing but DSCP and ECN is ever changed here. Its TTL is the business of whoever forwards it: the
host's own stack, before the packet enters the TUN and after it has left it (RFC 4301 §5.1.2.1, note 2).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from esp.errors import DropReason
from esp.headers import Ecn, HeaderRules
from esp.inner import Flow, parse_inner
from esp.wire import IPV4_IN_ESP, IPV6_IN_ESP, NO_NEXT_HEADER

if TYPE_CHECKING:
    from collections.abc import MutableMapping

# The ECN field (RFC 3168 §5) is the low two bits of the traffic class.
NOT_ECT, ECT1, ECT0, CE = range(4)
ECN_FIELD = 0b11
_ECN_NAMES = {NOT_ECT: "not_ect", ECT1: "ect1", ECT0: "ect0", CE: "ce"}

# RFC 6040 §4.2, figure 4: the ECN field of a packet that leaves the tunnel, by the inner one (row) and the outer one
# (column). None: it is dropped, for its transport takes the loss of packets, and nothing else, for congestion.
_EGRESS: dict[int, dict[int, int | None]] = {
    NOT_ECT: {NOT_ECT: NOT_ECT, ECT0: NOT_ECT, ECT1: NOT_ECT, CE: None},
    ECT0: {NOT_ECT: ECT0, ECT0: ECT0, ECT1: ECT1, CE: CE},
    ECT1: {NOT_ECT: ECT1, ECT0: ECT1, ECT1: ECT1, CE: CE},
    CE: {NOT_ECT: CE, ECT0: CE, ECT1: CE, CE: CE},
}
# Those that no ingress and no path should make, "(!!!)" and "(!)" in the figure: counted.
_UNUSED = {(NOT_ECT, ECT0), (NOT_ECT, ECT1), (NOT_ECT, CE), (ECT1, ECT0), (CE, ECT1)}

# The same for one look at a packet, by ``inner << 2 | outer``.
_PAIRS = [(inner, outer) for inner in range(4) for outer in range(4)]
_LEAVES = tuple(_EGRESS[inner][outer] for inner, outer in _PAIRS)
UNUSED_NAMES = tuple(
    f"{_ECN_NAMES[inner]}_in_{_ECN_NAMES[outer]}" if (inner, outer) in _UNUSED else "" for inner, outer in _PAIRS
)

# What a payload without an IP packet of the version that its next header says is.
_REFUSALS = {
    IPV4_IN_ESP: DropReason.NOT_IP,
    IPV6_IN_ESP: DropReason.NOT_IP,
    NO_NEXT_HEADER: DropReason.DUMMY,
}


@lru_cache(maxsize=64)  # ours: an operator has a few rules, and thousands of SAs
def outer_traffic_classes(ecn: Ecn, dscp: bytes) -> bytes:
    """The outer traffic class of each of 256 inner ones (RFC 6040 §4.1, RFC 4301 §5.1.2.1)."""
    kept = ECN_FIELD if ecn is Ecn.NORMAL else 0
    return bytes(dscp[inner >> 2] << 2 | inner & kept for inner in range(256))


class Tunnel:
    """What an SA in tunnel mode does to packets before they are sealed and after they are opened.

    Args:
        rules: for the headers.
        unused: where combinations of inner and outer ECN fields are counted that should not be (RFC 6040 §4.2), by
            such names as ``not_ect_in_ce``.
    """

    __slots__ = ("_inward", "_outer", "_unused")

    def __init__(self, rules: HeaderRules, unused: MutableMapping[str, int]) -> None:
        self._outer = outer_traffic_classes(rules.ecn, rules.dscp)
        self._inward = rules.dscp_inward
        self._unused = unused

    def wrap(self, packet: bytes) -> tuple[bytes, int, int]:
        """Payload, next header and outer traffic class of ``packet``, an IP packet as the SPD has let it pass."""
        if packet[0] >> 4 == 4:
            return packet, IPV4_IN_ESP, self._outer[packet[1]]
        return packet, IPV6_IN_ESP, self._outer[(packet[0] & 0x0F) << 4 | packet[1] >> 4]

    def unwrap(self, payload: bytes, next_header: int, traffic_class: int) -> tuple[bytes, Flow] | DropReason:
        """The IP packet in ``payload``, which is authentic, and its flow (RFC 4303 §2.4-2.7).

        Args:
            payload: without ESP's padding; what follows the IP packet is TFC padding (RFC 4303 §2.7).
            next_header: of the ESP trailer.
            traffic_class: of the outer header.
        """
        inner = parse_inner(payload)
        if inner is None or next_header != (IPV4_IN_ESP if payload[0] >> 4 == 4 else IPV6_IN_ESP):
            return _REFUSALS.get(next_header, DropReason.BAD_NEXT_HEADER)
        total, flow = inner
        packet = payload if total == len(payload) else payload[:total]
        if traffic_class & ECN_FIELD or self._inward:  # without a mark outside, the inner ECN field stays what it is
            marked = self._mark(packet, traffic_class)
            return (marked, flow) if isinstance(marked, bytes) else marked
        return packet, flow

    def _mark(self, packet: bytes, outer: int) -> bytes | DropReason:
        """``packet`` with what the path did to the ``outer`` traffic class (RFC 6040 §4.2)."""
        inner = traffic_class_of(packet)
        pair = (inner & ECN_FIELD) << 2 | outer & ECN_FIELD
        if UNUSED_NAMES[pair]:
            self._unused[UNUSED_NAMES[pair]] += 1
        ecn = _LEAVES[pair]
        if ecn is None:
            return DropReason.CE_ON_NOT_ECT
        return with_traffic_class(packet, (outer if self._inward else inner) & ~ECN_FIELD | ecn)


def traffic_class_of(packet: bytes) -> int:
    """DSCP and ECN of an IPv4 or IPv6 packet (RFC 2474 §3, RFC 3168 §5)."""
    return packet[1] if packet[0] >> 4 == 4 else (packet[0] & 0x0F) << 4 | packet[1] >> 4


def with_traffic_class(packet: bytes, traffic_class: int) -> bytes:
    """``packet`` with another DSCP and ECN; an IPv4 header checksum that was wrong is wrong by as much afterwards."""
    if traffic_class_of(packet) == traffic_class:
        return packet
    if packet[0] >> 4 == 6:
        return bytes((0x60 | traffic_class >> 4, (traffic_class & 0x0F) << 4 | packet[1] & 0x0F)) + packet[2:]
    # RFC 1624 §3, equation 3: HC' = ~(~HC + ~m + m'), where the word m is version, IHL and TOS.
    word = int.from_bytes(packet[:2])
    total = (int.from_bytes(packet[10:12]) ^ 0xFFFF) + (word ^ 0xFFFF) + (word & 0xFF00 | traffic_class)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return packet[:1] + bytes((traffic_class,)) + packet[2:10] + (total ^ 0xFFFF).to_bytes(2) + packet[12:]
