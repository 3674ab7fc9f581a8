"""Tunnel mode: a whole IP packet is the payload (RFC 4301 §5.1.2, RFC 4303 §3.1.2)."""

from __future__ import annotations

from esp.errors import DropReason
from esp.inner import Flow, parse_inner
from esp.wire import IPV4_IN_ESP, IPV6_IN_ESP, NO_NEXT_HEADER


class Tunnel:
    """What an SA in tunnel mode does to packets before they are sealed and after they are opened."""

    __slots__ = ()

    def wrap(self, packet: bytes) -> tuple[bytes, int, int]:
        """Payload, next header and outer traffic class of ``packet``, an IP packet as the SPD has let it pass."""
        return packet, IPV4_IN_ESP if packet[0] >> 4 == 4 else IPV6_IN_ESP, 0

    def unwrap(self, payload: bytes, next_header: int, traffic_class: int) -> tuple[bytes, Flow] | DropReason:
        """The IP packet in ``payload``, which is authentic, and its flow (RFC 4303 §2.4-2.7).

        Args:
            payload: without ESP's padding; what follows the IP packet is TFC padding (RFC 4303 §2.7).
            next_header: of the ESP trailer.
            traffic_class: of the outer header.
        """
        if next_header not in (IPV4_IN_ESP, IPV6_IN_ESP):
            return DropReason.DUMMY if next_header == NO_NEXT_HEADER else DropReason.BAD_NEXT_HEADER
        inner = parse_inner(payload)
        if inner is None or (payload[0] >> 4 == 4) != (next_header == IPV4_IN_ESP):
            return DropReason.NOT_IP
        total, flow = inner
        return payload if total == len(payload) else payload[:total], flow
