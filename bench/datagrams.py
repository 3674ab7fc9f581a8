"""UDP datagrams of one size, as fast as the machine makes them or at a rate, and how many of them arrive.

``python -m bench.datagrams receive ADDRESS PORT`` says ``listening``, counts until its input ends, and then prints how
many it got. ``send ADDRESS PORT OCTETS PER_SECOND SECONDS`` (0 per second: no limit) prints how many it has sent.
Many datagrams for one system call on both sides, since it is the tunnel that is to be measured; never UDP_SEGMENT,
which would spare the tunnel its work.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import sys
import time
from ctypes import POINTER, Structure, c_int, c_size_t, c_uint, c_void_p, cast, create_string_buffer, pointer
from typing import Final

BATCH: Final = 64
RECEIVED_OCTETS: Final = 2048
SOCKET_OCTETS: Final = 16 << 20
SO_RCVBUFFORCE: Final = 33  # linux/asm-generic/socket.h
SLEEP_SECONDS: Final = 50e-6
# Who was kept from the processor sends no more than that of what is overdue: at 1.5 Gbit/s 430 datagrams of 1,300
# octets, and the queue of a TUN device holds 500.
OVERDUE_SECONDS: Final = 0.003


class IoVec(Structure):
    """struct iovec."""

    _fields_ = (("base", c_void_p), ("length", c_size_t))


class Header(Structure):
    """struct msghdr."""

    _fields_ = (
        ("name", c_void_p),
        ("name_length", c_uint),
        ("vector", POINTER(IoVec)),
        ("vector_length", c_size_t),
        ("control", c_void_p),
        ("control_length", c_size_t),
        ("flags", c_int),
    )


class Message(Structure):
    """struct mmsghdr."""

    _fields_ = (("header", Header), ("length", c_uint))


LIBC: Final = ctypes.CDLL(None, use_errno=True)


class Batch:
    """BATCH datagrams of ``octets`` octets, to send from or to receive into."""

    def __init__(self, octets: int) -> None:
        self._buffer = create_string_buffer(octets)
        self._vector = IoVec(cast(self._buffer, c_void_p), octets)
        self._messages = (Message * BATCH)()
        for message in self._messages:
            message.header.vector, message.header.vector_length = pointer(self._vector), 1

    def send(self, connected: socket.socket, count: int) -> int:
        """Up to ``count``, at most BATCH; returns how many. Raises OSError."""
        return _checked(LIBC.sendmmsg(connected.fileno(), self._messages, min(count, BATCH), 0))

    def receive(self, bound: socket.socket) -> int:
        """Those that are there, at most BATCH, over one another; returns how many. Raises BlockingIOError at none."""
        return _checked(LIBC.recvmmsg(bound.fileno(), self._messages, BATCH, socket.MSG_DONTWAIT, None))


def _checked(returned: int) -> int:
    if returned < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return returned


def send(address: str, port: int, octets: int, per_second: float, seconds: float) -> int:
    """Sends for so long; returns how many datagrams. Raises OSError."""
    with socket.socket(_family(address), socket.SOCK_DGRAM) as connected:
        connected.connect((address, port))
        batch, sent, due = Batch(octets), 0, 0.0
        began = now = time.perf_counter()
        while now - began <= seconds:
            if per_second and due < 1:
                time.sleep(SLEEP_SECONDS)
            else:
                gone = batch.send(connected, int(due) if per_second else BATCH)
                sent, due = sent + gone, due - gone
            before, now = now, time.perf_counter()
            due = min(due + (now - before) * per_second, OVERDUE_SECONDS * per_second)
        return sent


def receive(bound: socket.socket, until: int) -> int:
    """Counts what arrives until file descriptor ``until`` can be read, and what has arrived by then."""
    batch, received = Batch(RECEIVED_OCTETS), 0
    poll = select.poll()
    poll.register(bound, select.POLLIN)
    poll.register(until, select.POLLIN)
    ended = False
    while not ended:
        ended = any(ready == until for ready, _ in poll.poll())
        try:
            while got := batch.receive(bound):
                received += got
        except BlockingIOError:
            pass
    return received


def bound_to(address: str, port: int) -> socket.socket:
    """A socket with room for a while of datagrams. Raises OSError."""
    bound = socket.socket(_family(address), socket.SOCK_DGRAM)
    bound.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, SOCKET_OCTETS)
    bound.bind((address, port))
    return bound


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def main(arguments: list[str]) -> int:
    """The exit code."""
    match arguments:
        case ["send", address, port, octets, per_second, seconds]:
            print(send(address, int(port), int(octets), float(per_second), float(seconds)))
        case ["receive", address, port]:
            with bound_to(address, int(port)) as bound:
                print("listening", flush=True)
                print(receive(bound, sys.stdin.fileno()))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
