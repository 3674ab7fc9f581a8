"""``kinkvpn proxy`` of a traveller, and programs that use it."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from support.lab import within
from support.traveller import WAIT_SECONDS, Traveller

from kinkvpn.demo.lab import kinkvpn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

PORT = 1080


def wait_until(holds: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "not within a generous time"
        time.sleep(0.02)


class Proxy:
    """A running one, and programs that use it, on the traveller's host."""

    def __init__(self, traveller: Traveller, log: Path) -> None:
        self.host = traveller.host
        self.log = log

    def curl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*self.host.namespace.prefix, "curl", "--silent", "--show-error", "--max-time", "60", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)

    def connected(self, port: int = PORT) -> socket.socket:
        return within(self.host.namespace, lambda: socket.create_connection(("127.0.0.1", port), timeout=60))

    def udp(self) -> socket.socket:
        made: socket.socket = within(self.host.namespace, lambda: socket.socket(type=socket.SOCK_DGRAM))
        made.settimeout(60)
        return made


@contextmanager
def proxy(traveller: Traveller, *options: str, before: Sequence[str] = ()) -> Iterator[Proxy]:
    """While the block runs."""
    log = traveller.directory / "proxy.log"
    command = [*traveller.prefix, *before, *kinkvpn(), "proxy", "-c", str(traveller.configuration), *options]
    with log.open("w") as written:
        process = subprocess.Popen(command, env=traveller.environment, stdin=subprocess.DEVNULL, stderr=written)
    try:
        wait_until(lambda: process.poll() is not None or " proxy " in log.read_text(), WAIT_SECONDS)
        assert process.poll() is None, log.read_text()
        yield Proxy(traveller, log)
        process.terminate()
        assert process.wait(60) == (-signal.SIGTERM if before else 0), log.read_text()  # bwrap just dies
    finally:
        process.kill()
        process.wait()
        print(log.read_text())
