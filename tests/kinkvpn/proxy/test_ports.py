"""Forwards at real ports of this host, which stands for both sides."""

from __future__ import annotations

from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from support.here import LOOPBACK, echo, outgoing, serving, stack

from esp.sa import Endpoint
from kinkvpn.proxy import ports as module
from kinkvpn.proxy.forwards import Forward, parse_forward
from kinkvpn.proxy.front import Clients
from kinkvpn.proxy.ports import MAX_CALLERS, MOST_WAITING, HostUdpSocket, Ports, carry_datagrams, host_udp
from kinkvpn.service.obstacles import StartRefused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

WAYS = ["-L", "-R"]


@asynccontextmanager
async def forwarding(way: str, forward: Forward) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        ports = Ports(stack(), outgoing(), Clients(), nursery)
        begin: Callable[[Forward], Awaitable[None]] = ports.forward_local if way == "-L" else ports.forward_remote
        await begin(forward)
        with trio.fail_after(15):
            yield
        nursery.cancel_scope.cancel()


async def free_port(kind: int = trio.socket.SOCK_STREAM) -> int:
    with trio.socket.socket(type=kind) as asked:
        await asked.bind((LOOPBACK, 0))
        port: int = asked.getsockname()[1]
        return port


@pytest.mark.parametrize("way", WAYS)
async def test_tcp(way: str) -> None:
    port = await free_port()
    async with (
        serving(echo) as target,
        forwarding(way, parse_forward(f"{LOOPBACK}:{port}:{LOOPBACK}:{target}")),
        await trio.open_tcp_stream(LOOPBACK, port) as stream,
    ):
        await stream.send_all(b"hello")
        await stream.send_eof()
        assert b"".join([chunk async for chunk in stream]) == b"hello"


async def test_callers_out_of_the_tunnel_have_only_so_many_places() -> None:
    port = await free_port()
    async with serving(echo) as target, forwarding("-R", parse_forward(f"{LOOPBACK}:{port}:{LOOPBACK}:{target}")):
        held = [await trio.open_tcp_stream(LOOPBACK, port) for _ in range(MAX_CALLERS)]
        for each in held:
            await each.send_all(b"x")
            assert await each.receive_some() == b"x"
        async with await trio.open_tcp_stream(LOOPBACK, port) as refused:
            assert await refused.receive_some() == b""
        for each in held:
            await each.aclose()


@pytest.mark.parametrize("way", WAYS)
async def test_datagrams_of_whom_was_not_asked_are_no_answers(way: str) -> None:
    port = await free_port(trio.socket.SOCK_DGRAM)
    with (
        trio.socket.socket(type=trio.socket.SOCK_DGRAM) as server,
        trio.socket.socket(type=trio.socket.SOCK_DGRAM) as client,
        trio.socket.socket(type=trio.socket.SOCK_DGRAM) as other,
    ):
        await server.bind((LOOPBACK, 0))
        async with forwarding(way, parse_forward(f"udp/{LOOPBACK}:{port}:{LOOPBACK}:{server.getsockname()[1]}")):
            await client.sendto(b"question", (LOOPBACK, port))
            _, source = await server.recvfrom(100)
            await other.sendto(b"forged", (LOOPBACK, source[1]))
            await server.sendto(b"answer", source)
            assert await client.recv(100) == b"answer"


@pytest.mark.parametrize("way", WAYS)
async def test_datagrams_of_several(way: str) -> None:
    port = await free_port(trio.socket.SOCK_DGRAM)
    with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as server:
        await server.bind((LOOPBACK, 0))
        target = server.getsockname()[1]
        async with forwarding(way, parse_forward(f"udp/{LOOPBACK}:{port}:{LOOPBACK}:{target}")):
            clients = [trio.socket.socket(type=trio.socket.SOCK_DGRAM) for _ in range(3)]
            for number, client in enumerate(clients):
                await client.sendto(bytes([number]), (LOOPBACK, port))
                octets, source = await server.recvfrom(100)
                await server.sendto(octets * 2, source)
                assert await client.recv(100) == bytes([number]) * 2
            for client in clients:
                client.close()


async def test_the_next_question_of_a_resolver_has_the_place_of_its_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each comes from another port, and none has an end."""
    monkeypatch.setattr(module, "MOST_FLOWS", 2)
    port = await free_port(trio.socket.SOCK_DGRAM)
    with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as server, ExitStack() as held:
        await server.bind((LOOPBACK, 0))
        async with forwarding("-L", parse_forward(f"udp/{LOOPBACK}:{port}:{LOOPBACK}:{server.getsockname()[1]}")):
            asked = []
            for number in range(4):
                client = held.enter_context(trio.socket.socket(type=trio.socket.SOCK_DGRAM))
                await client.sendto(bytes([number]), (LOOPBACK, port))
                asked.append((client, (await server.recvfrom(100))[1]))
            for client, source in asked[2:]:
                await server.sendto(b"answer", source)
                assert await client.recv(100) == b"answer"


async def test_datagrams_wait_for_no_others_name() -> None:
    looked_up, answered = trio.Event(), trio.Event()
    port = await free_port(trio.socket.SOCK_DGRAM)
    with (
        trio.socket.socket(type=trio.socket.SOCK_DGRAM) as server,
        trio.socket.socket(type=trio.socket.SOCK_DGRAM) as first,
        trio.socket.socket(type=trio.socket.SOCK_DGRAM) as second,
    ):
        await server.bind((LOOPBACK, 0))

        async def opened() -> tuple[HostUdpSocket, Endpoint]:
            if not looked_up.is_set():
                looked_up.set()
                await answered.wait()
            return await host_udp(Endpoint(LOOPBACK, 0)), Endpoint(*server.getsockname())

        with trio.fail_after(15):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(carry_datagrams, await host_udp(Endpoint(LOOPBACK, port)), opened)
                for number in range(2 * MOST_WAITING):
                    await first.sendto(bytes([number]), (LOOPBACK, port))
                await looked_up.wait()
                await second.sendto(b"second", (LOOPBACK, port))
                assert await server.recv(100) == b"second"
                answered.set()
                assert [await server.recv(100) for _ in range(MOST_WAITING)] == [
                    bytes([number]) for number in range(MOST_WAITING)
                ]
                nursery.cancel_scope.cancel()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("protocol", ["", "udp/"])
async def test_a_port_that_is_taken(way: str, protocol: str) -> None:
    kind = trio.socket.SOCK_DGRAM if protocol else trio.socket.SOCK_STREAM
    with trio.socket.socket(type=kind) as taken:
        await taken.bind((LOOPBACK, 0))
        if not protocol:
            taken.listen()
        forward = parse_forward(f"{protocol}{LOOPBACK}:{taken.getsockname()[1]}:{LOOPBACK}:9")
        async with trio.open_nursery() as nursery:
            ports = Ports(stack(), outgoing(), Clients(), nursery)
            with pytest.raises(StartRefused, match="Address already in use"):
                await (ports.forward_local if way == "-L" else ports.forward_remote)(forward)
