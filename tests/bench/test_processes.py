"""What this process says of itself and what is measured from outside agree."""

from __future__ import annotations

import mmap
import os
import time

from bench.processes import cpu_seconds, resident_kilobytes


def test_cpu_is_that_of_the_process() -> None:
    before, measured = time.process_time(), cpu_seconds(os.getpid())
    while time.process_time() < measured + 0.02:
        sum(range(1000))
    assert before <= measured
    assert measured + 0.02 <= cpu_seconds(os.getpid()) <= time.process_time()


def test_memory_that_is_touched_counts() -> None:
    before = resident_kilobytes(os.getpid())
    held = mmap.mmap(-1, 8 << 20)  # of the kernel, and not what the allocator has kept from somebody else
    for page in range(0, len(held), mmap.PAGESIZE):
        held[page] = 1  # and not by octets that the allocator would keep
    assert 7 << 10 < resident_kilobytes(os.getpid()) - before < 12 << 10
    held.close()
