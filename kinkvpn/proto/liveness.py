"""Whether a peer lives: when to ask it by a STATUS, and what its silence means (RFC 4430 §3.7).

Suspicion is cheap and proves nothing: packets that go out and are not answered, an ICMP message that anybody can
forge. It leads to one thing, a STATUS, which only the peer can answer. The verdict is the probe's: nothing to read into
the absence of somebody else's STATUS, and nothing into a KDC that is down.
"""

from __future__ import annotations

from enum import Enum
from math import inf
from typing import TYPE_CHECKING

from kinkvpn.proto.outcome import Cause, Failed
from kinkvpn.proto.status import StatusCommand

if TYPE_CHECKING:
    from kinkvpn.proto.initiator import Initiator
    from kinkvpn.proto.settings import PeerSettings

# Ours. Between two probes that ICMP alone has brought about. Forging costs its author nothing; a STATUS and its REPLY
# cost two honest hosts a millisecond each.
HINT_SECONDS = 10.0


class Verdict(Enum):
    """What the end of a probe says."""

    ALIVE = "alive"  # it answered, be it by a refusal
    DEAD = "dead"  # it left every transmission unanswered, and its packets stayed away too
    MUTE = "mute"  # the same, but its packets come: KINK does not get through
    UNKNOWN = "unknown"  # the probe was never sent: there was no ticket


class Liveness:
    """At most one probe at a time.

    Args:
        settings: the peer's.
    """

    def __init__(self, settings: PeerSettings) -> None:
        self.settings = settings
        self._probe: StatusCommand | None = None
        self._began = 0.0
        self._hint_at = -inf

    def suspect(self, heard: float | None, now: float, *, hint: bool) -> StatusCommand | None:
        """The probe to send, if this suspicion is worth one.

        Args:
            heard: when KINK last heard from the peer. A word of it is as good as the probe's answer would be.
            now: seconds.
            hint: ICMP says that the peer cannot be reached; else packets have gone out and nothing has come back.
        """
        # Half: while packets leave and none comes the engine tells in steps of a whole one, a little more or less.
        enough = (self.settings.probe_after or 0) / 2
        recently = heard is not None and now - heard < enough
        if self._probe is not None or (now < self._hint_at if hint else recently):
            return None
        if hint:
            self._hint_at = now + HINT_SECONDS
        self._probe, self._began = StatusCommand(self.settings.dead_after), now
        return self._probe

    def owns(self, command: StatusCommand) -> bool:
        """Whether ``command`` is the probe under way; an operator's is not."""
        return command is self._probe

    def concluded(self, exchange: Initiator, packet_at: float | None) -> Verdict:
        """The probe has come to its end.

        Args:
            exchange: the probe's.
            packet_at: when the newest authentic ESP packet of the peer came.
        """
        self._probe = None
        if exchange.peer_epoch is not None or not isinstance(exchange.outcome, Failed):
            return Verdict.ALIVE
        if exchange.outcome.cause is not Cause.SILENCE:
            return Verdict.UNKNOWN
        return Verdict.MUTE if packet_at is not None and packet_at > self._began else Verdict.DEAD
