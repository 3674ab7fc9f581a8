"""What connections into the tunnel are made with: the kernel's TCP/IP in a namespace of its own, or lwIP, in here.

Both give sockets. Where they lead is a matter of who made them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import trio

    from esp.sa import Endpoint


class StackError(Exception):
    """A connection, listener or socket that was not to be had. ``errno`` says why, as connect(2) and bind(2) do."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.errno = number


class Connection(Protocol):
    """TCP, established, through the tunnel: for one relay, or for one stream."""

    async def relay(self, client: trio.socket.SocketType, first: bytes = b"") -> None:
        """Carry octets between ``client`` and the tunnel until both directions have ended; both are closed then.

        One side's end is passed on as an end (FIN), a reset as a reset.

        Args:
            client: taken over.
            first: what it has sent already.
        """

    async def stream(self) -> trio.socket.SocketType:
        """A socket to read and write it; closed with the connection. Raises OSError: it has gone."""

    def close(self) -> None:
        """Give it up. Closing twice is fine."""


class Listener(Protocol):
    """Takes TCP connections that come through the tunnel."""

    async def accept(self) -> tuple[Connection, Endpoint]:
        """The next one, and where it comes from."""

    def close(self) -> None:
        """Take no more."""


class UdpSocket(Protocol):
    """Datagrams to and from anywhere behind the tunnel. Lost like any."""

    async def send(self, datagram: bytes, remote: Endpoint) -> None:
        """To ``remote``."""

    async def receive(self) -> tuple[bytes, Endpoint]:
        """The next one, and where it comes from."""

    def close(self) -> None:
        """Give it up."""


class Stack(Protocol):
    """One of them, with the addresses that this host has inside."""

    versions: frozenset[int]
    """IP versions that there is an address of."""

    async def connect(self, remote: Endpoint) -> Connection:
        """TCP to ``remote``. Waits as long as the stack tries; cancel it before. Raises StackError."""

    async def listen(self, local: Endpoint) -> Listener:
        """TCP at ``local``, whose address may be the wildcard. Raises StackError."""

    async def open_udp(self, local: Endpoint) -> UdpSocket:
        """UDP from ``local``; port 0 is any, and the address gives the version. Raises StackError."""
