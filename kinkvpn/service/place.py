"""Where the packet device is, and who gives it addresses, routes and name servers: this host as it is, or elsewhere."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from kinkvpn.service.devices import open_device
from kinkvpn.service.netconf import NetworkConfiguration
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


class ThisHost:
    """This host, in the network namespace of this process."""

    def open_device(self, tun: TunSettings, offloads: Offloads, queues: int) -> PacketDevice:
        """As :func:`kinkvpn.service.devices.open_device`."""
        return open_device(tun, offloads, queues)

    @asynccontextmanager
    async def configured(self, plan: NetworkPlan, dns: DnsSettings, directory: Path) -> AsyncIterator[Configured]:
        """As :meth:`Place.configured`; undone in reverse."""
        async with NetworkConfiguration(plan) as network, Resolver(dns, plan.device, directory):
            yield network
