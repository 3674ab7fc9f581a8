"""Raw ESP: IP protocol 50 without UDP around it (RFC 4303 §2), and both encapsulations in one link.

For hosts between which nobody translates addresses, and for processes that may open raw sockets (CAP_NET_RAW). The
kernel makes the outer header, and puts together what comes in fragments. There are no keepalives, which are for NATs
(RFC 3948 §4), and no KINK: whatever comes by this way is ESP.
"""

from __future__ import annotations

import errno
import select
import socket
from typing import TYPE_CHECKING

import trio

from esp.link import WILDCARDS, LinkUnavailable, UdpLink
from esp.sa import Endpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esp.datagram import Incoming, Outgoing
    from esp.icmp import TooBig

ESP_PROTOCOL = 50  # RFC 4303 §2


class RawLink(UdpLink):
    """As UdpLink, over raw sockets: a remote is an address with port 0.

    Args:
        sockets: bound raw sockets for IP protocol 50, at most one AF_INET and one AF_INET6; :meth:`open` is the usual
            way.
        hop_limit: as for UdpLink.
    """

    remote_ports = range(1)

    def __init__(self, sockets: Sequence[socket.socket], *, hop_limit: int | None = None) -> None:
        super().__init__(sockets, hop_limit=hop_limit)
        # The kernel names the protocol where UDP has the port (raw(7)).
        self.local = tuple(each._replace(port=0) for each in self.local)

    @classmethod
    def open(cls, addresses: Sequence[str] = WILDCARDS, *, hop_limit: int | None = None) -> RawLink:
        """Open a socket for each of ``addresses``. Where the kernel has no IPv6, ``::`` is left out.

        Raises:
            LinkUnavailable: address not of this host, or no permission.
        """
        sockets: list[socket.socket] = []
        try:
            for address in addresses:
                try:
                    sockets.append(_bound(address))
                except LinkUnavailable as error:
                    if not sockets or address != "::" or error.errno != errno.EAFNOSUPPORT:
                        raise
            return cls(sockets, hop_limit=hop_limit)
        except BaseException:
            for each in sockets:
                each.close()
            raise

    def _drain(self, source: socket.socket, datagrams: list[Incoming]) -> None:
        if source.family == socket.AF_INET6:
            super()._drain(source, datagrams)
            return
        packets: list[Incoming] = []
        super()._drain(source, packets)
        # A raw socket for IPv4 gives the IP header too, which is as long as it says (raw(7)).
        datagrams += [each._replace(datagram=each.datagram[(each.datagram[0] & 0x0F) * 4 :]) for each in packets]


def _bound(address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    local = Endpoint(address, 0)
    try:
        bound = socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, ESP_PROTOCOL)
    except OSError as error:
        raise LinkUnavailable(f"no raw socket for {address}: {error.strerror}", local, error.errno) from error
    try:
        bound.bind((address, 0))
    except OSError as error:
        bound.close()
        raise LinkUnavailable(f"raw ESP at {address}: {error.strerror}", local, error.errno) from error
    return bound


class BothLinks:
    """UDP and raw ESP as one link: what goes to a port is sent in UDP, what goes to port 0 without.

    Args:
        udp, raw: this one owns them.
    """

    def __init__(self, udp: UdpLink, raw: RawLink) -> None:
        self._udp, self._raw = udp, raw
        self._readiness = select.epoll()
        for each in (udp, raw):
            self._readiness.register(each.fileno(), select.EPOLLIN)

    @property
    def local(self) -> tuple[Endpoint, ...]:
        """As :attr:`esp.link.Link.local`; those with port 0 are the raw ones."""
        return (*self._udp.local, *self._raw.local)

    @property
    def refused(self) -> int:
        """As :attr:`esp.link.Link.refused`."""
        return self._udp.refused + self._raw.refused

    def receive(self) -> list[Incoming]:
        """As :meth:`esp.link.Link.receive`, a batch of each."""
        return self._udp.receive() + self._raw.receive()

    def send(self, datagrams: Sequence[Outgoing]) -> int:
        """As :meth:`esp.link.Link.send`; the order is kept within each encapsulation."""
        raw = [each for each in datagrams if not each.remote.port]
        if not raw:
            return self._udp.send(datagrams)
        return self._raw.send(raw) + self._udp.send([each for each in datagrams if each.remote.port])

    def take_unreachable(self) -> set[Endpoint]:
        """As :meth:`esp.link.Link.take_unreachable`."""
        return self._udp.take_unreachable() | self._raw.take_unreachable()

    def take_too_big(self) -> list[TooBig]:
        """As :meth:`esp.link.Link.take_too_big`."""
        return self._udp.take_too_big() + self._raw.take_too_big()

    async def wait_readable(self) -> None:
        """As :meth:`esp.link.Link.wait_readable`."""
        if self._readiness.closed:
            raise trio.ClosedResourceError
        await trio.lowlevel.wait_readable(self._readiness.fileno())

    def close(self) -> None:
        """As :meth:`esp.link.Link.close`."""
        if self._readiness.closed:
            return
        if trio.lowlevel.in_trio_run():
            trio.lowlevel.notify_closing(self._readiness.fileno())
        self._readiness.close()
        self._udp.close()
        self._raw.close()
