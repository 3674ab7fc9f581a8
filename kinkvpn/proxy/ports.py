"""Forwards at work: ``-L``, a port of this host that leads into the tunnel; ``-R``, one in there that leads here."""

from __future__ import annotations

import logging
import socket
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Protocol

import trio

from esp.sa import Endpoint
from kinkvpn.proxy.front import ASKING_SECONDS, PAUSE_SECONDS, Clients, open_listener
from kinkvpn.proxy.outgoing import Refused
from kinkvpn.proxy.stack import StackError
from kinkvpn.service.obstacles import StartRefused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.socket import SocketType

    from kinkvpn.proxy.forwards import Forward
    from kinkvpn.proxy.outgoing import Outgoing
    from kinkvpn.proxy.stack import Connection, Listener, Stack

log = logging.getLogger(__name__)

# Ours. A flow of datagrams has no end that could be seen; a minute is what NATs give it (RFC 4787 §4.3 asks for two).
FLOW_SECONDS = 120.0
# Ours. Of one forward: a stub resolver has a new source for each question, and so the oldest makes room for the next.
MOST_FLOWS = 128
# Ours. Of one flow, while its socket is made and a name is looked up.
MOST_WAITING = 8
# Ours. Connections that come out of the tunnel at a time, of every -R: whoever is there must not take the places, nor
# the descriptors, of those who are here.
MAX_CALLERS = 64
_LONGEST_DATAGRAM = 65_535
LOOPBACK = "127.0.0.1"


class Datagrams(Protocol):
    """One side of a forward of UDP: ours, or the tunnel's."""

    async def send(self, datagram: bytes, remote: Endpoint) -> None:
        """Lost like any."""

    async def receive(self) -> tuple[bytes, Endpoint]:
        """The next one, and where it comes from."""

    def close(self) -> None:
        """Give it up."""


class HostUdpSocket:
    """UDP of this host, outside the tunnel."""

    def __init__(self, bound: SocketType) -> None:
        self._socket = bound

    async def send(self, datagram: bytes, remote: Endpoint) -> None:
        """As there."""
        with suppress(OSError):
            await self._socket.sendto(datagram, tuple(remote))

    async def receive(self) -> tuple[bytes, Endpoint]:
        """As there."""
        while True:
            with suppress(ConnectionError):  # about an earlier one
                octets, source = await self._socket.recvfrom(_LONGEST_DATAGRAM)
                return octets, Endpoint(source[0], source[1])

    def close(self) -> None:
        """As there."""
        self._socket.close()


