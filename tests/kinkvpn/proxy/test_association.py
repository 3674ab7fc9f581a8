"""UDP ASSOCIATE at a real port: datagrams there and back, and whose they may be."""

from __future__ import annotations

import math
import resource
import socket
import struct
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING

import trio
import trio.testing
from support.here import LOOPBACK, front, outgoing, stack

from esp.sa import Endpoint
from kinkvpn.proxy import names, socks
from kinkvpn.proxy.association import MOST_WAITING
from kinkvpn.proxy.front import Clients, Front, open_listener
from kinkvpn.proxy.names import Names
from kinkvpn.proxy.socks import ReplyCode
from kinkvpn.proxy.target import Target, parse_host

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

ASKED = b"\x05\x01\x00\x05\x03\x00\x01" + bytes(6)


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
    with trio.fail_after(15):
        async with front() as port:
            async with await trio.open_tcp_stream(LOOPBACK, port) as control:
                await control.send_all(ASKED)
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
                await control.send_all(ASKED)
                assert (await control.receive_some(2)) == b"\x05\x00"


@asynccontextmanager
async def associated(port: int) -> AsyncIterator[Target]:
    """Where datagrams of a client of the proxy at ``port`` are taken."""
    async with await trio.open_tcp_stream(LOOPBACK, port) as control:
        await control.send_all(ASKED)
        said = b""
        while len(said) < 2 or (found := socks.parse_request(said[2:])) is None:
            said += await control.receive_some()
        assert said[3] == ReplyCode.SUCCEEDED
        yield found[0].target


async def test_datagrams_wait_for_no_others_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "ANSWER_SECONDS", math.inf)
    with (
        trio.socket.socket(type=trio.socket.SOCK_DGRAM) as silent,
        trio.socket.socket(type=trio.socket.SOCK_DGRAM) as server,
        trio.socket.socket(type=trio.socket.SOCK_DGRAM) as client,
        trio.fail_after(15),
    ):
        await silent.bind((LOOPBACK, 0))
        await server.bind((LOOPBACK, 0))
        monkeypatch.setattr(names, "DNS_PORT", silent.getsockname()[1])
        asking = Names(stack(), [ip_address(LOOPBACK)])
        async with front(way=outgoing(asking)) as port, associated(port) as here:
            for number in range(2 * MOST_WAITING):
                lost = socks.build_datagram(Target(f"name{number}.test", 9), b"lost")
                await client.sendto(lost, (str(here.host), here.port))
            await silent.recv(65_535)
            target = Target(ip_address(LOOPBACK), server.getsockname()[1])
            await client.sendto(socks.build_datagram(target, b"one"), (str(here.host), here.port))
            assert await server.recv(65_535) == b"one"


async def test_a_client_by_ipv4_is_told_of_ipv4_whatever_the_port_is_of() -> None:
    listening = await open_listener(Endpoint("::", 0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Clients().serve, listening, Front(outgoing(), None).serve)
        with trio.fail_after(15):
            async with associated(listening.getsockname()[1]) as here:
                assert here.host == ip_address(LOOPBACK)
        nursery.cancel_scope.cancel()


async def test_where_there_is_no_socket_for_it_the_client_is_told() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with trio.fail_after(15):
        async with front() as port, await trio.open_tcp_stream(LOOPBACK, port) as control:
            await control.send_all(ASKED[:3])
            assert await control.receive_some(2) == b"\x05\x00"
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
                await control.send_all(ASKED[3:])
                assert (await control.receive_some())[1] == ReplyCode.GENERAL_FAILURE
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def _wait_until_free(asking: trio.socket.SocketType, port: int) -> None:
    """Until nobody has UDP ``port`` any more."""
    while True:
        try:
            await asking.bind((LOOPBACK, port))
        except OSError:
            await trio.sleep(0.01)
        else:
            return
