"""Whether a peer answers: how long packets have gone out to it and nothing authentic has come back."""

from __future__ import annotations

from math import inf


class Silence:
    """Of one peer, over all its SAs: a packet of any of them is an answer.

    Args:
        limit: seconds from a packet that left to the word that nothing has answered it.
        peer: its name.

    Attributes:
        since: when the first packet left that is not answered yet; inf when there is none.
        heard_at: when the newest authentic packet came.
    """

    __slots__ = ("heard_at", "limit", "peer", "since")

    def __init__(self, limit: float = inf, peer: str = "") -> None:
        self.limit = limit
        self.peer = peer
        self.since = inf
        self.heard_at = -inf

    def watch(self, limit: float) -> None:
        """Another limit, in seconds, from the next packet that leaves on; inf for none."""
        if limit != self.limit:
            self.limit, self.since = limit, inf

    def sent(self, now: float) -> None:
        """A packet has left."""
        if self.since > now:
            self.since = now

    def heard(self, now: float) -> None:
        """An authentic packet has come; nobody else's word counts."""
        self.heard_at = now
        self.since = inf

    def broken(self, now: float) -> bool:
        """Whether the limit has passed; said once. It begins anew with the next packet that leaves.

        So a peer that nobody talks to is never asked for (RFC 4430 §3.7: "not periodic keepalives").
        """
        if now < self.deadline():
            return False
        self.since = inf
        return True

    def deadline(self) -> float:
        """When ``broken`` is due by the clock."""
        return self.since + self.limit
