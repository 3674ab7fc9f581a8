"""Making packets fit the path, or having their senders do it (RFC 4301 §7, §8.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from esp.fragmentation import fragment, may_fragment
from esp.inner import TCP
from esp.mss import clamp
from esp.mtu import LARGEST_PATH, SMALLEST_PATH
from esp.sa import Mode
from esp.too_big import packet_too_big

if TYPE_CHECKING:
    from collections.abc import Sequence

# Ours. ICMP errors that wait to be taken; a batch has as many packets.
MAX_REPLIES = 64

# For one look at a packet: where the flags of a TCP header stand behind an IP header that starts with this octet, and
# flags with SYN (RFC 9293 §3.1). Other protocols have other things there; :meth:`Fit.clamped` looks whose it is.
# A slice, for a packet may end before them: made once, the look takes 70 ns.
_FLAGS_AT = ((first & 0x0F) * 4 + 13 if first >> 4 == 4 else 53 for first in range(256))
FLAGS = tuple(slice(at, at + 1) for at in _FLAGS_AT)
SYN = frozenset(bytes([flags]) for flags in range(256) if flags & 0x02)


@dataclass(frozen=True, slots=True)
class Inside:
    """The side that packets are protected for.

    Args:
        mtu: octets of the largest packet that it takes and gives.
        addresses: of this host there, packed (4 and 16 octets), for the errors that it sends; of each family the first.
        clamp_mss: lower the MSS of every SYN, either way, to what goes through (RFC 9293 §3.7.1).
    """

    mtu: int = LARGEST_PATH
    addresses: tuple[bytes, ...] = ()
    clamp_mss: bool = True

    def address(self, packet: bytes) -> bytes | None:
        """The first of its addresses of the IP version of ``packet``; None where that is this host's own: it would not
        believe that an error from one of its addresses had come in by the TUN (RFC 1812 §5.3.8, "martian").
        """
        octets, source = (4, packet[12:16]) if packet[0] >> 4 == 4 else (16, packet[8:24])
        if source in self.addresses:
            return None
        return next((each for each in self.addresses if len(each) == octets), None)


class Fit:
    """What is done about sizes, for the traffic of all SAs."""

    __slots__ = ("_inside", "_replies")

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        self._replies: list[bytes] = []

    def clamped(self, packet: bytes, largest: int) -> bytes:
        """``packet``; a SYN with the MSS that ``largest`` octets, and the inside, leave room for."""
        if packet[9 if packet[0] >> 4 == 4 else 6] != TCP or not self._inside.clamp_mss:
            return packet
        return clamp(packet, min(largest, self._inside.mtu))

    def cut(self, packet: bytes, largest: int, mode: Mode, *, whole_only: bool = False) -> Sequence[bytes]:
        """What is to be sealed of a ``packet`` longer than ``largest`` octets; nothing where its sender has to do it.

        He is told so (:meth:`take_replies`). Fragments of a packet for a port all go by the SA that the packet was
        for: it is the packet that the SPD decides on (RFC 4301 §7). But where the peer takes ``whole_only`` (§7.3), the
        packet is, and is fragmented outside.
        """
        if packet[0] >> 4 == 6:
            # RFC 8200 §5, RFC 4301 §8.2.1: 1,280 octets go through every link of IPv6, this one too. What is sealed of
            # them is fragmented outside.
            largest = max(largest, SMALLEST_PATH[6])
            if len(packet) <= largest:
                return (packet,)
        elif may_fragment(packet) and mode is Mode.TUNNEL:
            return (packet,) if whole_only else fragment(packet, largest)
        reply = packet_too_big(packet, largest, self._inside.address(packet))
        if reply is not None and len(self._replies) < MAX_REPLIES:
            self._replies.append(reply)
        return ()

    def take_replies(self) -> list[bytes]:
        """ICMP errors for the inside since the last call, :data:`MAX_REPLIES` at most."""
        replies, self._replies = self._replies, []
        return replies
