"""The link: ESP in UDP datagrams to and from the outside, a batch at a time (RFC 3948)."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import sys
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Protocol

from esp import icmp
from esp.datagram import Incoming, Outgoing, Run, gather
from esp.errors import EspError
from esp.offload import ALL_OFFLOADS, OF_UDP, Grant, Offload, Offloads
from esp.readiness import Readiness
from esp.sa import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from esp.icmp import TooBig

# Specification.
ESP_PORT = 4500  # RFC 3947 §4, RFC 3948 §2.2: the port of UDP-encapsulated ESP
LONGEST_DATAGRAM = 65_535  # more than UDP can carry: a read never cuts a datagram

MAX_SEGMENTS = 64  # of a run (linux/udp.h, UDP_MAX_SEGMENTS; 128 in newer kernels)
LARGEST_RUN = 65_507  # octets of a run: it is one datagram until it leaves, over IPv4 with both headers (RFC 768)

# Ours.
WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - a gateway serves all its addresses; packets authenticate themselves

# Datagrams a socket gives in one call, for the reason given at esp.tun.BATCH.
BATCH = 64

# 4 MiB holds 30 ms at 1 Gbit/s: what arrives while another task has the loop for a KDC's answer is kept. Published
# measurements give +29 % throughput for buffers of several megabytes. The kernel doubles what it is given.
BUFFER_OCTETS = 4 << 20

# Ours. So many runs in a row that the kernel finds invalid are no path that has become narrower.
MAX_FAILURES = 16
# What says that there is no room now, and what says that there will never be runs.
_FULL = {errno.EAGAIN, errno.ENOBUFS}
_NEVER = {errno.EIO, errno.EOPNOTSUPP, errno.ENOPROTOOPT}

# linux/socket.h, linux/in.h; Python's socket module does not name them.
SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33
SO_ATTACH_REUSEPORT_CBPF = 51
IP_MTU_DISCOVER = 10
IP_PMTUDISC_DONT, IP_PMTUDISC_PROBE = 0, 3
IPV6_MTU_DISCOVER = 23
IPV6_FLOWINFO_SEND = 33
SOL_UDP, UDP_SEGMENT, UDP_GRO = socket.IPPROTO_UDP, 103, 104  # linux/udp.h

_DISCOVERY = {socket.AF_INET: IP_MTU_DISCOVER, socket.AF_INET6: IPV6_MTU_DISCOVER}
# Level, and the options for the traffic class of what is sent, that of what is received, and the hop limit.
_HEADER_OPTIONS = {
    socket.AF_INET: (socket.IPPROTO_IP, socket.IP_TOS, socket.IP_RECVTOS, socket.IP_TTL),
    socket.AF_INET6: (
        socket.IPPROTO_IPV6,
        socket.IPV6_TCLASS,
        socket.IPV6_RECVTCLASS,
        socket.IPV6_UNICAST_HOPS,
    ),
}
# A received one comes as ancillary data: an octet over IPv4, an int over IPv6 (ip(7), ipv6(7)).
# And of a run the octets of each, as an int (udp(7)).
_ANCILLARY = 2 * socket.CMSG_SPACE(4)
_INT = struct.Struct("=i")
_SHORT = struct.Struct("=H")
_LOW_OCTET = 0 if sys.byteorder == "little" else -1


class LinkUnavailable(EspError):
    """A socket could not be bound; the message says where and why.

    Attributes:
        local: the address and port that were asked for, so that the caller can say which process holds them.
        errno: what the kernel said (EADDRINUSE, EACCES, EADDRNOTAVAIL...).
    """

    def __init__(self, message: str, local: Endpoint, number: int | None) -> None:
        super().__init__(message)
        self.local = local
        self.errno = number


class Link(Protocol):
    """Where datagrams come from and go to. Implemented by :class:`UdpLink` and :class:`esp.testing.MemoryLink`."""

    @property
    def local(self) -> tuple[Endpoint, ...]:
        """The addresses and ports it receives on, one for each address family."""

    @property
    def refused(self) -> int:
        """Datagrams the kernel or the network refused since the start, as far as we were told."""

    @property
    def grant(self) -> Grant:
        """Which offloads are in use."""

    def receive(self) -> Sequence[Incoming | Run]:
        """Datagrams that wait now, a bounded number, oldest first; empty when there are none. Never blocks."""

    def take_unreachable(self) -> set[Endpoint]:
        """Remotes that ICMP has called unreachable since the last call, a bounded number. Anybody can forge that."""

    def take_too_big(self) -> list[TooBig]:
        """Datagrams that were too long for the path since the last call, a bounded number. Anybody can forge that too,
        where ICMP says it: what is quoted is for the engine to look at.
        """

    def send(self, datagrams: Sequence[Outgoing]) -> int:
        """Send ``datagrams`` in order; the number that was refused. Never blocks."""

    def send_whole(self, datagram: bytes, remote: Endpoint) -> bool:
        """Send ``datagram`` unfragmented, whatever the path is thought to carry; whether it left. Never blocks."""

    async def wait_readable(self) -> None:
        """Return when :meth:`receive` may have something."""

    def close(self) -> None:
        """Give the sockets up. Closing twice is fine."""


class _Port:
    """A socket, and what it puts into the outer headers now.

    That are options of the socket, changed when a datagram wants another header than the one before it: ancillary data
    with each datagram costs as much as a change, traffic comes in runs, and for DF there is none (ip(7)).
    """

    __slots__ = (
        "_discovery",
        "_discovery_option",
        "_level",
        "_traffic_class_option",
        "dont_fragment",
        "sendto",
        "socket",
        "traffic_class",
    )

    def __init__(self, udp: socket.socket, hop_limit: int | None) -> None:
        self.socket = udp
        self.sendto = udp.sendto
        self.traffic_class = 0
        self.dont_fragment: bool | None = None
        self._level, self._traffic_class_option, receive, hops = _HEADER_OPTIONS[udp.family]
        udp.setsockopt(self._level, receive, 1)
        if hop_limit is not None:
            udp.setsockopt(self._level, hops, hop_limit)
        # With DF, a datagram longer than the interface takes is refused. Not one longer than the kernel thinks the path
        # is (IP_PMTUDISC_DO): it believes ICMP that quotes ports, which anybody can forge, and would tell us as its own
        # word. The engine looks at what is quoted of ESP. Without the wish for one or the other the kernel sets DF as
        # well, unless told otherwise (net.ipv4.ip_no_pmtu_disc), and fragments what it thinks is too long.
        self._discovery: dict[bool | None, int] = {}
        if udp.family == socket.AF_INET6:
            # Labels that addresses name are sent; none there is the kernel's affair, as before (ipv6(7)).
            udp.setsockopt(self._level, IPV6_FLOWINFO_SEND, 1)
        self._discovery_option = _DISCOVERY[udp.family]
        own = udp.getsockopt(self._level, self._discovery_option)
        if udp.family == socket.AF_INET:
            self._discovery = {None: own, True: IP_PMTUDISC_PROBE, False: IP_PMTUDISC_DONT}
        else:
            self._discovery = {None: own, True: own, False: own}

    def dress(self, traffic_class: int, dont_fragment: bool | None) -> None:
        """Have the datagrams that follow carry this traffic class and, over IPv4, this DF."""
        if traffic_class != self.traffic_class:
            self.socket.setsockopt(self._level, self._traffic_class_option, traffic_class)
            self.traffic_class = traffic_class
        if dont_fragment is not self.dont_fragment:
            self.socket.setsockopt(self._level, self._discovery_option, self._discovery[dont_fragment])
            self.dont_fragment = dont_fragment

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Have the datagrams inside leave in one piece, be the path as it may; only the interface limits them."""
        self.socket.setsockopt(self._level, self._discovery_option, IP_PMTUDISC_PROBE)
        try:
            yield
        finally:
            self.socket.setsockopt(self._level, self._discovery_option, self._discovery[self.dont_fragment])


