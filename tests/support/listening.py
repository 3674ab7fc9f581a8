"""When a KDC that says nothing is ready: when it has its sockets."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from kinkvpn.demo.realm import START_SECONDS, RealmFailed, last_line

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence

POLL_SECONDS = 0.02


def wait_listening(kdc: subprocess.Popen[bytes], port: int, name: str, log: Path) -> None:
    """Until the process has UDP and TCP sockets on ``port``. Raises RealmFailed, with the log's last line."""
    deadline = time.monotonic() + START_SECONDS
    while not listens(kdc.pid, port):
        if kdc.poll() is not None:
            raise RealmFailed(f"{name} ended: {last_line(log.read_text()) if log.exists() else kdc.returncode}")
        if time.monotonic() > deadline:
            raise RealmFailed(f"{name} did not start within {START_SECONDS:.0f} s")
        time.sleep(POLL_SECONDS)


def listens(pid: int, port: int) -> bool:
    """Whether this very process, or a child of it, has UDP and TCP sockets bound to ``port``."""
    held = set()
    for process in (pid, *children(pid)):
        for descriptor in Path(f"/proc/{process}/fd").glob("*"):
            try:
                held.add(str(descriptor.readlink()))
            except OSError:
                continue
    return all(held & bound(pid, table, port) for table in (("udp", "udp6"), ("tcp", "tcp6")))


def children(pid: int) -> list[int]:
    """Those that it forked itself."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def bound(pid: int, tables: Sequence[str], port: int) -> set[str]:
    """Sockets on ``port`` in the process's network namespace, as its descriptors would name them (proc(5))."""
    rows = [
        line.split()
        for table in tables
        if (path := Path(f"/proc/{pid}/net/{table}")).exists()
        for line in path.read_text().splitlines()[1:]
    ]
    return {f"socket:[{row[9]}]" for row in rows if int(row[1].rpartition(":")[2], 16) == port}
