"""A constant rate: payloads of one size at equal intervals, whatever the traffic inside does (RFC 9347 §2.4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esp.aggfrag import Aggregator
from esp.errors import PaceQueueFull

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

    __slots__ = ("_aggregator", "_interval", "at")

    def __init__(self, aggregation: Aggregation, now: float) -> None:
        self._interval = 1 / aggregation.per_second
        room = int(aggregation.octets * aggregation.per_second * LONGEST_WAIT)
        self._aggregator = Aggregator(aggregation.octets, max(room, LEAST_ROOM))
        self.at = now + self._interval

    def put(self, packet: bytes) -> None:
        """Let ``packet`` wait for its turn.

        Raises:
            PaceQueueFull: too much waits already.
        """
        if not self._aggregator.put(packet):
            raise PaceQueueFull

    def take_all(self) -> list[bytes]:
        """The packets that wait, for another SA."""
        return self._aggregator.take_all()

    def payloads(self, now: float) -> list[bytes]:
        """What is due by now, :data:`MOST_AT_ONCE` payloads at most."""
        if now < self.at:
            return []
        missed = int((now - self.at) / self._interval) + 1
        self.at += missed * self._interval
        return [self._aggregator.next_payload() for _ in range(min(missed, MOST_AT_ONCE))]