class UdpLink:
    """One unconnected UDP socket for each address family. It owns the sockets it is given.

    Args:
        sockets: bound UDP sockets, at most one AF_INET and one AF_INET6. Handing them over lets a process open them
            before it gives up privileges or enters another namespace; :meth:`bind` is the usual way.
        hop_limit: TTL or hop limit of outer headers, 1 to 255; None leaves it to the kernel.
        offloads: wanted; which of them there are is in ``grant``.
        more: likewise, for each further queue of the compiled engine as many, bound to the same addresses and ports
            (SO_REUSEPORT). What comes by them its threads receive, and nobody here.

    Attributes:
        sockets: the first queue's.
    """

    remote_ports = range(1, 65_536)
    possible: Sequence[Offload] = OF_UDP

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        *,
        hop_limit: int | None = None,
        offloads: Offloads = ALL_OFFLOADS,
        more: Sequence[Sequence[socket.socket]] = (),
    ) -> None:
        families = {each.family for each in sockets}
        if not sockets or len(families) != len(sockets) or not families <= _HEADER_OPTIONS.keys():
            raise ValueError("a link takes one socket for each of IPv4 and IPv6, and at least one")
        self._queues = tuple(map(tuple, (sockets, *more)))
        self._all = tuple(each for queue in self._queues for each in queue)
        ports = [_Port(each, hop_limit) for each in self._all]
        for each in self._all:
            each.setblocking(False)
            icmp.ask(each)
            _enlarge_buffers(each)
        self.grant = Grant(offloads, self.possible)
        for offload in self.possible:
            _try_out(self._all, self.grant, offload)
        self.sockets = self._queues[0]
        self._ports = {port.socket.family: port for port in ports[: len(sockets)]}
        self.local = tuple(endpoint_of(each.getsockname()) for each in sockets)
        self._refused = 0
        self._failures = 0  # of runs, in a row
        self._errors = icmp.Errors()
        self._readiness = Readiness(sockets)

    @classmethod
    def bind(
        cls,
        port: int = ESP_PORT,
        addresses: Sequence[str] = WILDCARDS,
        *,
        hop_limit: int | None = None,
        offloads: Offloads = ALL_OFFLOADS,
        queues: int = 1,
    ) -> UdpLink:
        """Open a socket for each of ``addresses`` on ``port``; port 0 takes one that is free, the same for all.

        Where the kernel has no IPv6, ``::`` is left out; :attr:`local` shows what there is. With several ``queues``
        that many sockets: what comes is given to that of number SPI modulo ``queues``, what is no ESP to the first.

        Raises:
            LinkUnavailable: port taken, address not of this host, or no permission.
        """
        families: list[list[socket.socket]] = []
        with ExitStack() as failed:
            for address in addresses:
                try:
                    families.append(_bound_queues(address, port, queues, failed))
                except LinkUnavailable as error:
                    if not families or address != "::" or error.errno != errno.EAFNOSUPPORT:
                        raise
                port = families[0][0].getsockname()[1]
            first, *more = zip(*families, strict=True)
            link = cls(first, hop_limit=hop_limit, offloads=offloads, more=more)
            failed.pop_all()
        return link

    @property
    def refused(self) -> int:
        """Datagrams the kernel would not send, and ICMP errors it reported for earlier ones."""
        return self._refused

    @property
    def offloads(self) -> Offloads:
        """Those in use."""
        return self.grant.offloads

    def receive(self) -> list[Incoming | Run]:
        """Up to :data:`BATCH` datagrams of each socket, or runs of them: neither family waits for the other to run dry.

        An error that a read reports (ECONNREFUSED and its like, from ICMP) is about an earlier datagram of ours; it
        counts as refused and the next read goes on. Anybody can forge one, so it must not end anything.
        """
        datagrams: list[Incoming | Run] = []
        for each in self._ports.values():
            self._drain(each.socket, datagrams)
        return datagrams

    def _drain(self, source: socket.socket, datagrams: list[Incoming | Run]) -> None:
        keep, receive = datagrams.append, source.recvmsg
        previous: object = None
        endpoint = _NOWHERE
        room = BATCH
        while room > 0:
            try:
                datagram, ancillary, _, address = receive(LONGEST_DATAGRAM, _ANCILLARY)
            except BlockingIOError:
                return
            except OSError:
                self._take_errors(source)
                room -= 1
                continue
            # A batch comes mostly from one peer: its endpoint is made once.
            if address != previous:
                previous, endpoint = address, endpoint_of(address)
            traffic_class = octets = 0
            for level, _, value in ancillary:
                if level == SOL_UDP:
                    octets = _INT.unpack(value)[0]
                else:
                    traffic_class = value[_LOW_OCTET]
            if octets:
                datagrams += gather(datagram, octets, endpoint, traffic_class)
                room -= len(datagram) // octets
            else:
                keep(Incoming(datagram, endpoint, traffic_class))
                room -= 1

    def take_errors(self, source: socket.socket) -> None:
        """Take what the error queue of ``source`` holds; for whoever reads the sockets in our place."""
        if source in self._all:
            self._take_errors(source)

    def of_queue(self, number: int) -> list[tuple[socket.socket, bool]]:
        """The sockets that queue sends by, and whether it receives by each as well."""
        return [(each, True) for each in self._queues[number]]

    def undress(self) -> None:
        """Leave the headers of what others send by these sockets to the kernel again."""
        for port in self._ports.values():
            port.dress(port.traffic_class, None)

    def _take_errors(self, source: socket.socket) -> None:
        errors = icmp.take_errors(source)
        self._refused += max(errors.count, 1)
        self._errors.add(errors)

    def send(self, datagrams: Sequence[Outgoing]) -> int:
        """Send ``datagrams``, one attempt each; the number that was refused.

        A full send buffer (EAGAIN) drops what does not fit, as a router's full queue does, and the senders inside
        slow down: waiting would only hold up what arrives, and keep packets that get older meanwhile.
        """
        refused = 0
        if len(datagrams) > 1 and self.grant.offloads.udp_segment:
            for run in runs(datagrams):
                refused += self._send_run(run) if len(run) > 1 else self._send_each(run)
        else:
            refused = self._send_each(datagrams)
        self._refused += refused
        return refused

    def _send_each(self, datagrams: Sequence[Outgoing]) -> int:
        refused = 0
        previous: object = None
        for datagram, remote, traffic_class, dont_fragment, flow_label, _ in datagrams:
            try:
                if remote is not previous:
                    port, address = self._route(remote)
                    transmit, previous = port.sendto, remote
                if traffic_class != port.traffic_class or dont_fragment is not port.dont_fragment:
                    port.dress(traffic_class, dont_fragment)
                transmit(datagram, address if not flow_label else _labelled(address, flow_label))
            except OSError as error:
                refused += not self._sent_again(error, datagram, remote)
        return refused

    def _send_run(self, run: Sequence[Outgoing]) -> int:
        """Datagrams that differ in nothing but what is in them, in one call (udp(7), UDP_SEGMENT)."""
        datagram, remote, traffic_class, dont_fragment, flow_label, _ = run[0]
        segment = [(SOL_UDP, UDP_SEGMENT, _SHORT.pack(len(datagram)))]
        try:
            port, address = self._route(remote)
        except OSError:
            return len(run)
        try:
            port.dress(traffic_class, dont_fragment)
            buffers = [each[0] for each in run]
            port.socket.sendmsg(buffers, segment, 0, _labelled(address, flow_label) if flow_label else address)
        except OSError as error:
            if error.errno in _FULL:
                return len(run)
            self._doubt(error, icmp.take_errors(port.socket))
            return self._send_each(run)
        self._failures = 0
        return 0

    def _doubt(self, error: OSError, earlier: icmp.Errors) -> None:
        """A run was refused that may go one by one: for an ``earlier`` datagram's sake, if there are such errors.

        Without checksums in hardware some devices say EIO, ever again; EINVAL is for datagrams that are longer than the
        path, until the engine has heard of it.
        """
        self._refused += bool(earlier.count)
        self._errors.add(earlier)
        self._failures += error.errno == errno.EINVAL
        if error.errno in _NEVER or self._failures >= MAX_FAILURES:
            self.grant.refuse(f"sending a run of datagrams: {error.strerror}", Offload.UDP_SEGMENT)

    def send_whole(self, datagram: bytes, remote: Endpoint) -> bool:
        """As :meth:`Link.send_whole`."""
        try:
            port, address = self._route(remote)
            with port.whole():
                port.dress(0, port.dont_fragment)
                try:
                    port.sendto(datagram, address)
                except OSError as error:
                    went = self._sent_again(error, datagram, remote)
                else:
                    return True
        except OSError:
            went = False
        self._refused += not went
        return went

    def _sent_again(self, error: OSError, datagram: bytes, remote: Endpoint) -> bool:
        """Whether ``datagram`` has gone after all: what failed was an earlier one, as ICMP says."""
        port = self._ports.get(socket.AF_INET6 if ":" in remote.address else socket.AF_INET)
        if port is None:
            return False

        def send() -> None:
            port, address = self._route(remote)
            port.sendto(datagram, address)

        went, errors = icmp.sent_again(error, port.socket, send)
        self._refused += went
        self._errors.add(errors)
        return went

    def take_unreachable(self) -> set[Endpoint]:
        """As :meth:`Link.take_unreachable`."""
        taken, self._errors.unreachable = self._errors.unreachable, set()
        return taken

    def take_too_big(self) -> list[TooBig]:
        """As :meth:`Link.take_too_big`."""
        taken, self._errors.too_big = self._errors.too_big, []
        return taken

    def _route(self, remote: Endpoint) -> tuple[_Port, tuple[str | int, ...]]:
        """What sends to ``remote``, and its address as that socket wants it.

        Raises:
            OSError: no address and port, or of a family this link has no socket for. A name would be looked up in the
                DNS, blocking, if it came as far as sendto.
        """
        host, _, scope = remote.address.partition("%")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.inet_pton(family, host)
        if family not in self._ports or remote.port not in self.remote_ports:
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        address: tuple[str | int, ...] = (host, remote.port)
        if scope:
            index = int(scope) if scope.isdecimal() else socket.if_nametoindex(scope)
            address = (host, remote.port, 0, index)
        return self._ports[family], address

    def fileno(self) -> int:
        """A descriptor that is readable when one of the sockets has a datagram or an error to report."""
        return self._readiness.fileno()

    async def wait_readable(self) -> None:
        """Return when one of the sockets has a datagram or an error to report."""
        await self._readiness.wait()

    def close(self) -> None:
        """Close the sockets. Who waits on them gets :class:`trio.ClosedResourceError`."""
        if not self._readiness.close():
            return
        for each in self._all:
            each.close()


