"""A clock of its own for one process: libfaketime, preloaded, and what it leaves behind taken away."""

from __future__ import annotations

import re
from pathlib import Path

_SHARED_MEMORY = Path("/dev/shm")
_LEFT = re.compile(r"(?:sem\.)?faketime_(?:sem|shm)_(\d+)")


def by_clock(**settings: object) -> list[str]:
    """Put before a command, which then goes by the clock that ``settings`` of libfaketime(1) name; timers do not.

    faketime(1) itself forks, so that whoever kills it leaves the command running.
    """
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    settings |= {"LD_PRELOAD": library, "FAKETIME_DONT_FAKE_MONOTONIC": 1}
    return ["env", *(f"{name}={value}" for name, value in settings.items())]


def sweep() -> None:
    """Removes the shared memory that libfaketime made for processes which are gone: killed ones leave it."""
    for path in _SHARED_MEMORY.iterdir():
        found = _LEFT.fullmatch(path.name)
        if found and not Path(f"/proc/{found[1]}").exists():
            path.unlink(missing_ok=True)
