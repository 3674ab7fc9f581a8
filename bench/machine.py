"""What a figure was measured on: it means nothing without."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path


def describe() -> dict[str, str | int | float]:
    """Processor, cores, kernel, Python, the load of others, the commit (``+`` when the tree differs from it)."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
        "commit": _commit(),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, text = line.partition(":")
        if key.strip() == "model name":
            return text.strip()
    return platform.machine()


def _commit() -> str:
    here = Path(__file__).parent
    described = subprocess.run(  # noqa: S603 - fixed words
        ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--abbrev=12"],  # noqa: S607
        check=False,
        capture_output=True,
        text=True,
    )
    return described.stdout.strip() or "unknown"
