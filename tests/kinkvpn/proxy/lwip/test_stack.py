"""lwIP in this process, and another one in another: TCP and UDP of both families between them, over a socket pair."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from ipaddress import ip_address
from random import Random
from typing import TYPE_CHECKING

import pytest
import trio
from scapy.layers.inet import IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from esp.sa import Endpoint
from kinkvpn.proxy.lwip.stack import FLOWS, LwipStack, LwipUdpSocket, pack, unpack
from kinkvpn.proxy.stack import StackError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

HERE, THERE = ("10.0.0.1", "fd00::1"), ("10.0.0.2", "fd00::2")
SECONDS = 60.0


def devices() -> tuple[socket.socket, socket.socket]:
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for each in pair:
        each.setblocking(False)
    return pair


@pytest.fixture(scope="module")
def device() -> Iterator[int]:
    """What leads to the peer, which lives as long as these tests do."""
    near, far = devices()
    with near, far:
        peer = subprocess.Popen(
            [sys.executable, "-P", "-m", "support.lwip_peer", str(far.fileno()), *THERE],
            pass_fds=[far.fileno()],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},  # the same lwIP, wherever it was built
        )
        yield near.fileno()
        peer.kill()
        peer.wait()


@asynccontextmanager
async def stack_on(device: int) -> AsyncIterator[LwipStack]:
    stack = LwipStack(device, vnet=False, mtu=1400, addresses=[ip_address(each) for each in HERE])
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            await nursery.start(stack.run)
            yield stack
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def connected(stack: LwipStack, address: str, port: int) -> AsyncIterator[trio.SocketStream]:
    """Once the peer listens."""
    while True:
        try:
            connection = await stack.connect(Endpoint(address, port))
            break
        except StackError as error:
            if error.errno not in (errno.ECONNREFUSED, errno.ETIMEDOUT):
                raise
            await trio.sleep(0.01)
    try:
        async with trio.SocketStream(await connection.stream()) as stream:
            yield stream
    finally:
        connection.close()


async def wait_for_peer(stack: LwipStack, port: int = 7, number: int = 0) -> None:
    async with connected(stack, THERE[number], port):
        pass


async def wait_for_no_flows(stack: LwipStack, but: int = 0) -> None:
    while stack.counters()["flows"] > but:  # noqa: ASYNC110 - nobody tells
        await trio.sleep(0.01)


async def packet_from(far: socket.socket) -> bytes:
    await trio.lowlevel.wait_readable(far)
    return far.recv(65_536)


async def talk(client: trio.socket.SocketType) -> None:
    while True:
        await client.send(b"anybody?")
        await trio.sleep(0.01)


def test_endpoints_are_read_as_they_are_written() -> None:
    for endpoint in (Endpoint("192.0.2.1", 80), Endpoint("2001:db8::1", 65_535)):
        assert unpack(pack(endpoint)) == endpoint


@pytest.mark.parametrize("address", THERE)
async def test_octets_come_back_and_so_does_the_end(device: int, address: str) -> None:
    async with stack_on(device) as stack, connected(stack, address, 7) as stream, trio.open_nursery() as nursery:
        octets = os.urandom(3_000_000)

        async def send() -> None:
            await stream.send_all(octets)
            await stream.send_eof()

        nursery.start_soon(send)
        assert b"".join([chunk async for chunk in stream]) == octets


async def test_a_clients_socket_in_the_place_of_ours(device: int) -> None:
    """As a relay does it: both ends, and the end of each direction, over TCP of the kernel."""
    async with stack_on(device) as stack:
        await wait_for_peer(stack)
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with listener, trio.open_nursery() as nursery:
            ended = trio.Event()

            async def serve() -> None:
                accepted = await listener.accept()
                connection = await stack.connect(Endpoint(THERE[0], 7))
                await connection.relay(accepted.socket)
                ended.set()

            nursery.start_soon(serve)
            client = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
            async with client:
                octets = os.urandom(500_000)
                nursery.start_soon(client.send_all, octets)
                back = bytearray()
                while len(back) < len(octets):
                    back += await client.receive_some()
                await client.send_eof()
                assert await client.receive_some() == b""
                assert back == octets
            await ended.wait()
        await wait_for_no_flows(stack)


async def test_who_does_not_read_holds_up_nobody_but_the_sender(device: int) -> None:
    async with stack_on(device) as stack, AsyncExitStack() as held:
        idle = [await held.enter_async_context(connected(stack, THERE[0], 19)) for _ in range(5)]
        stream = await held.enter_async_context(connected(stack, THERE[1], 9))
        await stream.send_all(bytes(2_000_000))
        await stream.send_eof()
        assert await stream.receive_some() == b"2000000"
        for each in idle:
            assert sum([len(chunk) async for chunk in each]) == 1_000_000


async def test_nobody_listens(device: int) -> None:
    async with stack_on(device) as stack:
        await wait_for_peer(stack)
        with pytest.raises(StackError) as refused:
            await stack.connect(Endpoint(THERE[0], 1))
        assert refused.value.errno == errno.ECONNREFUSED


async def test_a_reset_reaches_the_client(device: int) -> None:
    async with stack_on(device) as stack:
        await wait_for_peer(stack)
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with listener, trio.open_nursery() as nursery:

            async def serve() -> None:
                accepted = await listener.accept()
                await (await stack.connect(Endpoint(THERE[0], 13))).relay(accepted.socket)

            nursery.start_soon(serve)
            client = socket.create_connection(("127.0.0.1", listener.socket.getsockname()[1]))
            with client:
                trying = trio.socket.from_stdlib_socket(client)
                with pytest.raises((ConnectionResetError, BrokenPipeError)):
                    await talk(trying)


@pytest.mark.parametrize("number", [0, 1])
async def test_datagrams_there_and_back_even_in_fragments(device: int, number: int) -> None:
    async with stack_on(device) as stack:
        await wait_for_peer(stack, number=number)
        udp = await stack.open_udp(Endpoint(HERE[number], 0))
        for octets in (b"", b"one", os.urandom(9_000)):
            while True:  # the peer's socket may be a moment later than its listener
                await udp.send(octets, Endpoint(THERE[number], 7))
                with trio.move_on_after(1):
                    found = await udp.receive()
                    if found[0] == octets:
                        break
            assert found == (octets, Endpoint(THERE[number], 7))
        udp.close()


async def test_one_at_a_time(device: int) -> None:
    async with stack_on(device):
        near, far = devices()
        with near, far, pytest.raises(OSError, match="busy"):
            LwipStack(near.fileno(), vnet=False, mtu=1400, addresses=[ip_address("10.0.0.9")])


async def test_a_port_that_is_taken(device: int) -> None:
    async with stack_on(device) as stack:
        listener = await stack.listen(Endpoint("0.0.0.0", 80))
        with pytest.raises(StackError) as refused:
            await stack.listen(Endpoint("0.0.0.0", 80))
        assert refused.value.errno == errno.EADDRINUSE
        listener.close()


async def test_more_than_there_is_room_for(device: int) -> None:
    async with stack_on(device) as stack:
        sockets = [await stack.open_udp(Endpoint(HERE[0], 0)) for _ in range(FLOWS)]
        with pytest.raises(StackError) as refused:
            await stack.open_udp(Endpoint(HERE[0], 0))
        assert refused.value.errno == errno.ENOBUFS
        for each in sockets:
            each.close()
        await wait_for_no_flows(stack)


async def test_packets_of_anybody_harm_nothing(device: int) -> None:
    """Noise, and real packets with something changed: the stack goes on, and lets nothing of it through."""
    random = Random(6)
    near, far = devices()
    with near, far:
        async with stack_on(near.fileno()) as stack:
            listener = await stack.listen(Endpoint("0.0.0.0", 80))
            syn = bytes.fromhex("4500002800010000400600000a0000020a0000010400005000000001000000005002040000000000")
            for number in range(3_000):
                packet = bytearray(random.randbytes(random.randrange(80)) if number % 2 else syn)
                if packet:
                    packet[0] = random.choice((0x45, 0x60, packet[0]))
                for _ in range(random.randrange(4)):
                    if packet:
                        packet[random.randrange(len(packet))] = random.randrange(256)
                if packet:
                    with trio.move_on_after(5):
                        await trio.lowlevel.wait_writable(far)
                    far.send(packet)
                while True:
                    try:
                        far.recv(65_536)
                    except BlockingIOError:
                        break
            udp = await stack.open_udp(Endpoint(HERE[0], 0))
            udp.close()
            with trio.move_on_after(0.1) as waited:
                await listener.accept()
            assert waited.cancelled_caught
            listener.close()


async def test_a_connection_reset_before_anybody_said_where_to_leaves_nothing() -> None:
    near, far = devices()
    with near, far:
        async with stack_on(near.fileno()) as stack:
            listener = await stack.listen(Endpoint("0.0.0.0", 80))
            there = IP(src=THERE[0], dst=HERE[0])
            far.send(bytes(there / TCP(sport=1024, dport=80, flags="S", seq=100)))
            acknowledged = IP(await packet_from(far))[TCP].seq + 1
            far.send(bytes(there / TCP(sport=1024, dport=80, flags="PA", seq=101, ack=acknowledged) / Raw(b"early")))
            connection, _ = await listener.accept()
            far.send(bytes(there / TCP(sport=1024, dport=80, flags="R", seq=106)))
            await wait_for_no_flows(stack, but=1)
            connection.close()
            listener.close()


async def test_a_datagram_in_a_hundred_fragments_is_whole() -> None:
    near, far = devices()
    with near, far:
        async with stack_on(near.fileno()) as stack:
            udp = await stack.open_udp(Endpoint(HERE[0], 5000))
            octets = os.urandom(99 * 8)
            datagram = IP(src=THERE[0], dst=HERE[0]) / UDP(sport=7, dport=5000) / Raw(octets)
            for each in fragment(datagram, fragsize=8):
                far.send(bytes(each))
            assert await udp.receive() == (octets, Endpoint(THERE[0], 7))
            udp.close()


def drained(far: socket.socket) -> list[bytes]:
    packets = []
    with suppress(BlockingIOError):
        while True:
            packets.append(far.recv(65_536))
    return packets


async def fill(stack: LwipStack, udp: LwipUdpSocket) -> None:
    """The device, with datagrams; none of them waits for it then."""
    while not stack.counters()["refused"]:
        await udp.send(bytes(1_000), Endpoint(THERE[0], 9))
        await trio.lowlevel.checkpoint()
    for _ in range(10):  # turns, until all of them are refused
        (await stack.open_udp(Endpoint(HERE[0], 0))).close()


async def held_back(far: socket.socket, udp: LwipUdpSocket) -> list[IP]:
    """TCP that comes out of the device once it is not full any more, and before anything new does."""
    found = drained(far)
    await udp.send(b"last", Endpoint(THERE[0], 9))
    while not found or not found[-1].endswith(b"last"):
        found.append(await packet_from(far))
    return [packet for packet in map(IP, found) if TCP in packet]


async def test_a_connection_that_begins_while_the_device_is_full_begins_when_it_is_not() -> None:
    """And not when lwIP would send its SYN again."""
    near, far = devices()
    with near, far:
        async with stack_on(near.fileno()) as stack, trio.open_nursery() as nursery:
            udp = await stack.open_udp(Endpoint(HERE[0], 0))
            await fill(stack, udp)
            await wait_for_no_flows(stack, but=1)
            nursery.start_soon(stack.connect, Endpoint(THERE[0], 80))
            while stack.counters()["flows"] == 1:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.01)
            assert [packet[TCP].flags for packet in await held_back(far, udp)] == ["S"]
            udp.close()
            nursery.cancel_scope.cancel()


async def test_what_comes_while_the_device_is_full_is_acknowledged_when_it_is_not() -> None:
    """lwIP's timer tries once, and forgets it: the peer had to send it again, after its own."""
    near, far = devices()
    with near, far:
        async with stack_on(near.fileno()) as stack:
            listener = await stack.listen(Endpoint("0.0.0.0", 80))
            there = IP(src=THERE[0], dst=HERE[0])
            far.send(bytes(there / TCP(sport=1024, dport=80, flags="S", seq=100)))
            acknowledged = IP(await packet_from(far))[TCP].seq + 1
            far.send(bytes(there / TCP(sport=1024, dport=80, flags="A", seq=101, ack=acknowledged)))
            connection, _ = await listener.accept()
            udp = await stack.open_udp(Endpoint(HERE[0], 0))
            await fill(stack, udp)
            far.send(bytes(there / TCP(sport=1024, dport=80, flags="PA", seq=101, ack=acknowledged) / Raw(b"hello")))
            stream = await connection.stream()
            assert await stream.recv(10) == b"hello"
            await trio.sleep(0.15)  # three times that of the timer
            assert 106 in [packet[TCP].ack for packet in await held_back(far, udp)]
            connection.close()
            listener.close()
            udp.close()


@pytest.mark.parametrize(("address", "kind", "headers"), [(THERE[0], IP, 40), (THERE[1], IPv6, 60)])
async def test_connections_are_told_of_a_smaller_mtu(address: str, kind: type[IP | IPv6], headers: int) -> None:
    near, far = devices()
    with near, far:
        async with stack_on(near.fileno()) as stack, trio.open_nursery() as nursery:
            stack.limit_mtu(1300)
            nursery.start_soon(stack.connect, Endpoint(address, 80))
            assert dict(kind(await packet_from(far))[TCP].options)["MSS"] == 1300 - headers
            nursery.cancel_scope.cancel()
