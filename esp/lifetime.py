"""An SA at work, whichever way it goes: what it has done, and which of its limits that reaches (RFC 4301 §4.4.2.1)."""

from __future__ import annotations

from collections import defaultdict
from enum import Enum
from math import inf
from typing import TYPE_CHECKING, ClassVar

from esp.sa import Encapsulation, Endpoint
from esp.silence import Silence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esp.errors import DropReason
    from esp.sa import SaParameters


class Limit(Enum):
    """Which lifetime has been reached (RFC 4301 §4.4.2.1)."""

    SOFT = "soft"
    HARD = "hard"


class SaState:
    """One SA at work: counters and lifetimes, whichever way it goes.

    ``octets`` counts what the cipher was applied to, as RFC 4301 §4.4.2.1 counts for lifetimes: payload and trailer.
    """

    __slots__ = (
        "_hard_octets",
        "_hard_packets",
        "_soft_at",
        "alarm_octets",
        "alarm_packets",
        "drops",
        "hard_at",
        "octets",
        "packets",
        "parameters",
        "remote",
        "silence",
    )

    engine: ClassVar[str] = "portable"  # whose it is

    def __init__(self, parameters: SaParameters, now: float) -> None:
        self.parameters = parameters
        self.remote = parameters.remote
        self.silence = Silence()  # the peer's, once the engine has put it here
        self.packets = self.octets = 0
        self.drops: defaultdict[DropReason, int] = defaultdict(int)
        lifetime = parameters.lifetime
        self._soft_at = now + limit_of(lifetime.soft_seconds)
        self.hard_at = now + limit_of(lifetime.hard_seconds)
        self._hard_packets, self._hard_octets = limit_of(lifetime.hard_packets), limit_of(lifetime.hard_octets)
        # The next of soft and hard, for one comparison a packet.
        self.alarm_packets = min(limit_of(lifetime.soft_packets), self._hard_packets)
        self.alarm_octets = min(limit_of(lifetime.soft_octets), self._hard_octets)

    def reached(self, now: float) -> Limit | None:
        """The hardest limit reached; the soft one is told of once."""
        if now >= self.hard_at or self.packets >= self._hard_packets or self.octets >= self._hard_octets:
            return Limit.HARD
        if now >= self._soft_at or self.packets >= self.alarm_packets or self.octets >= self.alarm_octets:
            self._soft_at = inf
            self.alarm_packets, self.alarm_octets = self._hard_packets, self._hard_octets
            return Limit.SOFT
        return None

    def follow(self, remote: Endpoint) -> None:
        """Send to ``remote`` from now on; behind raw ESP that is the address alone."""
        raw = self.parameters.encapsulation is Encapsulation.RAW
        self.remote = Endpoint(remote.address, 0) if raw else remote

    def abandon(self) -> Sequence[DropReason]:
        """A reason for each packet that waits in here still; the SA goes, and nothing is asked of it again."""
        return ()

    def deadline(self) -> float:
        """When ``reached`` is due by the clock."""
        return min(self._soft_at, self.hard_at)


def limit_of(limit: float | None) -> float:
    """A number to compare with, where None is no limit."""
    return inf if limit is None else limit
