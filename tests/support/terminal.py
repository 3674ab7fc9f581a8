"""A real terminal of a known width, and what it has shown."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import re
import struct
import termios
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Terminal:
    """``end`` is a descriptor for whoever writes to it."""

    def __init__(self, ours: int, end: int) -> None:
        self._ours = ours
        self.end = end
        self._open = True

    def shown(self) -> list[str]:
        """Every line, without colours, once all who write have ended; it shows nothing more then."""
        return re.sub(r"\x1b\[[0-9;]*m", "", self.written().decode()).splitlines()

    def written(self) -> bytes:
        """All of it, as it came, once all who write have ended."""
        self.close()
        octets = b""
        while more := self._read():
            octets += more
        return octets

    def _read(self) -> bytes:
        try:
            return os.read(self._ours, 65536)
        except OSError as error:
            if error.errno != errno.EIO:  # pty(7): nobody has the other end any more
                raise
            return b""

    def close(self) -> None:
        """Our own copy of what is for others."""
        if self._open:
            os.close(self.end)
            self._open = False


@contextmanager
def terminal(columns: int) -> Iterator[Terminal]:
    """One of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    found = Terminal(ours, theirs)
    try:
        yield found
    finally:
        found.close()
        os.close(ours)
