"""Names asked for through the tunnel, and nowhere else: what a client wants to reach is nobody's business outside."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import islice
from typing import TYPE_CHECKING

import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import trio

from esp.sa import Endpoint
from kinkvpn.proxy.relay import send_all
from kinkvpn.proxy.stack import StackError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kinkvpn.proxy.stack import Stack, UdpSocket

Address = IPv4Address | IPv6Address

DNS_PORT = 53
# Ours. A server that has not answered by then is asked again, or the next one is; as resolv.conf(5) has it, and sooner.
ANSWER_SECONDS = 2.0
ROUNDS = 2
# Ours. Names that are kept, and for how long at most, whatever their owner says.
KEPT = 1_000
# Ours. Addresses of a name and a version: three are tried within half a minute, and a message holds four thousand, of
# whoever owns the name.
MOST_ADDRESSES = 16
LONGEST_KEPT = 300.0
# Ours. That a name is not known as well (RFC 2308 §7): a program that asks without end asks us, and not its server.
SHORTEST_KEPT = 5.0


class NameUnknown(Exception):
    """There is no such name, no server that knows it, or nobody to ask; the message says which."""


class Names:
    """Asks name servers behind the tunnel.

    Args:
        stack: by which they are reached.
        servers: their addresses; without any, no name is known.
        domains: that a name without a dot is completed with.
    """

    def __init__(self, stack: Stack, servers: Sequence[Address], domains: Sequence[str] = ()) -> None:
        self._stack = stack
        self._servers = [each for each in servers if each.version in stack.versions]
        self._domains = tuple(domains)
        self._kept: OrderedDict[str, tuple[float, tuple[Address, ...]]] = OrderedDict()

    async def resolve(self, name: str) -> tuple[Address, ...]:
        """Its addresses, of those IP versions that the tunnel carries; IPv6 first.

        Raises:
            NameUnknown: there are none.
        """
        expires, addresses = self._kept.get(name, (0.0, ()))
        if expires > trio.current_time():
            return _some(name, addresses)
        if not self._servers:
            raise NameUnknown(f"{name}: there is no name server in the tunnel to ask: name one with --dns")
        candidates = [f"{name}.{domain}" for domain in self._domains if "." not in name]
        for candidate in (*candidates, name):
            found, seconds = await self._look_up(candidate)
            if found:
                self._keep(name, found, seconds)
                return found
        self._keep(name, (), SHORTEST_KEPT)
        return _some(name, ())

    def _keep(self, name: str, addresses: tuple[Address, ...], seconds: float) -> None:
        self._kept[name] = trio.current_time() + min(max(seconds, SHORTEST_KEPT), LONGEST_KEPT), addresses
        self._kept.move_to_end(name)
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)

    async def _look_up(self, name: str) -> tuple[tuple[Address, ...], float]:
        """Addresses, and for how long they are good; none where there is no such name."""
        found: dict[int, tuple[tuple[Address, ...], float]] = {}

        async def ask(version: int) -> None:
            found[version] = await self._ask_for(name, version)

        async with trio.open_nursery() as nursery:
            for version in self._stack.versions:
                nursery.start_soon(ask, version)
        addresses = tuple(address for version in (6, 4) if version in found for address in found[version][0])
        return addresses, min((seconds for some, seconds in found.values() if some), default=0.0)

    async def _ask_for(self, name: str, version: int) -> tuple[tuple[Address, ...], float]:
        kind = dns.rdatatype.AAAA if version == 6 else dns.rdatatype.A
        try:
            query = dns.message.make_query(name, kind, id=secrets.randbits(16))
        except dns.exception.DNSException:
            return (), 0.0  # with its domain it is longer than any that there is (RFC 1035 §2.3.4)
        for server in [*self._servers] * ROUNDS:
            answer = await self._answer(query, Endpoint(str(server), DNS_PORT))
            if answer is not None and answer.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                return _addresses(answer, kind)
        return (), 0.0

    async def _answer(self, query: dns.message.Message, server: Endpoint) -> dns.message.Message | None:
        """What ``server`` says; None where it says nothing that is an answer."""
        with trio.move_on_after(ANSWER_SECONDS):
            try:
                answer = await self._answer_by_udp(query, server)
                return await self._answer_by_tcp(query, server) if answer.flags & dns.flags.TC else answer
            except (StackError, OSError, dns.exception.DNSException, ValueError):
                await trio.lowlevel.checkpoint()
        return None

    async def _answer_by_udp(self, query: dns.message.Message, server: Endpoint) -> dns.message.Message:
        wildcard = "::" if ":" in server.address else "0.0.0.0"  # noqa: S104 # inside the tunnel
        udp = await self._stack.open_udp(Endpoint(wildcard, 0))
        try:
            await udp.send(query.to_wire(), server)
            return await _matching(udp, query, server)
        finally:
            udp.close()

    async def _answer_by_tcp(self, query: dns.message.Message, server: Endpoint) -> dns.message.Message:
        connection = await self._stack.connect(server)
        try:
            wire, stream = query.to_wire(), await connection.stream()
            await send_all(stream, len(wire).to_bytes(2) + wire)  # RFC 1035 §4.2.2
            octets = await _exactly(stream, int.from_bytes(await _exactly(stream, 2)))
            answer = dns.message.from_wire(octets)
            if not query.is_response(answer):
                raise dns.exception.FormError
            return answer
        finally:
            connection.close()


def _some(name: str, addresses: tuple[Address, ...]) -> tuple[Address, ...]:
    """These. Raises NameUnknown: there are none."""
    if not addresses:
        raise NameUnknown(f"{name}: no such name")
    return addresses


async def _matching(udp: UdpSocket, query: dns.message.Message, server: Endpoint) -> dns.message.Message:
    """The answer to ``query`` among what comes: anybody behind the tunnel can send something (RFC 5452 §9.1)."""
    while True:
        octets, source = await udp.receive()
        try:
            answer = dns.message.from_wire(octets, ignore_trailing=True)
        except (dns.exception.DNSException, ValueError):
            continue
        if source == server and query.is_response(answer):
            return answer


async def _exactly(connection: trio.socket.SocketType, count: int) -> bytes:
    octets = b""
    while len(octets) < count:
        more = await connection.recv(count - len(octets))
        if not more:
            raise dns.exception.FormError
        octets += more
    return octets


def _addresses(answer: dns.message.Message, kind: dns.rdatatype.RdataType) -> tuple[tuple[Address, ...], float]:
    """Those of the name that was asked for, aliases followed (RFC 1034 §3.6.2)."""
    if not isinstance(answer, dns.message.QueryMessage):
        return (), 0.0
    try:
        resolved = answer.resolve_chaining()
    except dns.exception.DNSException:
        return (), 0.0
    if resolved.answer is None or resolved.answer.rdtype != kind:
        return (), 0.0
    found = islice(resolved.answer, MOST_ADDRESSES)
    return tuple(ip_address(each.address) for each in found), float(resolved.minimum_ttl)
