"""One timer per exchange: truncated exponential back-off (RFC 4430 §9)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

# Ours. RFC 4430 §9 asks for back-off and names no figures. Half a second is above any sane round trip plus the
# responder's work and below what a person notices twice; where the round trip is known to be longer than half of it
# the first steps are left out, and the cycle is no longer for that. Eight seconds keeps a long outage from being
# probed in a burst; seven transmissions lose an exchange on a link that drops a quarter of all datagrams each way
# three times in a thousand, and end after 31.5 s, which is what the other implementation (1, 2, 4, 8, 16 s) takes too.
FIRST_INTERVAL = 0.5
LONGEST_INTERVAL = 8.0
TRANSMISSIONS = 7
# Ours. Two seconds are twice the round trip over a satellite and back on a bad day; more would make every lost datagram
# cost more than a longer path ever saves.
MOST_SKIPPED = 2
# Ours. Exchanges with a peer are hours apart, and each of these may have met a queue or a KDC's trip: the least counts.
SAMPLES = 8


@dataclass(frozen=True, slots=True)
class Retransmission:
    """Where an exchange is in its back-off.

    Args:
        sent: transmissions so far.
        skipped: how many of the first steps are left out.
    """

    sent: int = 1
    skipped: int = 0

    @property
    def interval(self) -> float:
        """Seconds to wait after the newest transmission."""
        return min(FIRST_INTERVAL * 2.0 ** (self.sent + self.skipped - 1), LONGEST_INTERVAL)

    @property
    def exhausted(self) -> bool:
        """Whether the newest transmission was the last."""
        return self.sent + self.skipped >= TRANSMISSIONS

    def next(self) -> Retransmission:
        """After one more transmission."""
        return Retransmission(self.sent + 1, self.skipped)


# Seconds from the first transmission to giving up: "its full retransmission timeout cycle" (RFC 4430 §9).
FULL_CYCLE = sum(Retransmission(n).interval for n in range(1, TRANSMISSIONS + 1))


class RoundTrip:
    """What is known of the round trip to a peer, for the timer to take into consideration (RFC 4430 §9).

    An AP-REP says which authenticator it answers, so that a retransmission does not spoil the measure.
    """

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=SAMPLES)

    def measured(self, seconds: float) -> None:
        """From a transmission to the REPLY that answers it."""
        self._samples.append(seconds)

    @property
    def skipped(self) -> int:
        """How many of the first steps to leave out, so that the first interval is twice the round trip."""
        if not self._samples:
            return 0
        wanted = 2 * min(self._samples)
        return next((n for n in range(MOST_SKIPPED) if FIRST_INTERVAL * 2.0**n >= wanted), MOST_SKIPPED)
