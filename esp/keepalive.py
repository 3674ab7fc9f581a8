"""Keepalives: NATs on the way to a remote are reminded of us when nothing else goes there (RFC 3948 §2.3, §4)."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from esp.datagram import Outgoing
from esp.sa import Encapsulation
from esp.wire import KEEPALIVE

if TYPE_CHECKING:
    from esp.sa import Endpoint
    from esp.sad import Sad

# RFC 3948 §4: 20 seconds by default; NAT mappings for UDP live for 30 and more.
KEEPALIVE_SECONDS = 20.0
# Ours. Whether one is due is found by a look at every outbound SA, so what is due within a second goes with it: else
# two thousand peers, each due at its own moment, would mean a hundred such looks a second.
KEEPALIVE_EARLY = 1.0


class Keepalives:
    """Who has to be sent one, and when.

    Args:
        sad: whose outbound SAs behind UDP have remotes, and have sent to them.

    Attributes:
        due_at: none is due before.
    """

    __slots__ = ("_sad", "due_at")

    def __init__(self, sad: Sad) -> None:
        self._sad = sad
        self.due_at = inf

    def expect(self, now: float) -> None:
        """A remote has heard from us now, and is one that has to go on hearing."""
        self.due_at = min(self.due_at, now + KEEPALIVE_SECONDS)

    def look(self) -> None:
        """There are remotes that have perhaps not heard from us for long."""
        self.due_at = -inf

    def take(self, now: float) -> list[Outgoing]:
        """A single octet for each remote that has heard nothing from us for 20 seconds.

        Or that will not have a second from now, once one is due.
        """
        if now < self.due_at:
            return []
        heard = self._heard()
        self.due_at = min(heard.values(), default=inf) + KEEPALIVE_SECONDS
        if now < self.due_at:
            return []
        due = {remote for remote, sent in heard.items() if now + KEEPALIVE_EARLY >= sent + KEEPALIVE_SECONDS}
        for sa in self._sad.outbound():
            if sa.remote in due:
                sa.sent_at = now
        self.due_at = min(now if remote in due else sent for remote, sent in heard.items()) + KEEPALIVE_SECONDS
        return [Outgoing(KEEPALIVE, remote) for remote in sorted(due)]

    def _heard(self) -> dict[Endpoint, float]:
        """When each remote behind UDP has last heard from us."""
        heard: dict[Endpoint, float] = {}
        for sa in self._sad.outbound():
            if sa.parameters.encapsulation is Encapsulation.UDP:
                heard[sa.remote] = max(sa.sent_at, heard.get(sa.remote, sa.sent_at))
        return heard
