"""What the path loses of an SA's AGGFRAG payloads, in words for an operator and not too many (RFC 9347 §2.4.1)."""

from __future__ import annotations

from math import inf

# Ours. Often enough to see when it began and whether it goes on; a line a minute fills no disk.
REPORT_SECONDS = 60.0


class Loss:
    """Of one inbound SA: how many of its payloads were lost since that was last told."""

    __slots__ = ("_after", "_came", "_lost")

    def __init__(self) -> None:
        self._lost = self._came = 0
        self._after = -inf

    def report(self, lost: int, came: int, now: float) -> tuple[int, int] | None:
        """Payloads lost and sent since the last report; None when none is lost, and for a minute after each report.

        Args:
            lost: payloads until now.
            came: likewise those that have come.
            now: seconds.
        """
        if lost == self._lost or now < self._after:
            return None
        told = lost - self._lost, lost - self._lost + came - self._came
        self._lost, self._came, self._after = lost, came, now + REPORT_SECONDS
        return told
