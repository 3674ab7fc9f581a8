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
        port: of who has sent the last segment; where ours go.
    """

    def __init__(self) -> None:
        self.device, self._far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for each in (self.device, self._far):
            each.setblocking(False)
        self.received = 0
        self.sent = 1_000
        self.window = 65_535
        self.port = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.device.close()
        self._far.close()

    @property
    def remote(self) -> Endpoint:
        return Endpoint(THERE, PORT)

    async def accept(self, mss: int | None = None) -> None:
        """Wait for a SYN, and take it, with that MSS."""
        while not (found := await self.next_segment())[0] & SYN:
            pass
        self.received += 1
        self.send(SYN | ACK, mss=mss)
        self.sent += 1
        assert found[1] == b""

    async def next_segment(self) -> tuple[int, bytes]:
        """Its flags and octets; ``received`` is behind these then, unless it was a SYN: at it."""
        await trio.lowlevel.wait_readable(self._far)
        packet = self._far.recv(65_600)[len(VOUCHED) :]
        port, _, sequence, _, offset, flags, _, _, _ = _TCP.unpack_from(packet, 20)
        octets = packet[20 + (offset >> 4) * 4 :]
        self.port = port
        self.received = sequence + len(octets)
        return flags, octets

    def send(self, flags: int = ACK, octets: bytes = b"", mss: int | None = None) -> None:
        """A segment at ``sent``, which stays as it is."""
        options = b"" if mss is None else struct.pack("!BBH", 2, 4, mss)  # RFC 9293 §3.2
        length = 40 + len(options) + len(octets)
        addresses = socket.inet_aton(THERE), socket.inet_aton(HERE)
        header = _IP.pack(0x45, 0, length, 0, 0, 64, 6, 0, *addresses)
        header = _IP.pack(0x45, 0, length, 0, 0, 64, 6, _checksum(header), *addresses)
        tcp = _TCP.pack(PORT, self.port, self.sent, self.received, 0x50 + 4 * len(options), flags, self.window, 0, 0)
        self._far.send(VOUCHED + header + tcp + options + octets)

    async def send_in_pieces(self, count: int) -> None:
        """So many octets, one a segment. What is acknowledged meanwhile is not looked at."""
        for number in range(count):
            await trio.lowlevel.wait_writable(self._far)
            self.send(ACK, bytes([number % 251]))
            self.sent += 1
            if number % 16 == 0:
                self._throw_away()

    async def send_over_each_other(self, count: int, octets: bytes) -> None:
        """So many segments that begin an octet after each other, of ``octets`` and what is behind them for the last.

        The first of ``octets`` is not sent at all.
        """
        begins, each = self.sent, len(octets) - count
        for number in range(1, count + 1):
            await trio.lowlevel.wait_writable(self._far)
            self.sent = begins + number
            self.send(ACK, octets[number : number + each])
            self._throw_away()
        self.sent = begins

    def _throw_away(self) -> None:
        try:
            while True:
                self._far.recv(65_600)
        except BlockingIOError:
            pass


def _checksum(header: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(header) // 2}H", header))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
