"""What has come for a program that does not read: all of it is kept, and not much more than that."""

from __future__ import annotations

import ctypes
from ipaddress import ip_address

import pytest
import trio
from support.raw_tcp import HERE, RawTcp

from kinkvpn.proxy.lwip import why_missing

if why_missing():
    # A mirror of Debian need not have its sources, and an installation without lwIP is a whole one (setup.py).
    pytest.skip(f"lwIP is {why_missing()}", allow_module_level=True)  # its sources are optional

from kinkvpn.proxy.lwip.stack import LwipStack

PIECES = 8_000
# What each segment costs while nobody takes it; its packet alone is 41 octets, and lwIP's own struct 24.
MOST_OCTETS_EACH = 20


class Heap(ctypes.Structure):
    """mallinfo(3), struct mallinfo2, whose eighth is uordblks."""

    _fields_ = [(f"field{number}", ctypes.c_size_t) for number in range(10)]


def heap() -> int:
    """Octets that malloc(3) has given to anybody in this process, of all threads; 0 with AddressSanitizer's."""
    library = ctypes.CDLL(None)
    library.mallinfo2.restype = Heap
    return int(library.mallinfo2().field7)


async def test_segments_of_one_octet_cost_no_packet_each() -> None:
    with RawTcp() as far, trio.fail_after(60):
        stack = LwipStack(far.device.fileno(), vnet=True, mtu=1400, addresses=[ip_address(HERE)])
        async with trio.open_nursery() as nursery:
            await nursery.start(stack.run)
            connections = []

            async def connect() -> None:
                connections.append(await stack.connect(far.remote))

            async with trio.open_nursery() as connecting:
                connecting.start_soon(connect)
                await far.accept()
            before = heap()
            await far.send_in_pieces(PIECES)
            while stack.counters()["received"] < PIECES:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.01)
            assert heap() - before < PIECES * MOST_OCTETS_EACH
            stream = await connections[0].stream()
            got = bytearray()
            while len(got) < PIECES:
                got += await stream.recv(65_536)
            assert got == bytes(number % 251 for number in range(PIECES))
            connections[0].close()
            nursery.cancel_scope.cancel()
