"""ESP without UDP around it: IP protocol 50 (RFC 4303 §2); AH, protocol 51 (RFC 4302 §2); and all of them in one link.

For hosts between which nobody translates addresses, and for processes that may open raw sockets (CAP_NET_RAW). The
kernel makes the outer header, and puts together what comes in fragments. There are no keepalives, which are for NATs
(RFC 3948 §4), and no KINK: whatever comes by this way is ESP.
"""

from __future__ import annotations

import errno
import socket
import sys
from typing import TYPE_CHECKING

from esp.ah import AH, TTL, dressed, presented, rebuilt
from esp.datagram import ESP_PROTOCOL, Incoming, Outgoing, Run
from esp.link import BATCH, LONGEST_DATAGRAM, WILDCARDS, LinkUnavailable, UdpLink, endpoint_of
from esp.readiness import Readiness
from esp.sa import Endpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esp.icmp import TooBig
    from esp.offload import Grant, Offloads

IPV6_HDRINCL = 36  # linux/in6.h; Python's socket module does not name it
_ANCILLARY = 2 * socket.CMSG_SPACE(20)


class RawLink(UdpLink):
    """As UdpLink, over raw sockets: a remote is an address with port 0.

    Args:
        sockets: bound raw sockets for IP protocol 50, at most one AF_INET and one AF_INET6; :meth:`open` is the usual
            way.
        hop_limit: as for UdpLink.
    """

    remote_ports = range(1)
    possible = ()
    protocol = ESP_PROTOCOL

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
                    sockets.append(_bound(address, cls.protocol))
                except LinkUnavailable as error:
                    if not sockets or address != "::" or error.errno != errno.EAFNOSUPPORT:
                        raise
            return cls(sockets, hop_limit=hop_limit)
        except BaseException:
            for each in sockets:
                each.close()
            raise

    def of_queue(self, number: int) -> list[tuple[socket.socket, bool]]:
        """As of UDP. Each raw socket is given every packet (raw(7)): all queues send by one, and the first receives."""
        return [(each, number == 0) for each in self.sockets]

    def _drain(self, source: socket.socket, datagrams: list[Incoming | Run]) -> None:
        if source.family == socket.AF_INET6:
            super()._drain(source, datagrams)
            return
        packets: list[Incoming | Run] = []
        super()._drain(source, packets)
        # A raw socket for IPv4 gives the IP header too, which is as long as it says (raw(7)).
        for each in packets:
            assert isinstance(each, Incoming)  # only UDP comes in runs
            datagrams.append(each._replace(datagram=each.datagram[(each.datagram[0] & 0x0F) * 4 :]))


def _bound(address: str, protocol: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    local = Endpoint(address, 0)
    try:
        bound = socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    except OSError as error:
        raise LinkUnavailable(f"no raw socket for {address}: {error.strerror}", local, error.errno) from error
    try:
        bound.bind((address, 0))
    except OSError as error:
        bound.close()
        raise LinkUnavailable(f"protocol {protocol} at {address}: {error.strerror}", local, error.errno) from error
    return bound


class AhLink(RawLink):
    """As RawLink, for AH, which covers the IP header around it: whole packets go out and come in.

    Over IPv6 the kernel keeps the header of what comes in to itself; it is made again from what the kernel tells of it.
    Extension headers before AH are lost that way, and a packet that had some is not authentic here.
    """

    protocol = AH

    def __init__(self, sockets: Sequence[socket.socket], *, hop_limit: int | None = None) -> None:
        super().__init__(sockets, hop_limit=hop_limit)
        self._hop_limit = hop_limit or TTL
        for each in sockets:
            if each.family == socket.AF_INET6:
                each.setsockopt(socket.IPPROTO_IPV6, IPV6_HDRINCL, 1)
                each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            else:
                each.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)

    def send(self, datagrams: Sequence[Outgoing]) -> int:
        """As :meth:`esp.link.Link.send`; what the header carries is in the packet, and no option of the socket."""
        whole = (dressed(each, self._hop_limit) for each in datagrams)
        return super().send([Outgoing(packet, each.remote) for packet, each in zip(whole, datagrams, strict=True)])

    def _drain(self, source: socket.socket, datagrams: list[Incoming | Run]) -> None:
        packets: list[Incoming | Run] = []
        if source.family == socket.AF_INET6:
            self._drain_ipv6(source, packets)
        else:
            UdpLink._drain(self, source, packets)  # header and all
        # What is none of AH the engine counts as malformed.
        for each in packets:
            assert isinstance(each, Incoming)
            datagrams.append(each._replace(datagram=presented(each.datagram) or b""))

    def _drain_ipv6(self, source: socket.socket, packets: list[Incoming | Run]) -> None:
        for _ in range(BATCH):
            try:
                rest, ancillary, _, address = source.recvmsg(LONGEST_DATAGRAM, _ANCILLARY)
            except BlockingIOError:
                return
            except OSError:
                self._take_errors(source)
                continue
            told = {kind: value for _, kind, value in ancillary}
            # struct in6_pktinfo (RFC 3542 §6.2): address, interface.
            packet = rebuilt(address[0], told[socket.IPV6_PKTINFO][:16], rest)
            traffic_class = int.from_bytes(told[socket.IPV6_TCLASS], sys.byteorder)
            packets.append(Incoming(packet, endpoint_of(address), traffic_class))


