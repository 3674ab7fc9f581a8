"""UDP port 910: KINK datagrams in and out (RFC 4430 §9).

A command is answered from the address that it came to, on a host with several addresses of a family too: a firewall or
NAT on the way lets nothing else back in.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING, Protocol

from esp import icmp
from esp.readiness import Readiness
from esp.sa import Endpoint
from kinkvpn.proto.events import Path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# The registered port (RFC 4430 §9, IANA).
KINK_PORT = 910
# Ours. Length is a 16-bit field and UDP carries no more (RFC 4430 §4).
LARGEST_DATAGRAM = 65535
# Ours. Two thousand CREATEs at once, each 2 kB with a PAC in its ticket or by the kernel's own accounting. Past
# net.core.rmem_max where we may (CAP_NET_ADMIN): the 200 kB of most hosts hold a hundred, and the others would come
# again after one second, three, seven.
RECEIVE_BUFFER = 4 << 20
# linux/socket.h; Python's socket module does not name it.
SO_RCVBUFFORCE = 33
# Ours. Datagrams of one socket that keying answers in one turn of the loop: a turn for each costs a fifth of a CREATE,
# and sixteen CREATEs are some milliseconds, for which packets can wait. More waits in the kernel, where it is dropped
# oldest kept, newest lost: what a retransmitting protocol wants.
BATCH = 16
# Ours. Seconds. Whoever gets another address loses more than that on the way.
OWN_ADDRESSES_KEPT = 1.0


# ip(7), which Python's socket module does not name before 3.13. struct in_pktinfo: interface, local address,
# destination of the header; struct in6_pktinfo (RFC 3542 §6): address, interface.
IP_PKTINFO = 8
_PKTINFO4 = struct.Struct("=I4s4s")
_PKTINFO6 = struct.Struct("=16sI")
_ANCILLARY = socket.CMSG_SPACE(max(_PKTINFO4.size, _PKTINFO6.size))
_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to


class Transport(Protocol):
    """Datagrams with their paths; UDP sockets in the daemon, a simulated network in tests."""

    async def receive(self) -> Sequence[tuple[bytes, Path]]:
        """The next datagram and the path it came by, and a bounded number of others that are there already."""
        ...

    def send(self, datagram: bytes, path: Path) -> None:
        """Send now, or raise OSError; never waits."""
        ...


class KinkTransport:
    """One UDP socket for each listening address.

    Args:
        listen: addresses, IPv4 or IPv6; the wildcards ``0.0.0.0`` and ``::`` too. None where KINK goes over the ESP
            port alone.
        port: 910 unless the other end is configured alike.
        given: bound already, and taken over.

    Raises:
        OSError: the address cannot be bound; ``filename`` is ``address port`` and ``errno`` says why.
    """

    def __init__(self, listen: Sequence[str], port: int = KINK_PORT, given: Sequence[socket.socket] = ()) -> None:
        self._sockets: dict[socket.socket, str] = {}  # to the one address that it receives at; empty for a wildcard
        self._readiness = Readiness()
        self.receive_errors = 0
        self._tell_unreachable: Callable[[Endpoint], None] = lambda remote: None
        try:
            for sock in given:
                _prepare(sock)
                self._add(sock)
            for address in listen:
                self._add(_bound(address, port))
        except OSError:
            self.close()
            raise

    def _add(self, sock: socket.socket) -> None:
        address = sock.getsockname()[0]
        self._sockets[sock] = "" if address in _WILDCARDS else address
        self._readiness.add(sock)

    @property
    def local(self) -> list[Endpoint]:
        """Where it listens; with the port that the kernel chose when 0 was asked for."""
        return [Endpoint(*sock.getsockname()[:2]) for sock in self._sockets]

    def report_unreachable_to(self, told: Callable[[Endpoint], None]) -> None:
        """Have ``told`` called, while ``receive`` waits, with each remote that ICMP calls unreachable."""
        self._tell_unreachable = told

    def _drain(self, sock: socket.socket, bound: str) -> list[tuple[bytes, Path]]:
        datagrams: list[tuple[bytes, Path]] = []
        for _ in range(BATCH):
            try:
                datagram, ancillary, _, source = sock.recvmsg(LARGEST_DATAGRAM, 0 if bound else _ANCILLARY)
            except BlockingIOError:
                break
            except OSError:
                # An ICMP error for something sent earlier (RFC 1122 §4.1.3.3): a hint at most, never a verdict (§3.7).
                errors = icmp.take_errors(sock)
                self.receive_errors += max(errors.count, 1)
                for remote in sorted(errors.unreachable):
                    self._tell_unreachable(remote)
                continue
            local = bound or _destination(ancillary)
            datagrams.append((datagram, Path(Endpoint(source[0], source[1]), local=local)))
        return datagrams

    async def receive(self) -> Sequence[tuple[bytes, Path]]:
        """The next datagram and the path it came by, and a bounded number of others that are there already."""
        datagrams: list[tuple[bytes, Path]] = []
        while not datagrams:
            await self._readiness.wait()
            for sock, address in self._sockets.items():
                datagrams += self._drain(sock, address)
        return datagrams

    def send(self, datagram: bytes, path: Path) -> None:
        """Send by ``path``; from its local address, where it names one.

        Raises:
            OSError: no socket of that family, or the kernel would not take it.
        """
        family = socket.AF_INET6 if ":" in path.remote.address else socket.AF_INET
        fitting = [sock for sock in self._sockets if sock.family == family]
        if not fitting:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT), path.remote.address)
        sock = next((sock for sock in fitting if self._sockets[sock] == path.local), fitting[0])
        # A socket that is bound to one address sends from no other.
        leaving_from = [] if self._sockets[sock] else _leaving_from(path.local)

        def send() -> None:
            sock.sendmsg([datagram], leaving_from, 0, path.remote)

        try:
            send()
        except OSError as error:
            # Whoever sends is in the middle of something, and not to be told of ICMP now; there will be more of it.
            went, _ = icmp.sent_again(error, sock, send)
            if not went:
                raise
            self.receive_errors += 1

    def close(self) -> None:
        """Close the sockets. Who waits for a datagram gets :class:`trio.ClosedResourceError`."""
        if not self._readiness.close():
            return
        for sock in self._sockets:
            sock.close()


def is_own_address(address: str) -> bool:
    """Whether ``address``, in text form, is one of this host's: the kernel binds no other."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        # A peer says which address; of IPv6 there may be none in this kernel.
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.bind((address, 0))
    except OSError:
        return False
    return True


