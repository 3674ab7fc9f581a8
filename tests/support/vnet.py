"""TUN devices with a vnet header (linux/virtio_net.h), and two of them with a wire in between that is ours."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from support.namespaces import IFF_NO_PI, TUNSETIFF, namespace, run, wait_for_address, within

if TYPE_CHECKING:
    from collections.abc import Iterator

NEEDS_CSUM = 1
NONE, TCPV4, TCPV6, UDP_L4, ECN = 0, 1, 4, 5, 0x80
OCTETS = 10

# linux/if_tun.h
IFF_TUN, IFF_VNET_HDR = 0x0001, 0x4000
TUNSETOFFLOAD = 0x400454D0
CSUM, TSO4, TSO6, TSO_ECN, USO4, USO6 = 0x01, 0x02, 0x04, 0x08, 0x20, 0x40

# More than a device gives at once.
LONGEST = OCTETS + 65_536


class Vnet(NamedTuple):
    """struct virtio_net_hdr."""

    flags: int = 0
    gso_type: int = NONE
    hdr_len: int = 0
    gso_size: int = 0
    csum_start: int = 0
    csum_offset: int = 0

    def build(self) -> bytes:
        return struct.pack("=BBHHHH", *self)

    @classmethod
    def parse(cls, octets: bytes) -> Vnet:
        return cls(*struct.unpack("=BBHHHH", octets))


def open_tun(name: str, offloads: int) -> int:
    """The descriptor of a new TUN device in the namespace of this thread; OSError where it has not all ``offloads``."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI | IFF_VNET_HDR))
        fcntl.ioctl(device, TUNSETOFFLOAD, offloads)
    except OSError:
        os.close(device)
        raise
    return device


class End(NamedTuple):
    """A host at one end of the wire."""

    namespace: str
    device: int
    addresses: dict[int, str]  # by version of IP


@contextmanager
def two_ends(offloads: int) -> Iterator[tuple[End, End]]:
    """Two hosts, 10.77.0.1 and .2, fd77::1 and ::2, whose only way to each other is a TUN device of an MTU of 1,420."""
    with namespace() as first, namespace() as second:
        ends = []
        for number, name in enumerate((first, second), 1):
            device = within(name, lambda: open_tun("vnet0", offloads))
            run("ip", "-n", name, "link", "set", "vnet0", "mtu", "1420", "up")
            run("ip", "-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "vnet0")
            run("ip", "-n", name, "addr", "add", f"fd77::{number}/64", "dev", "vnet0", "nodad")
            wait_for_address(name, f"fd77::{number}")
            ends.append(End(name, device, {4: f"10.77.0.{number}", 6: f"fd77::{number}"}))
        try:
            yield ends[0], ends[1]
        finally:
            for end in ends:
                os.close(end.device)


Pass = Callable[[list[bytes]], list[bytes]]
UDP_SEGMENT = 103  # linux/udp.h


def send_by_tcp(ends: tuple[End, End], version: int, octets: bytes, pass_on: Pass) -> bytes:
    """What a server at the second end receives when a client at the first sends ``octets``."""
    near, far = ends
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    server = within(far.namespace, lambda: socket.create_server((far.addresses[version], 0), family=family))
    client = within(near.namespace, lambda: socket.socket(family))
    received = bytearray()

    def send() -> None:
        client.connect(server.getsockname())
        client.sendall(octets)
        client.shutdown(socket.SHUT_WR)

    def receive() -> None:
        connection, _ = server.accept()
        with connection:
            while some := connection.recv(1 << 16):
                received.extend(some)

    with server, client:
        _carry(ends, pass_on, send, receive)
    return bytes(received)


def send_by_udp(
    ends: tuple[End, End], version: int, sent: list[bytes], datagrams: int, pass_on: Pass, *, segment: int = 0
) -> list[bytes]:
    """As many ``datagrams`` as a socket at the second end receives when one at the first sends each of ``sent``.

    Args:
        segment: octets of the datagrams that the kernel makes of each; 0 for one.
    """
    near, far = ends
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    server = within(far.namespace, lambda: socket.socket(family, socket.SOCK_DGRAM))
    client = within(near.namespace, lambda: socket.socket(family, socket.SOCK_DGRAM))
    received: list[bytes] = []

    def send() -> None:
        client.setsockopt(socket.SOL_UDP, UDP_SEGMENT, segment)
        for octets in sent:
            client.sendto(octets, server.getsockname()[:2])

    def receive() -> None:
        received.extend(server.recv(65_536) for _ in range(datagrams))

    with server, client:
        server.bind((far.addresses[version], 0))
        server.settimeout(60)
        _carry(ends, pass_on, send, receive)
    return received


def _carry(ends: tuple[End, End], pass_on: Pass, *doings: Callable[[], None]) -> None:
    """Batches out of each device, vnet header and packet each, and what becomes of them into the other, while
    ``doings`` last."""
    others = {ends[0].device: ends[1].device, ends[1].device: ends[0].device}
    threads = [threading.Thread(target=each, daemon=True) for each in doings]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    while any(thread.is_alive() for thread in threads):
        assert time.monotonic() < deadline, "it does not get through"
        for device in select.select(list(others), [], [], 0.05)[0]:
            for packet in pass_on(_batch(device)):
                os.write(others[device], packet)


def _batch(device: int) -> list[bytes]:
    found: list[bytes] = []
    try:
        while len(found) < 16:
            found.append(os.read(device, LONGEST))
    except BlockingIOError:
        pass
    return found
