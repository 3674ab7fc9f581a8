"""How a command ends: its exit code, and what is said on stderr."""

from __future__ import annotations

import os
import sys

from kinkvpn.terminal import folded, width_of

DONE, FAILED, CANNOT = 0, 1, 2
INTERRUPTED = 130  # 128 + SIGINT, as a shell has it

# Ours. So far in is what goes on from the line before: what is at fault stands out at the left.
HANG = 4


def complain(error: Exception | str, code: int) -> int:
    """Each line of ``error`` on stderr, behind our name, folded where somebody sits there; returns ``code``."""
    width = width_of(sys.stderr)
    for line in str(error).splitlines():
        sys.stderr.write(f"{folded(f'kinkvpn: {line}', width, HANG)}\n")
    return code


def abandon_output() -> None:
    """Whoever read us has seen enough. Python would complain again when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
