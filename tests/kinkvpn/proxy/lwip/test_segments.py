"""How large segments are: as the peer has it in its SYN, and a path in "packet too big", where that can be believed."""

from __future__ import annotations

import os
import socket
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING, Self

import pytest
import trio
from scapy.layers.inet import TCP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.packet import Raw
from support.raw_tcp import HERE, RawTcp

from esp.sa import Endpoint
from kinkvpn.proxy.lwip.stack import LwipConnection, LwipStack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

MTU = 1400
HERE6, THERE6 = "fd00::1", "fd00::2"
LEAST = 48


@asynccontextmanager
async def connected(
    device: socket.socket, remote: Endpoint, accept: Callable[[], Awaitable[None]], *, vnet: bool
) -> AsyncIterator[tuple[LwipStack, LwipConnection]]:
    own = [ip_address(HERE), ip_address(HERE6)]
    stack = LwipStack(device.fileno(), vnet=vnet, mtu=MTU, addresses=own)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await nursery.start(stack.run)
            connections = []

            async def connect() -> None:
                connections.append(await stack.connect(remote))

            async with trio.open_nursery() as connecting:
                connecting.start_soon(connect)
                await accept()
            yield stack, connections[0]
            connections[0].close()
            nursery.cancel_scope.cancel()


async def take(far: RawTcp, count: int) -> tuple[bytes, int]:
    """So many octets, all of them acknowledged, and how long the longest segment was; some may come twice."""
    got, longest, begins = b"", 0, far.received
    while len(got) < count:
        octets = (await far.next_segment())[1]
        behind = far.received - begins - len(got)
        got += octets[-behind:] if behind > 0 else b""
        longest = max(longest, len(octets))
        far.received = begins + len(got)
        if octets:
            far.send()
    return got, longest


@pytest.mark.parametrize(("mss", "most"), [(1, LEAST), (LEAST, LEAST), (536, 536), (0, MTU - 40), (65_535, MTU - 40)])
async def test_segments_are_as_large_as_the_peer_takes_but_for_what_nobody_can_mean(mss: int, most: int) -> None:
    octets = os.urandom(10_000)
    with RawTcp() as far:
        async with connected(far.device, far.remote, lambda: far.accept(mss), vnet=True) as (_, connection):
            await (await connection.stream()).send(octets)
            assert await take(far, len(octets)) == (octets, most)


async def test_an_mss_that_is_not_in_a_syn_is_none() -> None:
    """RFC 9293 §3.7.1; who does not know the sequence numbers could send it."""
    octets = os.urandom(100_000)
    with RawTcp() as far:
        async with connected(far.device, far.remote, lambda: far.accept(1_000), vnet=True) as (stack, connection):
            far.window = 0
            far.send()
            stream = await connection.stream()
            await stream.send(octets[:1_500])
            received = stack.counters()["received"]
            far.send(mss=1)
            while stack.counters()["received"] == received:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.01)
            await stream.send(octets[1_500:])
            far.window = 65_535
            far.send()
            assert await take(far, len(octets)) == (octets, 1_000)


class Peer6:
    """At the other end of a socket pair without vnet headers: TCP over IPv6 by hand."""

    def __init__(self) -> None:
        self.device, self._far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for each in (self.device, self._far):
            each.setblocking(False)
        self._port = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.device.close()
        self._far.close()

    async def packet(self) -> IPv6:
        await trio.lowlevel.wait_readable(self._far)
        return IPv6(self._far.recv(65_536))

    async def segment(self) -> IPv6:
        """The next one with octets."""
        while True:
            packet = await self.packet()
            if Raw in packet:
                return packet

    async def accept(self) -> None:
        while "S" not in (asked := (await self.packet())[TCP]).flags:
            pass
        self._port = asked.sport
        self._send(TCP(flags="SA", seq=0, ack=asked.seq + 1, window=65_535, options=[("MSS", 8_000)]))

    def acknowledge(self, number: int) -> None:
        self._send(TCP(flags="A", seq=1, ack=number, window=65_535))

    def say(self, packet: IPv6) -> None:
        self._far.send(bytes(packet))

    def _send(self, segment: TCP) -> None:
        segment.sport, segment.dport = 80, self._port
        self.say(IPv6(src=THERE6, dst=HERE6) / segment)

    async def take(self, count: int, *, begins: int, first: IPv6 | None = None) -> list[bytes]:
        """What ``count`` octets from a sequence number on come in, all acknowledged; ``first`` has come already."""
        segments: list[bytes] = []
        while (had := sum(map(len, segments))) < count:
            packet, first = first or await self.segment(), None
            if packet[TCP].seq == begins + had:
                segments.append(bytes(packet[Raw]))
                self.acknowledge(begins + had + len(segments[-1]))
        return segments


