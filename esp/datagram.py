"""What passes between an engine and its link: ESP packets, where they go to or come from, and their outer fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from esp.sa import Endpoint

ESP_PROTOCOL = 50  # RFC 4303 §2


class Outgoing(NamedTuple):
    """A datagram for the link.

    Args:
        datagram: what goes behind the UDP or the outer IP header.
        remote: where it goes.
        traffic_class: DSCP and ECN of the outer header (RFC 2474, RFC 3168).
        dont_fragment: DF of an outer IPv4 header; None leaves it to the kernel's path MTU discovery.
        flow_label: of an outer IPv6 header, 20 bits; 0 leaves it to the kernel.
        protocol: of the outer IP header, where there is no UDP. With AH (51) ``datagram`` is the whole packet, outer
            header included, for :func:`esp.ah.dressed`.
    """

    datagram: bytes
    remote: Endpoint
    traffic_class: int = 0
    dont_fragment: bool | None = None
    flow_label: int = 0
    protocol: int = ESP_PROTOCOL


class Incoming(NamedTuple):
    """A datagram from the link.

    Args:
        datagram: what was behind the UDP or the outer IP header; of AH what :func:`esp.ah.presented` makes of it.
        source: where it came from. Not authenticated, as everything of the outer header.
        traffic_class: DSCP and ECN of the outer header, 0 where the link was not told.
    """

    datagram: bytes
    source: Endpoint
    traffic_class: int = 0
