"""lwIP as the place of a daemon's packet device: a socket pair whose other end is the stack's."""

from __future__ import annotations

import logging
import socket
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from esp.offload import OF_TUN, Grant, Offload
from esp.tun import PacketDevice
from kinkvpn.proxy.lwip.stack import LwipStack
from kinkvpn.service.devices import settled
from kinkvpn.service.netconf import NetworkRefused
from kinkvpn.service.obstacles import StartRefused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from ipaddress import IPv4Address, IPv6Address
    from pathlib import Path

    from esp.offload import Offloads
    from esp.policy import Network
    from kinkvpn.config import DnsSettings, TunSettings
    from kinkvpn.service.netconf import NetworkPlan
    from kinkvpn.service.place import Configured

log = logging.getLogger(__name__)

# Ours. What may wait for the stack, and for the packet loop: a window's worth where we may have that, and what anybody
# may have (net.core.wmem_max) where not.
BUFFER = 8 << 20
SO_SNDBUFFORCE = 32  # linux/socket.h; Python's socket module does not name it
NAME = "lwip"
# Addresses of each version that lwIP has room for.
MOST = {4: 1, 6: 3}


class PairDevice(PacketDevice):
    """One end of a socket pair of SOCK_SEQPACKET: a message is a vnet header and a packet.

    Args:
        end: taken over.
        mtu: octets.
        offloads: wanted. The stack cuts its segments itself; it takes those that were put together.
        local: as for :class:`esp.tun.PacketDevice`.
    """

    def __init__(self, end: socket.socket, mtu: int, offloads: Offloads, local: Sequence[bytes]) -> None:
        grant = Grant(offloads, OF_TUN)
        grant.refuse("lwIP cuts its segments itself", Offload.TSO, Offload.USO)
        grant.take_refusals()  # nothing that would have to be told of
        super().__init__(NAME, [end.detach()], vnet=True, grant=grant, local=local)
        self._mtu = mtu

    @property
    def mtu(self) -> int:
        """As it was at the start."""
        return self._mtu


class InLwip:
    """A :class:`kinkvpn.service.place.Place`.

    Attributes:
        stack: once it is configured.
    """

    def __init__(self) -> None:
        self.stack: LwipStack
        self._end: socket.socket

    def open_device(self, tun: TunSettings, offloads: Offloads, queues: int) -> PairDevice:
        """As there, with one queue. Raises StartRefused: no descriptors."""
        assert queues == 1
        try:
            ours, self._end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise StartRefused(f"no socket pair for lwIP: {error.strerror}") from error
        for each in (ours, self._end):
            each.setblocking(False)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
            with suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, BUFFER)
        return PairDevice(ours, settled(tun), offloads, [each.ip.packed for each in tun.addresses])

    @asynccontextmanager
    async def configured(self, plan: NetworkPlan, dns: DnsSettings, directory: Path) -> AsyncIterator[Configured]:
        """As there; names are the proxy's matter."""
        log.debug("lwip", extra={"fields": {"dns": list(dns.servers), "directory": str(directory)}})
        chosen = [each for version, most in MOST.items() for each in _of(plan, version)[:most]]
        with self._end:
            try:
                self.stack = LwipStack(self._end.fileno(), vnet=True, mtu=plan.mtu, addresses=chosen)
            except OSError as error:
                raise StartRefused(f"no stack: {error.strerror}") from error
            try:
                yield _Network(self.stack)
            finally:
                self.stack.close()


def _of(plan: NetworkPlan, version: int) -> list[IPv4Address | IPv6Address]:
    return [each.ip for each in plan.addresses if each.version == version]


class _Network:
    """lwIP has one MTU for all that is behind the tunnel."""

    def __init__(self, stack: LwipStack) -> None:
        self._stack = stack

    async def limit_mtu(self, subnets: Sequence[Network], octets: int) -> None:
        """As :meth:`kinkvpn.service.place.Configured.limit_mtu`, for all ``subnets`` there are."""
        log.info("mtu_limited", extra={"fields": {"subnets": list(map(str, subnets)), "mtu": octets}})
        self._stack.limit_mtu(octets)

    async def change(self, plan: NetworkPlan) -> None:
        """As :meth:`kinkvpn.service.place.Configured.change`. Raises NetworkRefused."""
        raise NetworkRefused(f"{plan.device}: the proxy's addresses are what they were when it started: start it again")