async def host_udp(local: Endpoint) -> HostUdpSocket:
    """Bound. Raises OSError."""
    made = trio.socket.socket(socket.AF_INET6 if ":" in local.address else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        await made.bind(tuple(local))
    except BaseException:
        made.close()
        raise
    return HostUdpSocket(made)


class Ports:
    """What the forwards of a proxy have in common.

    Args:
        stack, outgoing: of the tunnel.
        clients: whose bound is that of -L too.
        nursery: everything runs in.
    """

    def __init__(self, stack: Stack, outgoing: Outgoing, clients: Clients, nursery: trio.Nursery) -> None:
        self._stack = stack
        self._outgoing = outgoing
        self._clients = clients
        self._callers = Clients(MAX_CALLERS)
        self._nursery = nursery

    async def forward_local(self, forward: Forward) -> None:
        """-L. Raises StartRefused: the port is not to be had."""
        here = Endpoint(LOOPBACK if forward.bind is None else str(forward.bind), forward.port)
        if not forward.udp:
            self._nursery.start_soon(self._clients.serve, await open_listener(here), self._into_tunnel(forward))
            return
        try:
            listening = await host_udp(here)
        except OSError as error:
            raise StartRefused(f"-L {forward}: {error.strerror}") from error

        async def opened() -> tuple[Datagrams, Endpoint]:
            remote = (await self._outgoing.addresses(forward.target))[0]
            return await self._outgoing.open_udp(ip_address(remote.address).version), remote

        self._nursery.start_soon(carry_datagrams, listening, opened)

    async def forward_remote(self, forward: Forward) -> None:
        """-R. Raises StartRefused: the port is not to be had."""
        wildcard = "0.0.0.0" if 4 in self._stack.versions else "::"  # noqa: S104 # in the tunnel
        there = Endpoint(wildcard if forward.bind is None else str(forward.bind), forward.port)
        try:
            if not forward.udp:
                listener = await self._stack.listen(there)
                self._nursery.start_soon(self._accept, listener, forward)
                return
            udp = await self._stack.open_udp(there)
        except StackError as error:
            raise StartRefused(f"-R {forward}: {error}") from error

        async def opened() -> tuple[Datagrams, Endpoint]:
            found = await trio.socket.getaddrinfo(str(forward.target.host), forward.target.port, type=socket.SOCK_DGRAM)
            address = str(found[0][4][0])
            return await host_udp(Endpoint("::" if ":" in address else "0.0.0.0", 0)), Endpoint(  # noqa: S104
                address, forward.target.port
            )

        self._nursery.start_soon(carry_datagrams, udp, opened)

    def _into_tunnel(self, forward: Forward) -> Callable[[SocketType], Awaitable[None]]:
        async def serve(client: SocketType) -> None:
            try:
                connection = await self._outgoing.connect(forward.target)
            except Refused as refused:
                log.info("refused", extra={"fields": {"target": str(forward.target), "reason": str(refused)}})
                return
            try:
                await connection.relay(client)
            finally:
                connection.close()

        return serve

    async def _accept(self, listener: Listener, forward: Forward) -> None:
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    try:
                        connection, source = await listener.accept()
                    except OSError:  # no descriptor left for it
                        await trio.sleep(PAUSE_SECONDS)
                        continue
                    if self._callers.enter():
                        nursery.start_soon(self._out_of_tunnel, connection, source, forward)
                    else:
                        connection.close()
        finally:
            listener.close()

    async def _out_of_tunnel(self, connection: Connection, source: Endpoint, forward: Forward) -> None:
        log.debug("accepted", extra={"fields": {"source": f"{source.address}:{source.port}", "forward": str(forward)}})
        try:
            with trio.fail_after(ASKING_SECONDS):
                stream = await trio.open_tcp_stream(str(forward.target.host), forward.target.port)
            await connection.relay(stream.socket)
        except (OSError, trio.TooSlowError) as error:
            log.info("refused", extra={"fields": {"target": str(forward.target), "reason": str(error)}})
        except Exception:
            log.exception("caller_failed")  # no defect that one of them finds goes further
        finally:
            connection.close()
            self._callers.leave()


@dataclass(slots=True, eq=False)
class _Flow:
    """Datagrams of one source on their way to its socket, and how long that has to live."""

    waiting: trio.MemorySendChannel[bytes]
    scope: trio.CancelScope

    def push(self, datagram: bytes) -> None:
        """Lost where there are too many."""
        self.go_on()
        with suppress(trio.WouldBlock, trio.BrokenResourceError):
            self.waiting.send_nowait(datagram)

    def go_on(self) -> None:
        """It is not silent."""
        self.scope.deadline = trio.current_time() + FLOW_SECONDS


async def carry_datagrams(listening: Datagrams, opened: Callable[[], Awaitable[tuple[Datagrams, Endpoint]]]) -> None:
    """Each source of ``listening`` gets a socket of its own on the other side, until it has been silent for a while.

    Args:
        listening: taken over.
        opened: such a socket, and where what comes is to go. What it raises of Refused, StackError and OSError loses
            the datagrams that wait for it.
    """
    flows: OrderedDict[Endpoint, _Flow] = OrderedDict()

    async def carry(source: Endpoint, flow: _Flow, waiting: trio.MemoryReceiveChannel[bytes]) -> None:
        try:
            with flow.scope:
                udp, remote = await opened()
                try:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(carry_back, source, flow, udp, remote)
                        async for datagram in waiting:
                            await udp.send(datagram, remote)
                finally:
                    udp.close()
        except* (Refused, StackError, OSError) as errors:
            log.info("refused", extra={"fields": {"reason": str(errors.exceptions[0])}})
        finally:
            waiting.close()
            if flows.get(source) is flow:
                del flows[source]

    async def carry_back(source: Endpoint, flow: _Flow, udp: Datagrams, remote: Endpoint) -> None:
        while True:
            datagram, sender = await udp.receive()
            if sender == remote:  # the port is there for everybody: others could speak as what was asked
                flow.go_on()
                await listening.send(datagram, source)

    try:
        async with trio.open_nursery() as nursery:
            while True:
                datagram, source = await listening.receive()
                if source not in flows:
                    if len(flows) >= MOST_FLOWS:
                        flows.popitem(last=False)[1].scope.cancel()
                    sending, waiting = trio.open_memory_channel[bytes](MOST_WAITING)
                    flows[source] = _Flow(sending, trio.CancelScope())
                    nursery.start_soon(carry, source, flows[source], waiting)
                flows.move_to_end(source)
                flows[source].push(datagram)
    finally:
        listening.close()
