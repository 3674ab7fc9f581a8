"""What another process has used: CPU time to the nanosecond, memory to the kilobyte."""

from __future__ import annotations

import time
from pathlib import Path

# The kernel makes a CPU clock of every process: ~pid in the upper bits, 2 for scheduler time (linux/posix-timers.h,
# MAKE_PROCESS_CPUCLOCK). /proc/PID/stat counts the same in ticks of 10 ms, too coarse for a round of half a second.
_SCHEDULER_TIME = 2


def cpu_seconds(pid: int) -> float:
    """User and system time of process ``pid``, of all its threads, those that have ended too."""
    return time.clock_gettime(~pid << 3 | _SCHEDULER_TIME)


def resident_kilobytes(pid: int) -> int:
    """Private memory of ``pid`` that is in RAM: what would be free again without it."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean:", "Private_Dirty:")))
