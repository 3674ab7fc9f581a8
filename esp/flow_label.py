"""Flow labels of outer IPv6 headers: one for each flow inside, so that paths can be shared out (RFC 6437, RFC 6438)."""

from __future__ import annotations

from hashlib import blake2s
from typing import TYPE_CHECKING

from esp.inner import parse_inner

if TYPE_CHECKING:
    from esp.inner import Flow

# RFC 8200 §6: 20 bits, and zero is no label.
_LABELS = (1 << 20) - 1
# Ours. As many flows as an SA remembers; one that comes again is hashed again, which costs 2 µs.
MAX_FLOWS = 4096


class FlowLabels:
    """The labels of one SA.

    Args:
        key: unpredictable octets. Without them whoever sees a label could try flows until one fits (RFC 6437 §6.1).
    """

    __slots__ = ("_key", "_known")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._known: dict[Flow, int] = {}

    def label_of(self, packet: bytes) -> int:
        """1 to 2^20-1, the same for all packets of a flow (RFC 6438 §3); fragments without ports are one of their own.

        Args:
            packet: an IP packet as the SPD has let it pass.
        """
        inner = parse_inner(packet)
        flow = (0, b"", 0) if inner is None else inner[1]
        return self._known.get(flow) or self._hashed(flow)

    def _hashed(self, flow: Flow) -> int:
        protocol, addresses, ports = flow
        fields = protocol.to_bytes(2, signed=True) + ports.to_bytes(5, signed=True) + addresses
        label = 1 + int.from_bytes(blake2s(fields, key=self._key, digest_size=8).digest()) % _LABELS
        if len(self._known) >= MAX_FLOWS:
            self._known.clear()
        self._known[flow] = label
        return label
