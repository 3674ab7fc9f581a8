"""A TCP transfer whose far end knows whether it got every octet: ``python -m kinkvpn.demo.transfer``.

    receive ADDRESS PORT         one connection; progress, then the verdict, as JSON lines
    send ADDRESS PORT OCTETS     that many octets, then their SHA-256

Layout on the connection: octet count (8), the octets, SHA-256 of them (32).
"""

from __future__ import annotations

import hashlib
import json
import random
import socket
import struct
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from kinkvpn.demo.capture import CANARY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from hashlib import _Hash as Hash

COUNT: Final = struct.Struct("!Q")
DIGEST_OCTETS: Final = 32
BLOCK_OCTETS: Final = 1 << 20
SEED: Final = 4430
# Longer than a TCP that lost a whole window needs to find back (RFC 6298: 1, 2, 4 and, on a busy machine, 8 to 32 s).
SILENCE_SECONDS: Final = 60.0
# Silence is one way to fail, a trickle another: below this rate the connection is broken on any machine.
SLOWEST_OCTETS_PER_S: Final = 200_000
REPORT_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Received:
    """What the far end saw. ``seconds`` from the first octet to the last."""

    octets: int
    seconds: float
    sha256: str
    equal: bool

    @property
    def gbit_per_s(self) -> float:
        return self.octets * 8e-9 / self.seconds if self.seconds else 0.0


def blocks(octets: int) -> Iterator[memoryview]:
    """``octets`` octets in pieces of up to 1 MiB: random once, then numbered, with the canary in each 32 octets.

    The pieces share one buffer: each is gone when the next is asked for.
    """
    # Not for secrecy: the same octets in every run, and cheap enough not to slow the transfer down.
    noise = random.Random(SEED).randbytes(BLOCK_OCTETS)  # noqa: S311 # not a secret
    buffer = bytearray(noise)
    for start in range(0, BLOCK_OCTETS, 32):
        buffer[start : start + len(CANARY)] = CANARY
    view = memoryview(buffer)
    for number, start in enumerate(range(0, octets, BLOCK_OCTETS)):
        COUNT.pack_into(buffer, len(CANARY), number)
        yield view[: min(BLOCK_OCTETS, octets - start)]


def digest(octets: int) -> bytes:
    sha256 = hashlib.sha256()
    for block in blocks(octets):
        sha256.update(block)
    return sha256.digest()


def send(address: str, port: int, octets: int) -> None:
    """Connects and sends. Raises OSError."""
    expected = digest(octets)  # before connecting: the clock at the far end runs from the first octet
    with socket.create_connection((address, port), timeout=SILENCE_SECONDS) as connection:
        connection.sendall(COUNT.pack(octets))
        for block in blocks(octets):
            connection.sendall(block)
        connection.sendall(expected)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)  # until the far end has it all


def receive(address: str, port: int) -> Iterator[int | Received]:
    """Accepts one connection; yields 0 when it listens, then now and then the octets so far, at last the verdict.

    Raises:
        OSError: nobody came, the connection broke or fell silent.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, port), family=family) as listener:
        listener.settimeout(SILENCE_SECONDS)
        yield 0
        connection, _ = listener.accept()
    with connection:
        yield from _receive(connection)


def _receive(connection: socket.socket) -> Iterator[int | Received]:
    connection.settimeout(SILENCE_SECONDS)
    (octets,) = COUNT.unpack(_exactly(connection, COUNT.size))
    sha256 = hashlib.sha256()
    start = time.monotonic()
    yield from _hashed(connection, octets, sha256)
    seconds = time.monotonic() - start
    connection.settimeout(SILENCE_SECONDS)
    equal = _exactly(connection, DIGEST_OCTETS) == sha256.digest()
    yield Received(octets, seconds, sha256.hexdigest(), equal)


def _hashed(connection: socket.socket, octets: int, sha256: Hash) -> Iterator[int]:
    """Feeds ``sha256``; yields the octets so far every REPORT_SECONDS, whether there are new ones or not."""
    connection.settimeout(REPORT_SECONDS)
    buffer = memoryview(bytearray(BLOCK_OCTETS))
    start = heard = report = time.monotonic()
    done = 0
    while done < octets:
        got = None
        with suppress(TimeoutError):
            got = connection.recv_into(buffer[: min(BLOCK_OCTETS, octets - done)])
        now = time.monotonic()
        if got == 0:
            raise ConnectionError(f"connection closed after {done} of {octets} octets")
        if got:
            sha256.update(buffer[:got])
            done, heard = done + got, now
        if now - heard > SILENCE_SECONDS or now - start > SILENCE_SECONDS + octets / SLOWEST_OCTETS_PER_S:
            raise TimeoutError(f"only {done} of {octets} octets in {now - start:.0f} s")
        if now - report >= REPORT_SECONDS:
            report = now
            yield done


def _exactly(connection: socket.socket, octets: int) -> bytes:
    pieces = b""
    while len(pieces) < octets:
        piece = connection.recv(octets - len(pieces))
        if not piece:
            raise ConnectionError("connection closed early")
        pieces += piece
    return pieces


def main(arguments: list[str]) -> int:
    try:
        match arguments:
            case ["send", address, port, octets]:
                send(address, int(port), int(octets))
            case ["receive", address, port]:
                for report in receive(address, int(port)):
                    line = {"octets": report} if isinstance(report, int) else asdict(report)
                    print(json.dumps(line), flush=True)
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except OSError as error:
        print(f"transfer: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