def too_big(packet: IPv6, mtu: int) -> IPv6:
    """What a router says of ``packet``."""
    return IPv6(src="fd00::99", dst=packet.src) / ICMPv6PacketTooBig(mtu=mtu) / Raw(bytes(packet)[:1_232])


REMOTE = Endpoint(THERE6, 80)


async def test_what_is_too_big_for_the_path_is_cut_again_and_the_next_connection_knows() -> None:
    octets = os.urandom(50_000)
    with Peer6() as far:
        async with connected(far.device, REMOTE, far.accept, vnet=False) as (stack, connection):
            stream = await connection.stream()
            await stream.send(octets)
            first = await far.segment()
            assert len(first[Raw]) == MTU - 60
            far.say(too_big(first, 1_300))
            segments = await far.take(len(octets), begins=first[TCP].seq)
            assert b"".join(segments) == octets
            assert {len(each) for each in segments[:-1]} <= {100, 1_240}  # ends of old ones, and those of new ones
            async with trio.open_nursery() as nursery:
                nursery.start_soon(far.accept)
                second = await stack.connect(REMOTE)
            await (await second.stream()).send(octets)
            assert len((await far.segment())[Raw]) == 1_240
            second.close()


def other_port(packet: IPv6) -> None:
    packet[TCP].sport ^= 1


def long_ago(packet: IPv6) -> None:
    packet[TCP].seq -= 1


def never_sent(packet: IPv6) -> None:
    packet[TCP].seq += 1_000_000


def of_somebody_else(packet: IPv6) -> None:
    packet.dst = "fd00::3"


def as_it_was(packet: IPv6) -> None:
    pass


@pytest.mark.parametrize(
    ("change", "mtu", "broken"),
    [
        *((each, 1_300, False) for each in (other_port, long_ago, never_sent, of_somebody_else)),
        *((as_it_was, mtu, False) for mtu in (0, 1_279, MTU, MTU + 1)),
        (as_it_was, 1_300, True),
    ],
)
async def test_what_quotes_nothing_of_ours_or_is_too_small_is_not_believed(
    change: Callable[[IPv6], None], mtu: int, broken: bool
) -> None:
    octets = os.urandom(10_000)
    with Peer6() as far:
        async with connected(far.device, REMOTE, far.accept, vnet=False) as (_, connection):
            await (await connection.stream()).send(octets)
            first = await far.segment()
            quoted = IPv6(bytes(first))
            change(quoted)
            said = too_big(quoted, mtu)
            if broken:
                said[ICMPv6PacketTooBig].cksum = 1
            far.say(said)
            segments = await far.take(len(octets), begins=first[TCP].seq, first=first)
            assert b"".join(segments) == octets
            assert {len(each) for each in segments[:-1]} == {MTU - 60}


async def test_noise_that_looks_like_packet_too_big_harms_nothing() -> None:
    octets = os.urandom(10_000)
    with Peer6() as far:
        async with connected(far.device, REMOTE, far.accept, vnet=False) as (_, connection):
            await (await connection.stream()).send(octets)
            first = await far.segment()
            whole = bytes(too_big(first, 1_300))
            for ends in range(1, 120):
                far.say(whole[:ends])
            segments = await far.take(len(octets), begins=first[TCP].seq, first=first)
            assert b"".join(segments) == octets


async def test_a_tunnel_that_carries_less_has_segments_cut_again() -> None:
    octets = os.urandom(20_000)
    with Peer6() as far:
        async with connected(far.device, REMOTE, far.accept, vnet=False) as (stack, connection):
            await (await connection.stream()).send(octets)
            first = await far.segment()
            stack.limit_mtu(1_300)
            while (again := await far.segment())[TCP].seq != first[TCP].seq or len(again[Raw]) != 1_240:
                pass
            assert b"".join(await far.take(len(octets), begins=first[TCP].seq, first=again)) == octets
