"""One timer per exchange: truncated exponential back-off (RFC 4430 §9)."""

from __future__ import annotations

from dataclasses import dataclass

# Ours. RFC 4430 §9 asks for back-off and names no figures. Half a second is above any sane round trip plus the
# responder's work and below what a person notices twice; eight seconds keeps a long outage from being probed in a
# burst; seven transmissions lose an exchange on a link that drops a quarter of all datagrams each way three times in
# a thousand, and end after 31.5 s, which is what the other implementation (1, 2, 4, 8, 16 s) takes too.
FIRST_INTERVAL = 0.5
LONGEST_INTERVAL = 8.0
TRANSMISSIONS = 7


@dataclass(frozen=True, slots=True)
class Retransmission:
    """Where an exchange is in its back-off.

    Args:
        sent: transmissions so far.
    """

    sent: int = 1

    @property
    def interval(self) -> float:
        """Seconds to wait after the newest transmission."""
        return min(FIRST_INTERVAL * 2.0 ** (self.sent - 1), LONGEST_INTERVAL)

    @property
    def exhausted(self) -> bool:
        """Whether the newest transmission was the last."""
        return self.sent >= TRANSMISSIONS

    def next(self) -> Retransmission:
        """After one more transmission."""
        return Retransmission(self.sent + 1)


# Seconds from the first transmission to giving up: "its full retransmission timeout cycle" (RFC 4430 §9).
FULL_CYCLE = sum(Retransmission(n).interval for n in range(1, TRANSMISSIONS + 1))
