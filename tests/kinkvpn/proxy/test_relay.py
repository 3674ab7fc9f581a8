"""Octets between two real connections: all of them, each end for itself, and resets."""

from __future__ import annotations

import os
import socket

import pytest
import trio
import trio.testing
from support.here import LOOPBACK

from kinkvpn.proxy.relay import CHUNK, SILENT_SECONDS, relay


async def connection() -> tuple[trio.socket.SocketType, trio.socket.SocketType]:
    listener = trio.socket.socket()
    with listener:
        await listener.bind((LOOPBACK, 0))
        listener.listen()
        near = trio.socket.socket()
        await near.connect(listener.getsockname())
        return near, (await listener.accept())[0]


async def test_all_of_it_and_the_end_of_each_direction() -> None:
    client, one = await connection()
    other, server = await connection()
    octets = os.urandom(2_000_000)
    with client, server, trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay, one, other)
            nursery.start_soon(trio.SocketStream(client).send_all, octets)
            got = bytearray()
            while len(got) < len(octets):
                got += await server.recv(65_536)
            assert got == octets
            client.shutdown(socket.SHUT_WR)
            assert await server.recv(1) == b""
            await server.send(b"late")
            server.shutdown(socket.SHUT_WR)
            assert await client.recv(10) == b"late"
            assert await client.recv(10) == b""


async def test_who_does_not_read_holds_up_who_sends() -> None:
    client, one = await connection()
    other, server = await connection()
    for each in (client, one, other, server):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    sent = 0
    with client, server, trio.fail_after(15):
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                nonlocal sent
                while True:
                    sent += await client.send(bytes(65_536))

            nursery.start_soon(relay, one, other)
            nursery.start_soon(send)
            before = -1
            while before < sent:
                before = sent
                await trio.testing.wait_all_tasks_blocked(0.05)
            assert sent < 2 * CHUNK + 2_000_000
            nursery.cancel_scope.cancel()


async def test_a_reset_is_one_at_the_other_side() -> None:
    client, one = await connection()
    other, server = await connection()
    with server, trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay, one, other)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
            client.close()
            with pytest.raises(ConnectionResetError):
                await server.recv(1)


async def test_what_one_side_has_ended_and_the_other_is_silent_on_is_given_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    client, one = await connection()
    other, server = await connection()
    with client, server:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay, one, other)
            await trio.sleep(3 * SILENT_SECONDS)  # as long as both are there nobody is in a hurry
            assert one.fileno() >= 0
            client.shutdown(socket.SHUT_WR)
            assert await server.recv(1) == b""
            await trio.sleep(0.9 * SILENT_SECONDS)
            await server.send(b"late")
            assert await client.recv(10) == b"late"
            await trio.sleep(0.9 * SILENT_SECONDS)
            assert one.fileno() >= 0
        assert one.fileno() < 0
