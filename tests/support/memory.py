"""How much memory something keeps."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def kept(step: Callable[[int], object], *counts: int) -> list[int]:
    """Octets allocated after each of ``counts`` (ascending) calls of ``step`` that were not before the first."""
    kept_after = []
    tracemalloc.start()
    try:
        done, before = 0, tracemalloc.get_traced_memory()[0]
        for count in counts:
            for number in range(done, count):
                step(number)
            done = count
            kept_after.append(tracemalloc.get_traced_memory()[0] - before)
    finally:
        tracemalloc.stop()
    return kept_after
