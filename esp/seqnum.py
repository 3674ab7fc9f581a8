"""Sequence numbers: a send counter that never wraps, the replay window, and what is not sent of extended numbers.

RFC 4303 §2.2, §3.3.3, §3.4.3, appendix A.
"""

from __future__ import annotations

from esp.errors import DropReason, SequenceExhausted


class SendCounter:
    """Numbers for one outbound SA: each once, ascending, never again (RFC 4303 §3.3.3).

    Args:
        last: the last number used; 0 before the first.
        limit: the last number that may be used: 2^32-1, or 2^64-1 with extended numbers.
    """

    __slots__ = ("_limit", "last")

    def __init__(self, last: int, limit: int) -> None:
        self.last = last
        self._limit = limit

    def next(self) -> int:
        """The next number.

        Raises:
            SequenceExhausted: there is none; the counter must not cycle.
        """
        number = self.last + 1
        if number > self._limit:
            raise SequenceExhausted("the last sequence number of this SA has been used")
        self.last = number
        return number

    def has(self, count: int) -> bool:
        """Whether there are that many."""
        return self.last + count <= self._limit

    def take(self, count: int) -> int:
        """The first of ``count`` numbers in a row, which are used now.

        Raises:
            SequenceExhausted: there are not as many, and none is used.
        """
        if not self.has(count):
            raise SequenceExhausted("the last sequence number of this SA would be used")
        first = self.last + 1
        self.last += count
        return first


# The low half, which travels (RFC 4303 §2.2.1).
_LOW = 0xFFFF_FFFF
# No number is beyond 2^64-1, so the last subspace is not followed by another (RFC 4303 §3.3.3).
_LAST_SUBSPACE = 2**64 - 2**32
# What is known of a number in the window.
_UNSEEN, _SEEN = b"\0", b"\1"


class ReplayWindow:
    """Which of the newest ``size`` numbers have been accepted (RFC 4303 §3.4.3).

    A ring with one octet per number: O(1) to check and to mark whatever the size, where an integer bitmap copies a
    kilobyte for each packet. ``check`` changes nothing; ``mark`` is for numbers whose ICV has been verified, and only
    for those.

    Args:
        size: packets; 0 turns the check off, and ``top`` is followed all the same.
    """

    __slots__ = ("_seen", "size", "top")

    def __init__(self, size: int) -> None:
        self.size = size
        self._seen = bytearray()  # until there is something to record: most of an SA's memory, and many carry nothing
        self.top = 0  # the newest number marked

    def extended(self, low: int) -> int:
        """The extended number whose low half is ``low``, if its packet is authentic (RFC 4303 appendix A2.2).

        Of all such numbers the one within the 2^32 from the bottom of the window on: cases A and B are where that
        range crosses into the next subspace, above the window or in the middle of it. Before the first subspace there
        is none: while the window reaches below zero, the high half is zero.

        Args:
            low: 32 bits, as received.
        """
        bottom = self.top - self.size + 1
        if bottom < 0:
            return low
        if bottom > _LAST_SUBSPACE:
            bottom = _LAST_SUBSPACE
        return bottom + ((low - bottom) & _LOW)

    def check(self, number: int) -> DropReason | None:
        """Why ``number`` must not be accepted; None if it may."""
        if number > self.top or not self.size:
            return None
        # The first packet has number 1 (RFC 4303 §2.2): zero is older than any.
        if number <= self.top - self.size or number == 0:
            return DropReason.TOO_OLD
        return DropReason.REPLAYED if self._seen[number % self.size] else None

    def mark(self, number: int) -> None:
        """Record ``number``, which has passed ``check`` and whose packet is authentic."""
        size = self.size
        if not self._seen:
            self._seen = bytearray(size)
        advance = number - self.top
        if advance > 0:
            self.top = number
            if advance > 1 and size:
                self._fill(_UNSEEN, number - advance + 1, min(advance, size))  # places of numbers that have left it
        if size:
            self._seen[number % size] = 1

    def mark_run(self, first: int, count: int) -> None:
        """As ``mark`` of ``count`` numbers from ``first`` on, which is newer than all before."""
        self.mark(first)
        self.top = first + count - 1
        if self.size:
            newest = min(count, self.size)
            self._fill(_SEEN, self.top - newest + 1, newest)

    def marked(self) -> list[int]:
        """The numbers that have been accepted and are not too old, and the newest."""
        first = max(self.top - self.size + 1, 0)
        seen = self._seen
        return [*(number for number in range(first, self.top) if seen and seen[number % self.size]), self.top]

    def _fill(self, value: bytes, first: int, count: int) -> None:
        """Set ``count`` places, at most all, from that of ``first`` on."""
        start = first % self.size
        straight = min(count, self.size - start)
        self._seen[start : start + straight] = value * straight
        self._seen[: count - straight] = value * (count - straight)
