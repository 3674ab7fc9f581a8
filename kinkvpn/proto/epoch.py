"""The lives of one peer: every AP payload carries the time at which its sender's SA state began (RFC 4430 §3.7)."""

from __future__ import annotations

from collections import deque

# Ours. Earlier lives of a peer that are remembered: a datagram lives minutes at most (the clock skew that Kerberos
# grants), a host does not restart nine times in them.
MAX_PAST_EPOCHS = 8


class Epochs:
    """Which life of a peer is the present one, and which were before.

    Attributes:
        present: the newest epoch that was authentically heard; None before anything was.
    """

    def __init__(self) -> None:
        self.present: int | None = None
        self._past: deque[int] = deque(maxlen=MAX_PAST_EPOCHS)

    def __len__(self) -> int:
        """How many are remembered of those that are over."""
        return len(self._past)

    def outlived(self, epoch: int) -> bool:
        """Whether ``epoch`` is of an earlier life of the peer: a message that was late, or kept back by somebody.

        It is authentic, and to believe it would tear down what the peer's present life has made.
        """
        return epoch in self._past

    def observe(self, epoch: int) -> bool:
        """Record ``epoch``; whether the peer has restarted, and so has lost every SA (RFC 4430 §3.7)."""
        before, self.present = self.present, epoch
        if before is None or before == epoch:
            return False
        self._past.append(before)
        return True
