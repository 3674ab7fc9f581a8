"""What has come for a program that does not read: all of it is kept, and not much more than that."""

from __future__ import annotations

import ctypes
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING

import trio
from support.raw_tcp import HERE, RawTcp

from kinkvpn.proxy.lwip.stack import LwipConnection, LwipStack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PIECES = 8_000
# What each segment costs while nobody takes it; its packet alone is 41 octets, and lwIP's own struct 24.
MOST_OCTETS_EACH = 20
# Of a connection without window scaling; and segments of nearly that, which would be a hundred times that in all.
WINDOW = 65_535
EARLY = 400


class Heap(ctypes.Structure):
    """mallinfo(3), struct mallinfo2, whose eighth is uordblks."""

    _fields_ = [(f"field{number}", ctypes.c_size_t) for number in range(10)]


def heap() -> int:
    """Octets that malloc(3) has given to anybody in this process, of all threads; 0 with AddressSanitizer's."""
    library = ctypes.CDLL(None)
    library.mallinfo2.restype = Heap
    return int(library.mallinfo2().field7)


@asynccontextmanager
async def connected(far: RawTcp) -> AsyncIterator[tuple[LwipStack, LwipConnection]]:
    """A connection to ``far``."""
    with trio.fail_after(60):
        stack = LwipStack(far.device.fileno(), vnet=True, mtu=1400, addresses=[ip_address(HERE)])
        async with trio.open_nursery() as nursery:
            await nursery.start(stack.run)
            connections = []

            async def connect() -> None:
                connections.append(await stack.connect(far.remote))

            async with trio.open_nursery() as connecting:
                connecting.start_soon(connect)
                await far.accept()
            yield stack, connections[0]
            connections[0].close()
            nursery.cancel_scope.cancel()


async def wait_for_packets(stack: LwipStack, count: int) -> None:
    while stack.counters()["received"] < count:  # noqa: ASYNC110 - nobody tells
        await trio.sleep(0.01)


async def read(connection: LwipConnection, count: int) -> bytes:
    stream = await connection.stream()
    got = bytearray()
    while len(got) < count:
        got += await stream.recv(65_536)
    return bytes(got)


async def test_segments_of_one_octet_cost_no_packet_each() -> None:
    with RawTcp() as far:
        async with connected(far) as (stack, connection):
            before = heap()
            await far.send_in_pieces(PIECES)
            await wait_for_packets(stack, 1 + PIECES)
            assert heap() - before < PIECES * MOST_OCTETS_EACH
            assert await read(connection, PIECES) == bytes(number % 251 for number in range(PIECES))


async def test_segments_that_come_too_early_cost_no_more_than_the_window_however_they_lie_over_each_other() -> None:
    octets = bytes(number % 251 for number in range(WINDOW))
    with RawTcp() as far:
        async with connected(far) as (stack, connection):
            before = heap()
            await far.send_over_each_other(EARLY, octets)
            await wait_for_packets(stack, 1 + EARLY)
            assert heap() - before < 3 * WINDOW
            far.send(octets=octets[:40_000])
            far.sent += 40_000
            far.send(octets=octets[40_000:])
            assert await read(connection, WINDOW) == octets
