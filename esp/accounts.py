"""What an engine has carried and what it has dropped since it was made."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from esp.statistics import Totals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from esp.errors import DropReason
    from esp.inbound import InboundSa
    from esp.outbound import OutboundSa


class Accounts:
    """Octets are those of inner packets.

    Attributes:
        drops: packets, by reason.
        packets_out, octets_out: that were sealed.
        packets_in, octets_in: that were opened, and let pass.
    """

    __slots__ = ("drops", "octets_in", "octets_out", "packets_in", "packets_out")

    def __init__(self) -> None:
        self.drops: defaultdict[DropReason, int] = defaultdict(int)
        self.packets_out = self.octets_out = self.packets_in = self.octets_in = 0

    def add(self, packets_out: int, octets_out: int, packets_in: int = 0, octets_in: int = 0) -> None:
        """Those have been sealed, and those opened."""
        self.packets_out += packets_out
        self.octets_out += octets_out
        self.packets_in += packets_in
        self.octets_in += octets_in

    def opened(self, packets: Sequence[bytes]) -> None:
        """These pass."""
        self.packets_in += len(packets)
        self.octets_in += sum(map(len, packets))

    def drop(self, reason: DropReason, sa: InboundSa | OutboundSa | None = None) -> None:
        """One packet, of ``sa`` if it is known of which."""
        self.drops[reason] += 1
        if sa is not None:
            sa.drops[reason] += 1

    def count(self, reason: DropReason, packets: int) -> None:
        """As many have been dropped; none leaves no trace."""
        if packets:
            self.drops[reason] += packets

    def totals(self, events_lost: int, unused_ecn: Mapping[str, int]) -> Totals:
        """As they are now, with what others have counted; a copy."""
        return Totals(
            packets_out=self.packets_out,
            octets_out=self.octets_out,
            packets_in=self.packets_in,
            octets_in=self.octets_in,
            drops=dict(self.drops),
            events_lost=events_lost,
            unused_ecn=dict(unused_ecn),
        )
