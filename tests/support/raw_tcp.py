"""The other end of one of lwIP's connections, written by hand: it says what no decent stack would.

Each packet comes with a vnet header that vouches for its checksum, as the packet loop's do.
"""

from __future__ import annotations

import socket
import struct
from typing import Self

import trio

from esp.sa import Endpoint

HERE, THERE, PORT = "10.0.0.1", "10.0.0.2", 80
VOUCHED = bytes([2, *bytes(9)])  # linux/virtio_net.h, VIRTIO_NET_HDR_F_DATA_VALID
SYN, RST, ACK, FIN = 2, 4, 16, 1
_IP = struct.Struct("!BBHHHBBH4s4s")
_TCP = struct.Struct("!HHIIBBHHH")


class RawTcp:
    """Who connects to :data:`PORT` at :data:`THERE` talks to this.

    Attributes:
        received: sequence number that is expected.
        sent: the next one of ours.
        window: that is offered, in octets.
    """

    def __init__(self) -> None:
        self.device, self._far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for each in (self.device, self._far):
            each.setblocking(False)
        self.received = 0
        self.sent = 1_000
        self.window = 65_535
        self._port = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.device.close()
        self._far.close()

    @property
    def remote(self) -> Endpoint:
        return Endpoint(THERE, PORT)

    async def accept(self) -> None:
        """Wait for a SYN, and take it."""
        while not (found := await self.next_segment())[0] & SYN:
            pass
        self.received += 1
        self.send(SYN | ACK)
        self.sent += 1
        assert found[1] == b""

    async def next_segment(self) -> tuple[int, bytes]:
        """Its flags and octets; ``received`` is behind these then, unless it was a SYN: at it."""
        await trio.lowlevel.wait_readable(self._far)
        packet = self._far.recv(65_600)[len(VOUCHED) :]
        port, _, sequence, _, offset, flags, _, _, _ = _TCP.unpack_from(packet, 20)
        octets = packet[20 + (offset >> 4) * 4 :]
        self._port = port
        self.received = sequence + len(octets)
        return flags, octets

    def send(self, flags: int = ACK, octets: bytes = b"") -> None:
        """A segment at ``sent``, which stays as it is."""
        length = 40 + len(octets)
        addresses = socket.inet_aton(THERE), socket.inet_aton(HERE)
        header = _IP.pack(0x45, 0, length, 0, 0, 64, 6, 0, *addresses)
        header = _IP.pack(0x45, 0, length, 0, 0, 64, 6, _checksum(header), *addresses)
        tcp = _TCP.pack(PORT, self._port, self.sent, self.received, 0x50, flags, min(self.window, 65_535), 0, 0)
        self._far.send(VOUCHED + header + tcp + octets)

    async def send_in_pieces(self, count: int) -> None:
        """So many octets, one a segment. What is acknowledged meanwhile is not looked at."""
        for number in range(count):
            await trio.lowlevel.wait_writable(self._far)
            self.send(ACK, bytes([number % 251]))
            self.sent += 1
            if number % 16 == 0:
                self._throw_away()

    def _throw_away(self) -> None:
        try:
            while True:
                self._far.recv(65_600)
        except BlockingIOError:
            pass


def _checksum(header: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(header) // 2}H", header))
    return ~(total + (total >> 16) + ((total + (total >> 16)) >> 16)) & 0xFFFF if total > 0xFFFF else ~total & 0xFFFF
