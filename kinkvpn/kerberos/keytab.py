"""The keytab that AP-REQs are accepted with: a file, kept in memory for as long as it does not change."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

from kinkvpn.kerberos.libkrb5 import Krb5Error

if TYPE_CHECKING:
    from pathlib import Path

    from kinkvpn.kerberos.libkrb5 import Context
    from kinkvpn.kerberos.library import CData

# Ours. A file that changes twice within a tick of its file system's clock, which may be two seconds, can look the same
# both times; so what changed lately is read again at every look.
SETTLED_SECONDS: Final = 2.0


class KeptKeytab:
    """A keytab file, read again when it is another file, or another size or time, than when it was read.

    libkrb5 itself opens, locks and reads the file for every AP-REQ: a dozen system calls, a quarter of what accepting
    one costs. To ask for its size and time is one.

    Args:
        context: that reads it and that :meth:`current` is for.
        path: of the file, which need not exist yet.

    Raises:
        Krb5Error: the name does not parse.
    """

    def __init__(self, context: Context, path: Path) -> None:
        self._context, self._path = context, path
        self._file = context.keytab(f"FILE:{path}")
        self._copy: CData | None = None
        self._seen: tuple[int, ...] = ()

    def current(self) -> CData:
        """The keys as they are now. Where the file cannot be read it is the file, for libkrb5 to say so."""
        try:
            status = os.stat(self._path)
            seen = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            if self._copy is None or seen != self._seen:
                settled = time.time() - status.st_mtime > SETTLED_SECONDS
                self._copy, self._seen = self._context.memory_keytab(self._file), seen if settled else ()
        except (OSError, Krb5Error):
            self._copy = None
            return self._file
        return self._copy