_NOWHERE = Endpoint("", 0)


def runs(datagrams: Sequence[Outgoing]) -> Iterator[list[Outgoing]]:
    """``datagrams`` in order; those together that may leave in one call: with one remote and header, of one length but
    for a shorter last one, and not more than there may be.
    """
    run: list[Outgoing] = []
    header: object = None
    octets = room = 0
    for each in datagrams:
        length = len(each[0])
        if room and 0 < length <= octets and each[1:] == header:
            run.append(each)
            room = room - 1 if length == octets else 0
            continue
        if run:
            yield run
        run, header, octets = [each], each[1:], length
        room = min(MAX_SEGMENTS, LARGEST_RUN // length) - 1 if length else 0
    if run:
        yield run


def endpoint_of(address: tuple[str | int, ...]) -> Endpoint:
    """A socket address as an endpoint; a link-local one keeps its interface (RFC 4007 §11) as ``fe80::1%2``."""
    host, port, *rest = address
    scope = rest[1] if len(rest) == 2 else 0
    return Endpoint(f"{host}%{scope}" if scope else str(host), int(port))


def _labelled(address: tuple[str | int, ...], flow_label: int) -> tuple[str | int, ...]:
    """An IPv6 socket address with this label; IPv4 has none."""
    host, port, *rest = address
    scope = rest[1] if len(rest) == 2 else 0
    return (host, port, flow_label, scope) if ":" in str(host) else address


def _bound_queues(address: str, port: int, queues: int, failed: ExitStack) -> list[socket.socket]:
    """As many sockets on one address and port; ``failed`` closes them."""
    alone = _bound(address, port)
    if queues == 1:
        failed.callback(alone.close)
        return [alone]
    # Sockets that may share a port share it with those of every process of the same user. One that may not finds out
    # whether there is another such process, whose traffic we would take half of.
    port = alone.getsockname()[1]
    alone.close()
    group: list[socket.socket] = []
    for _ in range(queues):
        group.append(_bound(address, port, shared=True))
        failed.callback(group[-1].close)
    _steer_by_spi(group)
    return group


# linux/filter.h: struct sock_filter (code, jt, jf, k) and struct sock_fprog; the payload of the datagram begins at 0.
_FILTER, _PROGRAM = struct.Struct("=HBBI"), struct.Struct("@HP")
_LOAD_WORD, _MODULO, _RETURN = 0x20, 0x94, 0x16


def _steer_by_spi(group: Sequence[socket.socket]) -> None:
    """Have all packets of an SA come to one socket: that of number SPI modulo how many there are, in order of binding.

    The non-ESP marker is SPI 0 (RFC 3948 §2.2); for a datagram that is shorter than an SPI the program returns 0 too.
    """
    steps = ((_LOAD_WORD, 0), (_MODULO, len(group)), (_RETURN, 0))
    program = ctypes.create_string_buffer(b"".join(_FILTER.pack(code, 0, 0, value) for code, value in steps))
    # A kernel that does not take it sorts by addresses and ports: an SA may then have several of our threads wait for
    # each other, and nothing worse.
    with suppress(OSError):
        about = _PROGRAM.pack(len(steps), ctypes.addressof(program))
        group[0].setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, about)


