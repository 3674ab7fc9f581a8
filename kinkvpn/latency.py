"""How long exchanges take: counted in classes, so that any number of them needs the same few numbers."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kinkvpn.api import answers

# Ours. Upper ends in seconds: a CREATE takes 1 ms in one rack and 200 ms around the world; the first retransmission
# comes after a second, the second after three (RFC 4430 §9).
BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Latencies:
    """How many took up to which of ``BOUNDS``, and how long all of them together."""

    __slots__ = ("_counts", "_sum")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        self._sum += seconds

    def status(self) -> answers.Latency:
        """``le``: how many took no longer than that many seconds, as text; ``count``: of all; ``sum``: in seconds."""
        *upto, count = accumulate(self._counts)
        return {"le": dict(zip(map(str, BOUNDS), upto, strict=True)), "count": count, "sum": round(self._sum, 6)}
