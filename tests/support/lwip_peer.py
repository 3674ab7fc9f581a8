"""A stack in a process of its own, at the other end of a socket pair: it echoes TCP and UDP at port 7.

    python -m support.lwip_peer DESCRIPTOR ADDRESS...

Port 9 takes octets and says how many there were once they end; port 19 sends a million; port 13 resets.
"""

from __future__ import annotations

import socket
import sys
from contextlib import suppress
from ipaddress import ip_address

import trio

from esp.sa import Endpoint
from kinkvpn.proxy.lwip.stack import LwipConnection, LwipStack

MILLION = bytes(range(250)) * 4_000


async def echo(stream: trio.SocketStream) -> None:
    async for octets in stream:
        await stream.send_all(octets)
    await stream.send_eof()


async def discard(stream: trio.SocketStream) -> None:
    count = sum([len(octets) async for octets in stream])
    await stream.send_all(str(count).encode())


async def generate(stream: trio.SocketStream) -> None:
    await stream.send_all(MILLION)


async def serve(stack: LwipStack, port: int) -> None:
    async with trio.open_nursery() as nursery:
        listener = await stack.listen(Endpoint("0.0.0.0", port)), await stack.listen(Endpoint("::", port))

        async def accept(number: int) -> None:
            while True:
                connection, _ = await listener[number].accept()
                nursery.start_soon(one, connection)

        async def one(connection: LwipConnection) -> None:
            with suppress(trio.BrokenResourceError, OSError):  # it has gone, perhaps before it was here
                async with trio.SocketStream(await connection.stream()) as stream:
                    await {7: echo, 9: discard, 19: generate}[port](stream)
            connection.close()

        nursery.start_soon(accept, 0)
        nursery.start_soon(accept, 1)


async def reset(stack: LwipStack) -> None:
    """By a descriptor that takes a connection's place and is gone when octets come for it."""
    listener = await stack.listen(Endpoint("0.0.0.0", 13))
    while True:
        connection, _ = await listener.accept()
        ours, theirs = socket.socketpair()
        theirs.close()
        await connection.relay(trio.socket.from_stdlib_socket(ours))


async def echo_datagrams(stack: LwipStack, local: str) -> None:
    udp = await stack.open_udp(Endpoint(local, 7))
    while True:
        octets, source = await udp.receive()
        await udp.send(octets, source)


async def main(descriptor: int, addresses: list[str]) -> None:
    stack = LwipStack(descriptor, vnet=False, mtu=1400, addresses=[ip_address(each) for each in addresses])
    async with trio.open_nursery() as nursery:
        await nursery.start(stack.run)
        for port in (7, 9, 19):
            nursery.start_soon(serve, stack, port)
        nursery.start_soon(reset, stack)
        for local in addresses:
            nursery.start_soon(echo_datagrams, stack, local)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), sys.argv[2:])