def _bound(address: str, port: int, *, shared: bool = False) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    local = Endpoint(address, port)
    try:
        bound = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    except OSError as error:
        raise LinkUnavailable(f"no UDP socket for {address}: {error.strerror}", local, error.errno) from error
    try:
        if family == socket.AF_INET6:
            # Else [::] would take the IPv4 port too, and IPv4 peers would come as ::ffff:a.b.c.d.
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((address, port))
    except OSError as error:
        bound.close()
        raise LinkUnavailable(f"{_spell(local)}/udp: {error.strerror}", local, error.errno) from error
    return bound


def _spell(local: Endpoint) -> str:
    return f"[{local.address}]:{local.port}" if ":" in local.address else f"{local.address}:{local.port}"


# What tries an offload out on a UDP socket: UDP_SEGMENT of 0 is as without, and on each call another.
_TRIALS = {Offload.UDP_SEGMENT: (UDP_SEGMENT, 0), Offload.UDP_GRO: (UDP_GRO, 1)}


def _try_out(sockets: Sequence[socket.socket], grant: Grant, offload: Offload) -> None:
    """Ask for ``offload`` where it is wanted; all sockets have it, or none uses it."""
    option, value = _TRIALS[offload]
    try:
        for each in sockets if grant.offloads.has(offload) else ():
            each.setsockopt(SOL_UDP, option, value)
    except OSError as error:
        grant.refuse(f"the kernel's UDP sockets do not have it: {error.strerror}", offload)


def _enlarge_buffers(each: socket.socket) -> None:
    """Past net.core.rmem_max where we may (CAP_NET_ADMIN), as far as it lets us where not."""
    for forced, asked in ((SO_RCVBUFFORCE, socket.SO_RCVBUF), (SO_SNDBUFFORCE, socket.SO_SNDBUF)):
        try:
            each.setsockopt(socket.SOL_SOCKET, forced, BUFFER_OCTETS)
        except PermissionError:
            each.setsockopt(socket.SOL_SOCKET, asked, BUFFER_OCTETS)
