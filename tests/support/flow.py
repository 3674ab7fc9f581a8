"""UDP through a tunnel as fast as it carries it: every packet has a number, and every one has to come back."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from support.lab import within

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kinkvpn.demo.lab import Host

PORT = 7007
OCTETS = 1200
# On their way at once, as a TCP window is: the tunnel is never idle, and no queue of it (500 packets in a TUN) is ever
# full. What does not come back was lost by nobody's fault but ours.
WINDOW = 64
# Longer than any pause of a daemon on a busy machine; a packet that is still not back then will never be.
LOST_SECONDS = 15.0


class Flow:
    """Numbered packets from one host to the other and back.

    Attributes:
        sent, returned: packets; what is on its way is the difference.
        longest_pause: seconds without a packet coming back, the worst so far.
    """

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.sent = self.returned = 0
        self.longest_pause = 0.0
        self._near, self._far = near, far
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=run) for run in (self._drive, self._echo)]

    @property
    def lost(self) -> int:
        return self.sent - self.returned

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Stop sending and wait for what is on its way."""
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _drive(self) -> None:
        pending: set[int] = set()
        heard = time.monotonic()
        while pending or not self._ending.is_set():
            while len(pending) < WINDOW and not self._ending.is_set():
                self._near.send(self.sent.to_bytes(4, "big") + bytes(OCTETS - 4))
                pending.add(self.sent)
                self.sent += 1
            try:
                number = int.from_bytes(self._near.recv(OCTETS)[:4], "big")
            except TimeoutError:
                return
            now = time.monotonic()
            self.longest_pause, heard = max(self.longest_pause, now - heard), now
            pending.remove(number)  # a packet that comes twice fails here
            self.returned += 1

    def _echo(self) -> None:
        while self._threads[0].is_alive():
            try:
                packet, source = self._far.recvfrom(OCTETS)
            except TimeoutError:
                continue
            self._far.sendto(packet, source)


@contextmanager
def flowing(source: Host, target: Host) -> Iterator[Flow]:
    """A flow through the tunnel while the block runs; afterwards all that can come back has."""
    there = target.site.inner_address(4)
    with (
        within(source.namespace, lambda: socket.socket(type=socket.SOCK_DGRAM)) as near,
        within(target.namespace, lambda: socket.socket(type=socket.SOCK_DGRAM)) as far,
    ):
        far.bind((there, PORT))
        near.bind((source.site.inner_address(4), 0))
        near.connect((there, PORT))
        near.settimeout(LOST_SECONDS)
        far.settimeout(0.2)
        flow = Flow(near, far)
        flow.start()
        try:
            yield flow
        finally:
            flow.end()
