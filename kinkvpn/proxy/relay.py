"""Octets from one socket to another and back, where a kernel has both."""

from __future__ import annotations

import math
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from trio.socket import SocketType

# Ours. Read at a time, and so kept for each direction at most: large enough that a turn of the loop is no matter.
CHUNK = 256 * 1024
# Ours. What one side has ended, and the other neither ends nor says anything on, is given up after that, as squid does
# it: whether the one waits for it still, or has gone, cannot be told from its end; and its place is wanted.
SILENT_SECONDS = 900.0
# Ours. Until who says nothing is asked whether it is there; lwIP's connections have the same (flow.c).
IDLE_SECONDS = 120
_AT_ONCE = struct.pack("ii", 1, 0)  # socket(7), struct linger: closing is a reset


def prepare(connection: SocketType) -> None:
    """Who writes there has decided about Nagle's algorithm; who has gone without a word loses its place."""
    with suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, IDLE_SECONDS)


async def relay(one: SocketType, other: SocketType) -> None:
    """Until both directions have ended; both are closed then. An end is passed on as an end, a reset as a reset.

    Once one has ended the other has SILENT_SECONDS from octet to octet.
    """
    try:
        with one, other:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_copy, one, other, nursery.cancel_scope)
                    nursery.start_soon(_copy, other, one, nursery.cancel_scope)
            except* OSError:
                for each in (one, other):
                    with suppress(OSError):
                        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    finally:
        await trio.lowlevel.checkpoint_if_cancelled()


async def _copy(source: SocketType, sink: SocketType, both: trio.CancelScope) -> None:
    while octets := await source.recv(CHUNK):
        await send_all(sink, octets)
        if both.deadline < math.inf:  # the other direction has ended
            both.deadline = trio.current_time() + SILENT_SECONDS
    both.deadline = trio.current_time() + SILENT_SECONDS
    with suppress(OSError):  # the other end has gone, and its own direction says how
        sink.shutdown(socket.SHUT_WR)


async def send_all(sink: SocketType, octets: bytes) -> None:
    """All of it. Raises OSError."""
    sent = await sink.send(octets)
    with memoryview(octets) as view:
        while sent < len(view):
            sent += await sink.send(view[sent:])
