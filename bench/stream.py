"""Content of which each octet follows from a seed and its place, sent and received over TCP and UDP.

What arrives is compared, octet by octet, with what was sent, which both ends know. The checksums (CRC-32 of what was
handed to the socket, and of what came out of one) are for people to compare.
"""

from __future__ import annotations

import errno
import hashlib
import random
import socket
import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

BLOCK_OCTETS: Final = 1 << 18
# Longer than TCP needs to find back from the loss of a whole window (RFC 6298: 1, 2, 4 and, on a busy machine, more).
SILENCE_SECONDS: Final = 60.0
NUMBER: Final = struct.Struct("!Q")
NOISE_OCTETS: Final = 1 << 16
# Of an inner packet with an IPv6 header: less than what any suite leaves of an MTU of 1,500.
DATAGRAM_OCTETS: Final = 1300
PROOF_OCTETS: Final = 8  # at least, that follow from the number: another number is not taken for it
RUN: Final = 16  # datagrams of one size
SOL_UDP: Final = 17
UDP_SEGMENT: Final = 103  # linux/udp.h
TOTAL_RETRANS: Final = struct.Struct("100xI")  # struct tcp_info, linux/tcp.h
BUFFER_OCTETS: Final = 8 << 20
SO_RCVBUFFORCE: Final = 33  # asm-generic/socket.h


class Stream:
    """AES-CTR, keyed by the seed and the name of the stream: no two places of any two streams look alike."""

    def __init__(self, seed: int, name: str) -> None:
        key = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=16).digest()
        self._cipher = Cipher(AES(key), CTR(bytes(16))).encryptor()
        self._nothing = bytes(BLOCK_OCTETS)

    def take(self, octets: int) -> bytes:
        """The next octets, ``BLOCK_OCTETS`` at most."""
        return self._cipher.update(self._nothing[:octets])


@dataclass(slots=True)
class Half:
    """One end of a connection at work.

    Attributes:
        octets: so far.
        crc: CRC-32 of them.
        altered: place of the first octet that is another than was sent, if there is one.
        retransmissions: segments that TCP sent again.
    """

    octets: int = 0
    crc: int = 0
    altered: int | None = None
    retransmissions: int = 0


def patient(connection: socket.socket) -> socket.socket:
    """Has calls give up after SILENCE_SECONDS by the kernel's clock: with a timeout of Python's MSG_WAITALL is void."""
    wait = struct.pack("@ll", int(SILENCE_SECONDS), 0)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connection.setsockopt(socket.SOL_SOCKET, option, wait)
    return connection


def send(connection: socket.socket, stream: Stream, octets: int, half: Half) -> None:
    """Send so many and wait until the far end has them all. Raises OSError."""
    while half.octets < octets:
        block = stream.take(min(BLOCK_OCTETS, octets - half.octets))
        connection.sendall(block)
        half.crc = zlib.crc32(block, half.crc)
        half.octets += len(block)
    connection.shutdown(socket.SHUT_WR)
    connection.recv(1)
    (half.retransmissions,) = TOTAL_RETRANS.unpack(
        connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TOTAL_RETRANS.size)
    )


def receive(connection: socket.socket, stream: Stream, octets: int, half: Half) -> None:
    """Receive so many, and then the end. Raises OSError."""
    buffer = bytearray(BLOCK_OCTETS)
    while half.octets < octets:
        wanted = min(BLOCK_OCTETS, octets - half.octets)
        if wanted < BLOCK_OCTETS:
            buffer = bytearray(wanted)
        got = connection.recv_into(buffer, wanted, socket.MSG_WAITALL)
        if got < wanted:
            raise ConnectionError(f"{half.octets + got} octets came, and no more in {SILENCE_SECONDS:.0f} s")
        half.crc = zlib.crc32(buffer, half.crc)
        expected = stream.take(wanted)
        if buffer != expected and half.altered is None:
            half.altered = half.octets + next(i for i in range(wanted) if buffer[i] != expected[i])
        half.octets += wanted
    if connection.recv(1):
        raise ConnectionError(f"more than {octets} octets came")


@dataclass(slots=True)
class Tally:
    """Datagrams that arrived: ``received`` once and as they were sent, and those for which that does not hold.

    ``reordered`` are of those received, and came after one with a higher number.
    """

    received: int = 0
    altered: int = 0
    repeated: int = 0
    reordered: int = 0
    newest: int = field(default=-1, repr=False)
    seen: bytearray = field(default_factory=bytearray, repr=False)

    def take(self, datagrams: Datagrams, datagram: bytes) -> None:
        """One that has arrived."""
        number = NUMBER.unpack_from(datagram)[0] if len(datagram) >= NUMBER.size else 0
        if datagram != datagrams.make(number):
            self.altered += 1
            return
        if number >= len(self.seen):
            self.seen.extend(bytes(number + 1 - len(self.seen)))
        if self.seen[number]:
            self.repeated += 1
            return
        self.seen[number] = 1
        self.received += 1
        self.reordered += number < self.newest
        self.newest = max(self.newest, number)


class Datagrams:
    """Datagrams of which each is its number and what follows from it, of sizes that change from run to run."""

    def __init__(self, seed: int, name: str) -> None:
        self._noise = random.Random(f"{seed} {name}").randbytes(NOISE_OCTETS + DATAGRAM_OCTETS)  # noqa: S311

    def make(self, number: int) -> bytes:
        """The one of that number."""
        octets = PROOF_OCTETS + number // RUN * 7919 % (DATAGRAM_OCTETS - NUMBER.size - PROOF_OCTETS)
        start = number * 31 % NOISE_OCTETS
        return NUMBER.pack(number) + self._noise[start : start + octets]

    def send(self, link: socket.socket, per_second: float, ended: threading.Event) -> int:
        """Send run after run, every other as one (UDP_SEGMENT), until ``ended``; how many. Raises OSError."""
        number, runs = 0, True
        while not ended.wait(RUN / per_second):
            run = [self.make(number + each) for each in range(RUN)]
            if runs and number // RUN % 2:
                runs = send_run(link, run)
            else:
                for datagram in run:
                    link.send(datagram)
            number += RUN
        return number

    def receive(self, link: socket.socket, tally: Tally, enough: Callable[[], bool]) -> None:
        """Receive until ``enough()``, which is asked again and again. Raises OSError."""
        link.settimeout(0.1)
        while not enough():
            with suppress(TimeoutError):
                tally.take(self, link.recv(2 * DATAGRAM_OCTETS))


def send_run(link: socket.socket, run: list[bytes]) -> bool:
    """Send datagrams of one size with one call; False, and none is sent, where the kernel does not do that."""
    try:
        link.sendmsg(run, [(SOL_UDP, UDP_SEGMENT, struct.pack("@H", len(run[0])))])
    except OSError as error:
        if error.errno != errno.EIO:  # to a device that computes no checksums, before Linux 6.11
            raise
        return False
    return True