class Links:
    """UDP, raw ESP and AH as one link: what goes to a port is sent in UDP, what goes to port 0 by its protocol.

    Args:
        udp, raw: this one owns them.
    """

    def __init__(self, udp: UdpLink, *raw: RawLink) -> None:
        self._udp, self._raw = udp, raw
        self._all = (udp, *raw)
        self._readiness = Readiness(self._all)
        self._protocols = {each.protocol for each in raw}
        self._refused = 0

    @property
    def grant(self) -> Grant:
        """As :attr:`esp.link.Link.grant`; without UDP there are none."""
        return self._udp.grant

    @property
    def offloads(self) -> Offloads:
        """As of the UDP link."""
        return self._udp.offloads

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """All of them, those of the UDP link first."""
        return tuple(each for link in self._all for each in link.sockets)

    def of_queue(self, number: int) -> list[tuple[socket.socket, bool]]:
        """As :meth:`esp.link.UdpLink.of_queue`."""
        return [port for link in self._all for port in link.of_queue(number)]

    @property
    def local(self) -> tuple[Endpoint, ...]:
        """As :attr:`esp.link.Link.local`; those with port 0 are the raw ones."""
        return tuple(local for each in self._all for local in each.local)

    @property
    def refused(self) -> int:
        """As :attr:`esp.link.Link.refused`."""
        return self._refused + sum(each.refused for each in self._all)

    def receive(self) -> list[Incoming | Run]:
        """As :meth:`esp.link.Link.receive`, a batch of each.

        What comes in UDP from port 0 would look as if it had come without; the engine counts it as malformed.
        """
        received: list[Incoming | Run] = []
        for each in self._udp.receive():
            alone = [each] if each.source.port else each.split() if isinstance(each, Run) else [each]
            received += alone if each.source.port else [Incoming(b"", one.source) for one in alone]
        return received + [incoming for each in self._raw for incoming in each.receive()]

    def send(self, datagrams: Sequence[Outgoing]) -> int:
        """As :meth:`esp.link.Link.send`; the order is kept within each encapsulation."""
        without_udp = [each for each in datagrams if not each.remote.port]
        if not without_udp:
            return self._udp.send(datagrams)
        refused = self._udp.send([each for each in datagrams if each.remote.port])
        for link in self._raw:
            refused += link.send([each for each in without_udp if each.protocol == link.protocol])
        nobodys = sum(each.protocol not in self._protocols for each in without_udp)
        self._refused += nobodys
        return refused + nobodys

    def send_whole(self, datagram: bytes, remote: Endpoint) -> bool:
        """As :meth:`esp.link.Link.send_whole`."""
        return self._udp.send_whole(datagram, remote)  # KINK goes over UDP

    def of_protocol(self, protocol: int) -> RawLink:
        """The link that has it."""
        return next(each for each in self._raw if each.protocol == protocol)

    def take_errors(self, source: socket.socket) -> None:
        """As :meth:`esp.link.UdpLink.take_errors`."""
        for each in self._all:
            each.take_errors(source)

    def undress(self) -> None:
        """As :meth:`esp.link.UdpLink.undress`."""
        for each in self._all:
            each.undress()

    def take_unreachable(self) -> set[Endpoint]:
        """As :meth:`esp.link.Link.take_unreachable`."""
        return {remote for each in self._all for remote in each.take_unreachable()}

    def take_too_big(self) -> list[TooBig]:
        """As :meth:`esp.link.Link.take_too_big`."""
        return [error for each in self._all for error in each.take_too_big()]

    async def wait_readable(self) -> None:
        """As :meth:`esp.link.Link.wait_readable`."""
        await self._readiness.wait()

    def close(self) -> None:
        """As :meth:`esp.link.Link.close`."""
        if not self._readiness.close():
            return
        for each in self._all:
            each.close()
