"""A constant rate: payloads of one size at equal intervals, whatever the traffic inside does (RFC 9347 §2.4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esp.aggfrag import Aggregator

if TYPE_CHECKING:
    from esp.sa import Aggregation

# Ours. A loop that was late makes up for these many payloads at once; beyond them the time is lost, because a burst is
# what a constant rate is not, and the path was not asked whether it takes one. A millisecond of 30,000 a second.
MOST_AT_ONCE = 32
# Ours. What waits longer than this at the constant rate is better lost: TCP then finds the rate that there is.
LONGEST_WAIT = 0.1
LEAST_ROOM = 65_536  # octets; one packet of any size always finds room


class ConstantRate:
    """What one SA sends and when.

    Args:
        aggregation: size and rate.
        now: seconds; the first payload is due one interval later.

    Attributes:
        at: when the next payload is due.
    """

    __slots__ = ("_aggregator", "_interval", "_octets", "at")

    def __init__(self, aggregation: Aggregation, now: float) -> None:
        self._interval = 1 / aggregation.per_second
        self._octets = aggregation.octets
        room = int(aggregation.octets * aggregation.per_second * LONGEST_WAIT)
        self._aggregator = Aggregator(aggregation.octets, max(room, LEAST_ROOM))
        self.at = now + self._interval

    @property
    def octets(self) -> int:
        """Of each payload from now on."""
        return self._aggregator.octets

    def narrow(self, octets: int) -> None:
        """Payloads are to have no more than ``octets``, for the path carries no more (RFC 9347 §4.2)."""
        self._aggregator.octets = min(self._octets, octets)

    def put(self, packet: bytes) -> bool:
        """Let ``packet`` wait for its turn, unless too much waits already; the caller counts it then."""
        return self._aggregator.put(packet)

    def __len__(self) -> int:
        """Packets that wait."""
        return len(self._aggregator)

    def take_all(self) -> list[bytes]:
        """The packets that wait, for another SA."""
        return self._aggregator.take_all()

    def due(self, now: float) -> int:
        """How many payloads are due by now, :data:`MOST_AT_ONCE` at most; said once."""
        if now < self.at:
            return 0
        missed = int((now - self.at) / self._interval) + 1
        self.at += missed * self._interval
        return min(missed, MOST_AT_ONCE)

    def next_payload(self) -> bytes:
        """One of them, of what waits."""
        return self._aggregator.next_payload()

    def take_gone(self) -> tuple[int, int]:
        """Packets that have gone into payloads to their last octet since the last call, and their octets."""
        return self._aggregator.take_gone()
