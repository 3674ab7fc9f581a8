"""The server, with real sockets: how many clients, how long each may take, and what hostile ones cannot do."""

from __future__ import annotations

import json
import os
import socket
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from kinkvpn.api.control import ControlSocket
from kinkvpn.api.server import (
    IDLE_SECONDS,
    LONGEST_REQUEST,
    MAX_CLIENTS,
    converse,
    local_client_may_change,
    serve,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from starlette.requests import Request

HELLO = b"GET /hello HTTP/1.1\r\nHost: k\r\n\r\n"
LONG = 4 << 20  # octets, more than any socket buffers


async def hello(asked: Request) -> Response:
    return PlainTextResponse("you may change" if asked.state.may_change else "you may look")


async def long(_asked: Request) -> Response:
    return PlainTextResponse("x" * LONG)


async def endless(_asked: Request) -> Response:
    async def drops() -> AsyncIterator[bytes]:
        while True:
            yield b"drip\n"
            await trio.sleep(1)

    return StreamingResponse(drops())


async def never(_asked: Request) -> Response:
    await trio.sleep_forever()
    raise AssertionError


async def defect(_asked: Request) -> Response:
    raise ZeroDivisionError


APP = Starlette(
    routes=[Route(f"/{each.__name__}", each, methods=["GET", "POST"]) for each in (hello, long, endless, never, defect)]
)


class Server:
    """It, and who has connected."""

    def __init__(self, path: Path, nursery: trio.Nursery) -> None:
        self.path = path
        self.nursery = nursery

    async def connect(self) -> trio.SocketStream:
        return await trio.open_unix_socket(str(self.path))

    async def answers(self) -> None:
        """Whatever somebody else has done, the next one is answered."""
        async with await self.connect() as stream:
            await stream.send_all(HELLO)
            assert (await head(stream)).startswith(b"HTTP/1.1 200")


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[Server]:
    control = ControlSocket(path)
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve, control.listener(), APP, may_change=local_client_may_change))
        yield Server(path, nursery)
        nursery.cancel_scope.cancel()
    control.close()


async def head(stream: trio.SocketStream) -> bytes:
    """An answer without its body, or with some of it."""
    received = b""
    while b"\r\n\r\n" not in received:
        more = await stream.receive_some()
        assert more, received
        received += more
    return received


async def ended(stream: trio.SocketStream) -> bool:
    """Reads to the end, whatever comes before. It may be a reset: what we sent was never read."""
    try:
        while await stream.receive_some():
            pass
    except trio.BrokenResourceError:
        pass
    return True


async def test_who_runs_the_daemon_may_change_things(tmp_path: Path) -> None:
    async with serving(tmp_path / "k.sock") as found, await found.connect() as stream:
        for _ in range(2):  # the connection stays
            await stream.send_all(HELLO)
            received = await head(stream)
            while not received.endswith(b"change"):
                received += await stream.receive_some()
            assert b"server" not in received.lower()


@pytest.mark.root
@pytest.mark.parametrize("may", ["look", "change"])
async def test_whom_the_file_lets_in_may_look_or_more(nursery: trio.Nursery, may: str) -> None:
    os.seteuid(65534)
    try:
        client, stream = await two_ends()
    finally:
        os.seteuid(0)
    nursery.start_soon(converse, stream, APP, local_client_may_change(stream, others=may == "change"))
    async with client:
        await client.send_all(HELLO)
        received = await head(client)
        while not received.endswith(f"may {may}".encode()):
            received += await client.receive_some()


