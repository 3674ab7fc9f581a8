"""Where the packet device is, and who gives it addresses, routes and name servers: this host as it is, or elsewhere."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from kinkvpn.service.devices import open_device
from kinkvpn.service.netconf import NetworkConfiguration, NetworkRefused
from kinkvpn.service.resolver import Resolver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from esp.offload import Offloads
    from esp.policy import Network
    from esp.tun import PacketDevice
    from kinkvpn.config import DnsSettings, TunSettings
    from kinkvpn.service.netconf import NetworkPlan


log = logging.getLogger(__name__)


class Configured(Protocol):
    """A network that is as it was planned."""

    async def limit_mtu(self, subnets: Sequence[Network], octets: int) -> None:
        """As :meth:`kinkvpn.service.netconf.NetworkConfiguration.limit_mtu`."""
        ...

    async def change(self, plan: NetworkPlan) -> None:
        """As :meth:`kinkvpn.service.netconf.NetworkConfiguration.change`."""
        ...


class Place(Protocol):
    """What a daemon has of where its packets come from."""

    def open_device(self, tun: TunSettings, offloads: Offloads, queues: int) -> PacketDevice:
        """As :func:`kinkvpn.service.devices.open_device`."""
        ...

    def configured(
        self, plan: NetworkPlan, dns: DnsSettings, directory: Path
    ) -> AbstractAsyncContextManager[Configured]:
        """The plan holds in the block, and names are asked of ``dns``; ``directory`` is for what has to be put back.

        Raises:
            KinkvpnError: what cannot be had.
        """
        ...


class Settled:
    """A network that is somebody else's to configure. Who sends what is too long is told so by ICMP, out of the device.

    Args:
        reason: why nothing of it changes.
    """

    def __init__(self, reason: str) -> None:
        self._reason = reason

    async def limit_mtu(self, subnets: Sequence[Network], octets: int) -> None:
        """As :meth:`Configured.limit_mtu`."""
        log.debug("mtu_not_limited", extra={"fields": {"mtu": octets, "subnets": len(subnets)}})

    async def change(self, plan: NetworkPlan) -> None:
        """As :meth:`Configured.change`. Raises NetworkRefused."""
        raise NetworkRefused(self._reason)


class ThisHost:
    """This host, in the network namespace of this process."""

    def __init__(self) -> None:
        self._adopted = False

    def open_device(self, tun: TunSettings, offloads: Offloads, queues: int) -> PacketDevice:
        """As :func:`kinkvpn.service.devices.open_device`."""
        self._adopted = tun.fd is not None
        return open_device(tun, offloads, queues)

    @asynccontextmanager
    async def configured(self, plan: NetworkPlan, dns: DnsSettings, directory: Path) -> AsyncIterator[Configured]:
        """As :meth:`Place.configured`; undone in reverse. A device that was passed in is configured by who did that."""
        if self._adopted:
            yield Settled("the device was passed in by tun.fd: whoever did that gives it routes")
            return
        async with NetworkConfiguration(plan) as network, Resolver(dns, plan.device, directory):
            yield network
