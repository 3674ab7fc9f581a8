"""The stack that lwIP is, in a thread of its own, and its connections as sockets."""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING

import trio

from esp.sa import Endpoint
from kinkvpn.proxy.lwip import _stack
from kinkvpn.proxy.relay import SILENT_SECONDS, send_all
from kinkvpn.proxy.stack import StackError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv4Address, IPv6Address

log = logging.getLogger(__name__)

# Ours. Connections, listeners and UDP sockets at a time; each costs two or three descriptors.
FLOWS = 400
# Ours. What may wait here for programs that do not read, and as much for peers that do not: forty connections have
# windows of megabytes, all have 64 kB.
WINDOWS = 128 * 1024 * 1024
# stack.h, struct stack_endpoint.
ENDPOINT = struct.Struct("!B16sH")
_LONGEST_DATAGRAM = ENDPOINT.size + 65_535
# What a descriptor travels with; means nothing.
_COMPANY = b"\0"


def pack(endpoint: Endpoint) -> bytes:
    """As lwIP's side has it. Raises ValueError where the address is none."""
    address = ip_address(endpoint.address)
    return ENDPOINT.pack(address.version, address.packed.ljust(16, b"\0"), endpoint.port)


def unpack(octets: bytes) -> Endpoint:
    """The reverse of :func:`pack`."""
    version, address, port = ENDPOINT.unpack_from(octets)
    return Endpoint(str(ip_address(address[:4] if version == 4 else address)), port)


class LwipStack:
    """lwIP behind a packet device. There is one in a process at a time.

    Args:
        device: descriptor that packets are read from and written to; does not block, and stays the caller's.
        vnet: they begin with a struct virtio_net_hdr.
        mtu: octets of the largest packet.
        addresses: of this host, inside: one of IPv4, up to three of IPv6.
        patience: seconds without an octet for a connection that one side has ended, and in all for one that both have.

    Raises:
        OSError: there is one already (EBUSY), or no descriptor for it.
    """

    def __init__(
        self,
        device: int,
        *,
        vnet: bool,
        mtu: int,
        addresses: Sequence[IPv4Address | IPv6Address],
        patience: float = SILENT_SECONDS,
    ) -> None:
        own = [pack(Endpoint(str(each), 0)) for each in addresses]
        milliseconds = round(patience * 1000)
        self._stack = _stack.Stack(
            device, vnet=vnet, mtu=mtu, flows=FLOWS, patience=milliseconds, windows=WINDOWS, addresses=own
        )
        self.versions: frozenset[int] = frozenset(each.version for each in addresses)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; then all connections have ended. Raises OSError when the device is gone."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._stop_at_the_end)
                task_status.started()
                gone = await trio.to_thread.run_sync(self._stack.run, limiter=trio.CapacityLimiter(1))
                nursery.cancel_scope.cancel()
        finally:
            log.info("lwip_ended", extra={"fields": self.counters()})
            self.close()
        if gone:
            raise OSError(gone, os.strerror(gone))

    async def _stop_at_the_end(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self._stack.stop()

    def close(self) -> None:
        """Give it up, where it has not run."""
        self._stack.close()

    def limit_mtu(self, octets: int) -> None:
        """Connections that begin from now on are told of this MTU."""
        self._stack.set_mtu(octets)

    def counters(self) -> dict[str, int]:
        """Packets and flows; see stack.h."""
        return self._stack.counters()

    async def connect(self, remote: Endpoint) -> LwipConnection:
        """As :meth:`kinkvpn.proxy.stack.Stack.connect`."""
        return LwipConnection(await self._ask(_stack.CONNECT, remote, socket.SOCK_STREAM))

    async def listen(self, local: Endpoint) -> LwipListener:
        """As :meth:`kinkvpn.proxy.stack.Stack.listen`."""
        return LwipListener(await self._ask(_stack.LISTEN, local, socket.SOCK_SEQPACKET))

    async def open_udp(self, local: Endpoint) -> LwipUdpSocket:
        """As :meth:`kinkvpn.proxy.stack.Stack.open_udp`."""
        return LwipUdpSocket(await self._ask(_stack.UDP, local, socket.SOCK_SEQPACKET))

    async def _ask(self, what: int, endpoint: Endpoint, kind: socket.SocketKind) -> trio.socket.SocketType:
        """A socket, once what it is for is there. Raises StackError."""
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
        except OSError as error:
            raise StackError(error.errno or 0) from error
        if not self._stack.ask(what, pack(endpoint), theirs.fileno()):
            ours.close()
            theirs.close()
            raise StackError(errno.ENOBUFS)
        theirs.detach()
        asked = trio.socket.from_stdlib_socket(ours)
        try:
            answer = await asked.recv(1)
        except BaseException:
            asked.close()
            raise
        if answer != b"\0":
            asked.close()
            raise StackError(answer[0] if answer else errno.ENOBUFS)
        return asked


class LwipConnection:
    """As :class:`kinkvpn.proxy.stack.Connection`; its octets do not pass through Python while it relays."""

    def __init__(self, pair: trio.socket.SocketType) -> None:
        self._pair = pair
        self._stream: trio.socket.SocketType | None = None

    async def relay(self, client: trio.socket.SocketType, first: bytes = b"") -> None:
        """As there."""
        try:
            with client:
                await send_all(self._pair, first)
                await self._hand_over(client.fileno())
            await self._pair.recv(1)
        except OSError:
            pass  # the stack has ended, and with it the connection
        finally:
            self.close()

    async def stream(self) -> trio.socket.SocketType:
        """As there."""
        ours, theirs = socket.socketpair()
        self._stream = trio.socket.from_stdlib_socket(ours)
        with theirs:
            await self._hand_over(theirs.fileno())
        return self._stream

    async def _hand_over(self, descriptor: int) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", descriptor))]
        await self._pair.sendmsg([_COMPANY], rights)

    def close(self) -> None:
        """As there."""
        self._pair.close()
        if self._stream is not None:
            self._stream.close()


class LwipListener:
    """As :class:`kinkvpn.proxy.stack.Listener`."""

    def __init__(self, pair: trio.socket.SocketType) -> None:
        self._socket = pair

    async def accept(self) -> tuple[LwipConnection, Endpoint]:
        """As there."""
        while True:
            room = socket.CMSG_SPACE(struct.calcsize("i"))
            octets, rights, _, _ = await self._socket.recvmsg(ENDPOINT.size, room)
            if not octets:
                raise trio.ClosedResourceError
            for level, kind, packed in rights:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    accepted = socket.socket(fileno=struct.unpack_from("i", packed)[0])
                    return LwipConnection(trio.socket.from_stdlib_socket(accepted)), unpack(octets)

    def close(self) -> None:
        """As there."""
        self._socket.close()


class LwipUdpSocket:
    """As :class:`kinkvpn.proxy.stack.UdpSocket`."""

    def __init__(self, pair: trio.socket.SocketType) -> None:
        self._socket = pair

    async def send(self, datagram: bytes, remote: Endpoint) -> None:
        """As there."""
        await self._socket.send(pack(remote) + datagram)

    async def receive(self) -> tuple[bytes, Endpoint]:
        """As there."""
        octets = await self._socket.recv(_LONGEST_DATAGRAM)
        if not octets:
            raise trio.ClosedResourceError
        return octets[ENDPOINT.size :], unpack(octets)

    def close(self) -> None:
        """As there."""
        self._socket.close()
