"""The kernel's stack, with sockets of this namespace: where they lead, and what its errors are."""

from __future__ import annotations

import errno
import socket

import pytest
import trio
from support.here import LOOPBACK, stack

from esp.sa import Endpoint
from kinkvpn.proxy.kernel import KernelStack
from kinkvpn.proxy.relay import IDLE_SECONDS
from kinkvpn.proxy.stack import StackError
from kinkvpn.rootless.channel import Channel
from kinkvpn.rootless.outside import Namespace


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        port: int = taken.getsockname()[1]
        return port


@pytest.mark.parametrize(("here", "wildcard"), [(LOOPBACK, "0.0.0.0"), ("::1", "::")])
async def test_a_listener_and_who_comes(here: str, wildcard: str) -> None:
    own = stack()
    local = Endpoint(here, free_port())
    listener = await own.listen(Endpoint(wildcard, local.port))
    with trio.fail_after(15):
        connection = await own.connect(local)
        accepted, source = await listener.accept()
        stream, theirs = await connection.stream(), await accepted.stream()
        assert source == Endpoint(*stream.getsockname()[:2])
        await stream.send(b"hello")
        assert await theirs.recv(10) == b"hello"
        for each in (stream, theirs):
            assert each.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert each.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == IDLE_SECONDS
            assert each.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        connection.close()
        assert await theirs.recv(10) == b""
    accepted.close()
    listener.close()


async def test_what_the_kernel_refuses_is_the_stacks_error_with_its_errno() -> None:
    own = stack()
    with pytest.raises(StackError, match="Connection refused") as refused:
        await own.connect(Endpoint(LOOPBACK, free_port()))
    assert refused.value.errno == errno.ECONNREFUSED
    for open_at in (own.listen, own.open_udp):
        with pytest.raises(StackError) as refused:
            await open_at(Endpoint("192.0.2.1", 0))
        assert refused.value.errno == errno.EADDRNOTAVAIL


async def test_datagrams_and_a_port_that_nobody_has_any_more() -> None:
    own = stack()
    with trio.fail_after(15), trio.socket.socket(type=trio.socket.SOCK_DGRAM) as other:
        await other.bind((LOOPBACK, 0))
        udp = await own.open_udp(Endpoint(LOOPBACK, 0))
        await udp.send(b"to nobody", Endpoint(LOOPBACK, free_port()))
        await udp.send(b"one", Endpoint(LOOPBACK, other.getsockname()[1]))
        octets, source = await other.recvfrom(10)
        assert octets == b"one"
        await other.sendto(b"two", source)
        assert await udp.receive() == (b"two", Endpoint(LOOPBACK, other.getsockname()[1]))
        udp.close()


async def test_a_namespace_that_nobody_lives_in_any_more() -> None:
    ours, theirs = Channel.pair()
    theirs.close()
    space = Namespace(ours)
    with pytest.raises(StackError):
        await KernelStack(space, (4,)).connect(Endpoint(LOOPBACK, 80))
    space.close()
