"""UDP ASSOCIATE at a real port: datagrams there and back, and whose they may be."""

from __future__ import annotations

import socket
import struct

import trio
import trio.testing
from support.here import LOOPBACK, front

from kinkvpn.proxy import socks
from kinkvpn.proxy.target import Target, parse_host


async def test_datagrams_of_the_client_alone() -> None:
    async with front() as port, trio.open_nursery() as nursery:
        with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as server:
            await server.bind((LOOPBACK, 0))
            target = Target(parse_host(LOOPBACK), server.getsockname()[1])

            async def echo() -> None:
                while True:
                    octets, source = await server.recvfrom(65_535)
                    await server.sendto(octets, source)

            nursery.start_soon(echo)
            with trio.fail_after(15):
                async with await trio.open_tcp_stream(LOOPBACK, port) as control:
                    await control.send_all(b"\x05\x01\x00\x05\x03\x00\x01" + bytes(6))
                    said = await control.receive_some(2) + await control.receive_some()
                    found = socks.parse_request(said[2:])
                    assert found is not None
                    here = str(found[0].target.host), found[0].target.port
                    with (
                        trio.socket.socket(type=trio.socket.SOCK_DGRAM) as client,
                        trio.socket.socket(type=trio.socket.SOCK_DGRAM) as other,
                    ):
                        fragment = bytearray(socks.build_datagram(target, b"part"))
                        fragment[2] = 1
                        await client.sendto(socks.build_datagram(target, b"one"), here)
                        assert socks.parse_datagram(await client.recv(65_535)) == (target, b"one")
                        for lost in (
                            b"",
                            b"\0\0",
                            bytes(fragment),
                            socks.build_datagram(Target(parse_host("192.0.2.1"), 9), b""),
                        ):
                            await client.sendto(lost, here)
                        await other.sendto(socks.build_datagram(target, b"forged"), here)
                        await client.sendto(socks.build_datagram(target, b"two"), here)
                        assert socks.parse_datagram(await client.recv(65_535)) == (target, b"two")
                nursery.cancel_scope.cancel()


async def test_a_client_that_is_reset_takes_nobody_with_it() -> None:
    asked = b"\x05\x01\x00\x05\x03\x00\x01" + bytes(6)
    with trio.fail_after(15):
        async with front() as port:
            async with await trio.open_tcp_stream(LOOPBACK, port) as control:
                await control.send_all(asked)
                said = b""
                while len(said) < 12:
                    said += await control.receive_some()
                here = trio.socket.socket(type=trio.socket.SOCK_DGRAM)
                taken = socks.parse_request(said[2:])
                assert taken is not None
                await trio.testing.wait_all_tasks_blocked()
                control.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with here:
                await _wait_until_free(here, taken[0].target.port)
            async with await trio.open_tcp_stream(LOOPBACK, port) as control:
                await control.send_all(asked)
                assert (await control.receive_some(2)) == b"\x05\x00"


async def _wait_until_free(asking: trio.socket.SocketType, port: int) -> None:
    """Until nobody has UDP ``port`` any more."""
    while True:
        try:
            await asking.bind((LOOPBACK, port))
        except OSError:
            await trio.sleep(0.01)
        else:
            return
