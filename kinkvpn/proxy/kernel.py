"""The kernel's own stack, in a namespace whose only way out is the tunnel: its sockets are made there and used here."""

from __future__ import annotations

import socket
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING

import trio

from esp.sa import Endpoint
from kinkvpn.proxy.relay import prepare, relay, send_all
from kinkvpn.proxy.stack import StackError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kinkvpn.rootless.outside import Namespace

# Ours. Connections that wait to be accepted.
BACKLOG = 64
_LONGEST_DATAGRAM = 65_535


class KernelStack:
    """As :class:`kinkvpn.proxy.stack.Stack`.

    Args:
        space: where sockets are made.
        versions: of IP, that there is an address of in there.
    """

    def __init__(self, space: Namespace, versions: Iterable[int]) -> None:
        self._space = space
        self.versions = frozenset(versions)

    async def connect(self, remote: Endpoint) -> KernelConnection:
        """As there."""
        made = self._socket(remote, socket.SOCK_STREAM)
        try:
            prepare(made)
            await made.connect(tuple(remote))
        except OSError as error:
            made.close()
            raise StackError(error.errno or 0) from error
        except BaseException:
            made.close()
            raise
        return KernelConnection(made)

    async def listen(self, local: Endpoint) -> KernelListener:
        """As there."""
        made = await self._bound(local, socket.SOCK_STREAM)
        made.listen(BACKLOG)
        return KernelListener(made)

    async def open_udp(self, local: Endpoint) -> KernelUdpSocket:
        """As there."""
        return KernelUdpSocket(await self._bound(local, socket.SOCK_DGRAM))

    async def _bound(self, local: Endpoint, kind: socket.SocketKind) -> trio.socket.SocketType:
        made = self._socket(local, kind)
        try:
            if kind is socket.SOCK_STREAM:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            await made.bind(tuple(local))
        except OSError as error:
            made.close()
            raise StackError(error.errno or 0) from error
        return made

    def _socket(self, end: Endpoint, kind: socket.SocketKind) -> trio.socket.SocketType:
        family = socket.AF_INET6 if ip_address(end.address).version == 6 else socket.AF_INET
        try:
            made = self._space.socket(family, kind)
        except OSError as error:
            raise StackError(error.errno or 0) from error
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        return trio.socket.from_stdlib_socket(made)


class KernelConnection:
    """As :class:`kinkvpn.proxy.stack.Connection`."""

    def __init__(self, connected: trio.socket.SocketType) -> None:
        self._socket = connected

    async def relay(self, client: trio.socket.SocketType, first: bytes = b"") -> None:
        """As there."""
        with suppress(OSError):
            await send_all(self._socket, first)
            await relay(client, self._socket)

    async def stream(self) -> trio.socket.SocketType:
        """As there."""
        return self._socket

    def close(self) -> None:
        """As there."""
        self._socket.close()


class KernelListener:
    """As :class:`kinkvpn.proxy.stack.Listener`."""

    def __init__(self, listening: trio.socket.SocketType) -> None:
        self._socket = listening

    async def accept(self) -> tuple[KernelConnection, Endpoint]:
        """As there."""
        accepted, source = await self._socket.accept()
        prepare(accepted)
        return KernelConnection(accepted), Endpoint(source[0], source[1])

    def close(self) -> None:
        """As there."""
        self._socket.close()


class KernelUdpSocket:
    """As :class:`kinkvpn.proxy.stack.UdpSocket`."""

    def __init__(self, bound: trio.socket.SocketType) -> None:
        self._socket = bound

    async def send(self, datagram: bytes, remote: Endpoint) -> None:
        """As there."""
        with suppress(OSError):  # lost, as on any way; the kernel tells of earlier ones too
            await self._socket.sendto(datagram, tuple(remote))

    async def receive(self) -> tuple[bytes, Endpoint]:
        """As there."""
        while True:
            try:
                octets, source = await self._socket.recvfrom(_LONGEST_DATAGRAM)
            except ConnectionError:
                continue
            return octets, Endpoint(source[0], source[1])

    def close(self) -> None:
        """As there."""
        self._socket.close()
