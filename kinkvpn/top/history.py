"""What grows, looked at again and again: how fast it does, and how fast it did."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# Ours. As many as a wide terminal has columns for.
KEPT = 120
_BLOCKS = "▁▂▃▄▅▆▇█"


class History:
    """Rates of counters, by name: the newest ``KEPT`` of each.

    A counter that went back belongs to another daemon than before: then everything begins anew.
    """

    def __init__(self) -> None:
        self._rates: dict[str, deque[float]] = {}
        self._before: tuple[float, dict[str, int]] | None = None

    def add(self, now: float, counters: Mapping[str, int]) -> None:
        """What was counted by ``now``, in seconds."""
        before, self._before = self._before, (now, dict(counters))
        if before is None or now <= before[0]:
            return
        then, earlier = before
        if any(count < earlier.get(name, 0) for name, count in counters.items()):
            self._rates.clear()
            return
        for name in self._rates.keys() - counters.keys():
            del self._rates[name]
        for name, count in counters.items():
            rates = self._rates.setdefault(name, deque(maxlen=KEPT))
            rates.append((count - earlier.get(name, count)) / (now - then))

    def pause(self) -> None:
        """Nothing was to be seen: the next look has none before it."""
        self._before = None

    def rate(self, name: str) -> float:
        """A second, between the newest two looks; 0 before there are two."""
        rates = self._rates.get(name)
        return rates[-1] if rates else 0.0

    def rates(self, name: str) -> list[float]:
        """All that are kept, the newest last."""
        return list(self._rates.get(name, ()))


def sparkline(values: list[float], width: int) -> str:
    """The newest ``width`` of them in one line of blocks, the largest of these as high as it goes."""
    shown = values[-width:]
    top = max(shown, default=0.0)
    if top <= 0:
        return (_BLOCKS[0] * len(shown)).rjust(width)
    return "".join(_BLOCKS[round(value / top * (len(_BLOCKS) - 1))] for value in shown).rjust(width)
