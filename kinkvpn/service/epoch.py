"""When this process's SA state began: one epoch for whatever it does, or peers would take it for restarted."""

from __future__ import annotations

import time
from functools import cache


@cache
def epoch() -> int:
    """The low 32 bits of the POSIX time at which it was first asked for (RFC 4430 §4.2.1)."""
    return int(time.time()) & 0xFFFFFFFF
