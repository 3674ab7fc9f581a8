"""UDP ASSOCIATE (RFC 1928 §7): datagrams of one client, there and back, as long as its TCP connection lasts."""

from __future__ import annotations

import socket
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

import trio

from kinkvpn.proxy import socks
from kinkvpn.proxy.outgoing import Refused
from kinkvpn.proxy.relay import send_all
from kinkvpn.proxy.socks import ReplyCode
from kinkvpn.proxy.target import MalformedRequest, Target

if TYPE_CHECKING:
    from trio.socket import SocketType

    from kinkvpn.proxy.outgoing import Outgoing
    from kinkvpn.proxy.stack import UdpSocket

_LONGEST_DATAGRAM = 65_535
# Ours. Datagrams that wait for the addresses of names: others go on meanwhile, and more than these are lost.
MOST_WAITING = 16


async def associate(client: SocketType, outgoing: Outgoing, source: Target) -> None:
    """Until the client's connection ends.

    Args:
        client: its TCP connection; datagrams are taken at the address that it came to, and from where it came from.
        outgoing: where they go.
        source: the port that it will send from, or 0 where it does not know yet.

    Raises:
        OSError: the client has gone, or no socket is to be had.
    """
    try:
        here = await _bound_beside(client)
    except OSError:
        await send_all(client, socks.build_reply(ReplyCode.GENERAL_FAILURE))
        raise
    with here:
        bound = here.getsockname()
        reply = socks.build_reply(ReplyCode.SUCCEEDED, Target(_written(bound[0]), bound[1]))
        await send_all(client, reply)
        async with trio.open_nursery() as nursery:
            association = _Association(here, outgoing, client.getpeername()[0], source.port, nursery)
            nursery.start_soon(association.carry_out)
            while await client.recv(1):  # it has nothing more to say there but its end
                pass
            nursery.cancel_scope.cancel()


async def _bound_beside(client: SocketType) -> SocketType:
    here = trio.socket.socket(client.family, socket.SOCK_DGRAM)
    try:
        await here.bind((client.getsockname()[0], 0))
    except BaseException:
        here.close()
        raise
    return here


def _written(address: str) -> IPv4Address | IPv6Address:
    """As the client knows it: at a port of both versions IPv4 looks like IPv6 (RFC 4291 §2.5.5.2)."""
    found = ip_address(address)
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found


class _Association:
    def __init__(self, here: SocketType, outgoing: Outgoing, host: str, port: int, nursery: trio.Nursery) -> None:
        self._here = here
        self._outgoing = outgoing
        self._host = host
        self._port = port
        self._nursery = nursery
        self._sockets: dict[int, UdpSocket] = {}
        self._opening = trio.Lock()
        self._places = trio.Semaphore(MOST_WAITING)

    async def carry_out(self) -> None:
        try:
            while True:
                octets, source = await self._here.recvfrom(_LONGEST_DATAGRAM)
                # The first one tells the port, where the client has not (RFC 1928 §7); from others anybody on this
                # host could send as that client.
                if source[0] != self._host or self._port not in (0, source[1]):
                    continue
                self._port = source[1]
                with suppress(MalformedRequest):
                    await self._dispatch(*socks.parse_datagram(octets))
        finally:
            for each in self._sockets.values():
                each.close()

    async def _dispatch(self, target: Target, datagram: bytes) -> None:
        if not isinstance(target.host, str):
            await self._send(target, datagram)
            return
        with suppress(trio.WouldBlock):
            self._places.acquire_nowait()
            self._nursery.start_soon(self._send_by_name, target, datagram)

    async def _send_by_name(self, target: Target, datagram: bytes) -> None:
        try:
            await self._send(target, datagram)
        finally:
            self._places.release()

    async def _send(self, target: Target, datagram: bytes) -> None:
        with suppress(Refused):
            remote = (await self._outgoing.addresses(target))[0]
            await (await self._socket(ip_address(remote.address).version)).send(datagram, remote)

    async def _socket(self, version: int) -> UdpSocket:
        """Raises Refused."""
        async with self._opening:
            if version not in self._sockets:
                self._sockets[version] = await self._outgoing.open_udp(version)
                self._nursery.start_soon(self._carry_back, self._sockets[version])
        return self._sockets[version]

    async def _carry_back(self, udp: UdpSocket) -> None:
        while True:
            datagram, source = await udp.receive()
            with suppress(OSError):  # the client does not take it: lost
                packed = socks.build_datagram(Target(ip_address(source.address), source.port), datagram)
                await self._here.sendto(packed, (self._host, self._port))