async def two_ends() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Of one connection between local processes."""
    ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in socket.socketpair())
    return ours, theirs


async def test_a_silent_client_loses_its_place(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with serving(tmp_path / "k.sock") as found, await found.connect() as stream:
        before = trio.current_time()
        assert await ended(stream)
        assert trio.current_time() - before == pytest.approx(IDLE_SECONDS)


async def test_so_does_one_who_never_gets_to_the_end_of_a_request(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with serving(tmp_path / "k.sock") as found, await found.connect() as stream:
        sent = 0
        with suppress(trio.BrokenResourceError):
            for octet in HELLO[:-4] * 9:
                await stream.send_all(bytes([octet]))
                await trio.sleep(1)
                sent += 1
        assert sent <= IDLE_SECONDS + 1


async def test_one_who_does_not_read_loses_its_place(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with serving(tmp_path / "k.sock") as found, await found.connect() as stream:
        await stream.send_all(HELLO.replace(b"hello", b"long"))
        await trio.sleep(IDLE_SECONDS + 1)
        received = 0
        while more := len(await stream.receive_some()):
            received += more
        assert received < LONG


async def test_one_who_does_not_read_delays_no_end(tmp_path: Path) -> None:
    with trio.fail_after(15):
        async with serving(tmp_path / "k.sock") as found:
            stream = await found.connect()
            await stream.send_all(HELLO.replace(b"hello", b"long"))
            await found.answers()
    await stream.aclose()


async def test_one_client_too_many_is_told_so(tmp_path: Path) -> None:
    async with serving(tmp_path / "k.sock") as found:
        crowd = [await found.connect() for _ in range(MAX_CLIENTS + 1)]
        answer = await head(crowd[-1])
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["detail"] == "32 clients are here already: try again"
        assert await ended(crowd[-1])
        await crowd[0].aclose()
        with trio.fail_after(15):
            while True:
                try:
                    await found.answers()
                except (AssertionError, trio.BrokenResourceError):
                    await trio.sleep(0.01)
                else:
                    break
        for stream in crowd:
            await stream.aclose()


async def test_whoever_leaves_gives_its_place_up_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path / "k.sock") as found:
        for _ in range(MAX_CLIENTS + 3):
            async with await found.connect() as stream:
                await stream.send_all(HELLO)
                assert (await head(stream)).startswith(b"HTTP/1.1 200")
            await trio.testing.wait_all_tasks_blocked(0.002)


@pytest.mark.parametrize("path", [b"never", b"endless"])
async def test_what_is_done_for_somebody_ends_when_he_leaves(tmp_path: Path, path: bytes) -> None:
    async with serving(tmp_path / "k.sock") as found:
        for _ in range(MAX_CLIENTS + 3):
            stream = await found.connect()
            await stream.send_all(HELLO.replace(b"hello", path))
            await trio.testing.wait_all_tasks_blocked(0.002)
            await stream.aclose()
            await trio.testing.wait_all_tasks_blocked(0.002)
        await found.answers()


async def test_a_client_that_says_too_much_is_left(tmp_path: Path) -> None:
    async with serving(tmp_path / "k.sock") as found:
        async with await found.connect() as stream:
            await stream.send_all(b"GET /hello HTTP/1.1\r\nHost: k\r\nX: " + b"x" * 2 * LONGEST_REQUEST)
            assert (await head(stream)).startswith(b"HTTP/1.1 431 ")
            assert await ended(stream)
        await found.answers()


async def test_a_body_that_nobody_asked_for_is_not_waited_for(tmp_path: Path) -> None:
    async with serving(tmp_path / "k.sock") as found:
        async with await found.connect() as stream:
            await stream.send_all(
                b"POST /hello HTTP/1.1\r\nHost: k\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * 9000
            )
            assert (await head(stream)).startswith(b"HTTP/1.1 200")
            assert await ended(stream)
        await found.answers()


async def test_a_half_closed_connection_is_closed(tmp_path: Path) -> None:
    async with serving(tmp_path / "k.sock") as found:
        async with await found.connect() as stream:
            await stream.send_all(HELLO.replace(b"hello", b"never"))
            await stream.send_eof()
            assert await ended(stream)
        await found.answers()


async def test_a_defect_of_what_answers_ends_nobody_elses_connection(tmp_path: Path) -> None:
    async with serving(tmp_path / "k.sock") as found:
        async with await found.connect() as stream:
            await stream.send_all(HELLO.replace(b"hello", b"defect"))
            assert (await head(stream)).startswith(b"HTTP/1.1 500 ")
        await found.answers()


ODD = [
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 9 + b"\0\0\0\4\0\0\0\0\0",
    b"GET /hello HTTP/1.1\r\nHost: k\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: !\r\n\r\n",
    b"GET /hello HTTP/1.1\r\nHost: k\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" + b"\x81\xff" * 10,
    b"GET /%ff%fe HTTP/1.1\r\nHost: k\r\n\r\n",
    b"GET /hello HTTP/1.1\r\n\r\n",
    b"GET /hello HTTP/1.1\r\nHost: \xff\r\n\r\n",
    b"GET http://%zz/hello HTTP/1.1\r\nHost: k\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: k\r\n\r\n",
    b"POST /hello HTTP/1.1\r\nHost: k\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    b"POST /hello HTTP/1.1\r\nHost: k\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
    HELLO * 20,
    b"\0" * 100,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
]


@pytest.mark.parametrize("octets", ODD, ids=range(len(ODD)))
async def test_odd_requests_are_nobodys_trouble_but_their_own(tmp_path: Path, octets: bytes) -> None:
    async with serving(tmp_path / "k.sock") as found:
        async with await found.connect() as stream:
            await stream.send_all(octets)
            await trio.testing.wait_all_tasks_blocked(0.005)
        await found.answers()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from([HELLO, *ODD]) | st.binary(max_size=80), min_size=1, max_size=4))
async def test_any_octets_are_survived(pieces: list[bytes]) -> None:
    client, stream = await two_ends()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(converse, stream, APP, True)
            for piece in pieces:
                try:
                    await client.send_all(piece)
                except trio.BrokenResourceError:
                    break
            await client.aclose()
