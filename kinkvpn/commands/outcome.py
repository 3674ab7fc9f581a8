"""How a command ends: its exit code, and what is said on stderr."""

from __future__ import annotations

import os
import sys

from kinkvpn import terminal

DONE, FAILED, CANNOT = 0, 1, 2
INTERRUPTED = 130  # 128 + SIGINT, as a shell has it


def complain(error: Exception | str, code: int) -> int:
    """Say ``error`` as :func:`kinkvpn.terminal.complain` does; returns ``code``."""
    terminal.complain(str(error))
    return code


def abandon_output() -> None:
    """Whoever read us has seen enough. Python would complain again when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