class OwnAddresses:
    """:func:`is_own_address`, asked once a second for an address: three system calls, and a CREATE asks twice.

    Args:
        look: what is asked.
        clock: seconds.
    """

    def __init__(
        self, look: Callable[[str], bool] = is_own_address, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._look = look
        self._clock = clock
        self._known: dict[str, bool] = {}  # as many as commands come in a second, at most
        self._until = 0.0

    def __call__(self, address: str) -> bool:
        """Whether ``address``, in text form, is one of this host's, or was within the last second."""
        now = self._clock()
        if now >= self._until:
            self._known, self._until = {}, now + OWN_ADDRESSES_KEPT
        if address not in self._known:
            self._known[address] = self._look(address)
        return self._known[address]


def _destination(ancillary: list[tuple[int, int, bytes]]) -> str:
    for level, kind, octets in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
            return str(ip_address(_PKTINFO4.unpack(octets)[2]))
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            return str(ip_address(_PKTINFO6.unpack(octets)[0]))
    return ""


def _leaving_from(local: str) -> list[tuple[int, int, bytes]]:
    if not local:
        return []
    address = ip_address(local)
    if address.version == 4:
        return [(socket.IPPROTO_IP, IP_PKTINFO, _PKTINFO4.pack(0, address.packed, bytes(4)))]
    return [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _PKTINFO6.pack(address.packed, 0))]


def _bound(address: str, port: int) -> socket.socket:
    family = socket.AF_INET if ip_address(address).version == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        _prepare(sock)
        sock.bind((address, port))
    except OSError as error:
        sock.close()
        raise OSError(error.errno, os.strerror(error.errno or 0), f"{address} port {port}") from error
    return sock


def _prepare(sock: socket.socket) -> None:
    sock.setblocking(False)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    _enlarge_buffer(sock)
    icmp.ask(sock)


def _enlarge_buffer(sock: socket.socket) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
