"""The port itself: how many there may be, and how long they may take."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import trio
from support.here import LOOPBACK, front

from esp.sa import Endpoint
from kinkvpn.proxy.front import ASKING_SECONDS, MAX_CLIENTS, Clients, open_listener
from kinkvpn.service.obstacles import StartRefused

if TYPE_CHECKING:
    from trio.socket import SocketType


async def test_one_more_than_there_is_room_for_is_closed_and_the_next_one_served_again() -> None:
    async with front() as port:
        with trio.fail_after(30):
            held = [await trio.open_tcp_stream(LOOPBACK, port) for _ in range(MAX_CLIENTS)]
            for each in held:  # accepted, and that shows
                await each.send_all(b"\x05\x01\x00")
                assert await each.receive_some(2) == b"\x05\x00"
            async with await trio.open_tcp_stream(LOOPBACK, port) as refused:
                assert await refused.receive_some() == b""
            await held.pop().aclose()
            while True:
                async with await trio.open_tcp_stream(LOOPBACK, port) as served:
                    try:
                        await served.send_all(b"\x05\x01\x00")
                        if await served.receive_some(2) == b"\x05\x00":
                            break
                    except trio.BrokenResourceError:
                        continue
            for each in held:
                await each.aclose()


async def test_who_says_nothing_is_closed(autojump_clock: trio.testing.MockClock) -> None:
    async with front(clients=Clients()) as port, await trio.open_tcp_stream(LOOPBACK, port) as silent:
        assert await silent.receive_some() == b""
        assert trio.current_time() >= ASKING_SECONDS


async def test_a_defect_that_one_client_finds_is_told_and_not_everybodys_end(caplog: pytest.LogCaptureFixture) -> None:
    async def each(client: SocketType) -> None:
        if await client.recv(1) == b"!":
            raise ZeroDivisionError
        await client.send(b"served")

    listening = trio.socket.socket()
    await listening.bind((LOOPBACK, 0))
    listening.listen()
    port = listening.getsockname()[1]
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Clients().serve, listening, each)
            async with await trio.open_tcp_stream(LOOPBACK, port) as stream:
                await stream.send_all(b"!")
                assert await stream.receive_some() == b""
            async with await trio.open_tcp_stream(LOOPBACK, port) as stream:
                await stream.send_all(b"?")
                assert await stream.receive_some() == b"served"
            nursery.cancel_scope.cancel()
    assert [(record.levelno, record.message) for record in caplog.records] == [(logging.ERROR, "client_failed")]


async def test_a_client_of_any_port_is_asked_whether_it_is_there_and_waits_for_no_other_octets() -> None:
    found = []

    async def each(client: SocketType) -> None:
        found.append(client.getsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_KEEPALIVE))
        found.append(client.getsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY))

    with trio.fail_after(15):
        listening = await open_listener(Endpoint(LOOPBACK, 0))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Clients().serve, listening, each)
            async with await trio.open_tcp_stream(LOOPBACK, listening.getsockname()[1]) as stream:
                assert await stream.receive_some() == b""
            nursery.cancel_scope.cancel()
    assert found == [1, 1]


async def test_a_port_that_is_taken() -> None:
    with await open_listener(Endpoint(LOOPBACK, 0)) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(StartRefused, match=f"{LOOPBACK} port {port}: Address already in use: choose another"):
            await open_listener(Endpoint(LOOPBACK, port))
