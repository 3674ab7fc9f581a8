"""A namespace as the place of a daemon's packet device."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from kinkvpn.rootless.namespace import StepRefused
from kinkvpn.rootless.obstacles import explain
from kinkvpn.service.obstacles import StartRefused
from kinkvpn.service.place import Settled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from esp.offload import Offloads
    from esp.tun import PacketDevice
    from kinkvpn.config import DnsSettings, TunSettings
    from kinkvpn.rootless.outside import Namespace
    from kinkvpn.service.netconf import NetworkPlan
    from kinkvpn.service.place import Configured

DESERTED = "the process in the namespace has ended"


class InNamespace:
    """A :class:`kinkvpn.service.place.Place` that goes with whoever lives there.

    Args:
        space: where.
    """

    def __init__(self, space: Namespace) -> None:
        self._space = space

    def open_device(self, tun: TunSettings, offloads: Offloads, queues: int) -> PacketDevice:
        """Raises StartRefused, with what is missing."""
        local = [each.ip.packed for each in tun.addresses]
        try:
            return self._space.device(tun.name, tun.device, offloads=offloads, local=local, queues=queues)
        except StepRefused as refused:
            raise StartRefused(explain(refused)) from refused
        except ConnectionError as error:
            raise StartRefused(DESERTED) from error

    @asynccontextmanager
    async def configured(self, plan: NetworkPlan, dns: DnsSettings, directory: Path) -> AsyncIterator[Configured]:
        """Routes into the device are the only ones, so there are no rules, and nothing outside to keep out of it.

        Raises:
            NetworkRefused, StartRefused: what cannot be had.
        """
        alone = replace(plan, rules=(), outside=())
        try:
            self._space.configure(alone, [str(each) for each in dns.servers], dns.domains)
        except StepRefused as refused:
            raise StartRefused(explain(refused)) from refused
        except ConnectionError as error:
            raise StartRefused(DESERTED) from error
        yield Settled("the command's routes are what they were when it started: start it again")
