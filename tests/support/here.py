"""The kernel's stack as the proxy has it, in no namespace but this one: real sockets, on loopback."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from ipaddress import ip_network
from typing import TYPE_CHECKING

import trio

from kinkvpn.proxy.front import Clients, Front
from kinkvpn.proxy.kernel import KernelStack
from kinkvpn.proxy.names import Names
from kinkvpn.proxy.outgoing import Outgoing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from kinkvpn.proxy.socks import Password

LOOPBACK = "127.0.0.1"
REACH = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


class Here:
    """As :class:`kinkvpn.rootless.outside.Namespace`, as far as sockets go."""

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        return socket.socket(family, kind, protocol)


def stack() -> KernelStack:
    return KernelStack(Here(), (4, 6))  # all that is asked of a namespace


def outgoing(names: Names | None = None) -> Outgoing:
    own = stack()
    return Outgoing(own, names or Names(own, ()), REACH)


@asynccontextmanager
async def serving(each: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncIterator[int]:
    """The port of a server on loopback."""
    (listener,) = await trio.open_tcp_listeners(0, host=LOOPBACK)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, each, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def front(
    password: Password | None = None, way: Outgoing | None = None, clients: Clients | None = None
) -> AsyncIterator[int]:
    """The port of a proxy."""
    listening = trio.socket.socket()
    await listening.bind((LOOPBACK, 0))
    listening.listen()
    async with trio.open_nursery() as nursery:
        served = Front(way or outgoing(), password).serve
        nursery.start_soon((clients or Clients()).serve, listening, served)
        yield listening.getsockname()[1]
        nursery.cancel_scope.cancel()


async def echo(stream: trio.SocketStream) -> None:
    async for octets in stream:
        await stream.send_all(octets)
    await stream.send_eof()
