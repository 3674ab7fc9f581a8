"""The namespaces as whoever stays outside sees them: what can be had from in there, and a process that keeps them."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from esp.offload import ALL_OFFLOADS
from esp.tun import TunDevice
from esp.veth import VethDevice
from kinkvpn.config import DeviceKind
from kinkvpn.rootless import inside
from kinkvpn.rootless.channel import Channel
from kinkvpn.rootless.namespace import Step, StepRefused, die_with_parent
from kinkvpn.service.netconf import NetworkRefused

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from esp.offload import Offloads
    from esp.tun import PacketDevice
    from kinkvpn.service.netconf import NetworkPlan


class Namespace:
    """Namespaces that another process lives in and :func:`kinkvpn.rootless.inside.serve` serves.

    Each call is a round trip of some ten microseconds to that process, and blocks. One thread at a time.

    Args:
        channel: to it, taken over.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def settled(self) -> None:
        """Return once the other process has entered the namespaces.

        Raises:
            StepRefused: the kernel would not have it, as that process has said.
            ConnectionError: it has gone.
        """
        answered(self._channel)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket of that network: what it binds and connects to is in there, whoever calls it.

        Raises:
            OSError: as socket(2); ConnectionError if nobody lives there any more.
        """
        _, (descriptor,) = self._ask("socket", family=int(family), kind=int(kind), protocol=protocol)
        return socket.socket(fileno=descriptor)

    def device(
        self,
        name: str,
        kind: DeviceKind = DeviceKind.AUTO,
        *,
        offloads: Offloads = ALL_OFFLOADS,
        local: Collection[bytes] = (),
        queues: int = 1,
    ) -> PacketDevice:
        """A packet device whose other side is in there, without addresses and routes.

        Args:
            name: of that side's interface.
            kind: AUTO is a TUN where /dev/net/tun opens in there, and a veth pair where it does not.
            offloads, local, queues: as for :class:`esp.tun.TunDevice`.

        Raises:
            StepRefused: it cannot be had; of AUTO, the veth pair.
            ConnectionError: nobody lives there any more.
        """
        answer, descriptors = self._ask("device", name=name, kind=kind.value, offloads=asdict(offloads), queues=queues)
        if answer["kind"] == DeviceKind.TUN.value:
            return TunDevice.adopt(descriptors, offloads=offloads, local=local)
        return VethDevice(name, descriptors, bytes.fromhex(answer["hardware"]), offloads=offloads, local=local)

    def configure(self, plan: NetworkPlan, resolvers: Sequence[str] = (), search: Sequence[str] = ()) -> None:
        """Addresses and routes of a device that is in there, and whom names are asked for.

        Args:
            plan: of it, device, mtu, addresses and routes.
            resolvers: addresses of name servers; without any, resolv.conf is the host's.
            search: domains.

        Raises:
            NetworkRefused: the kernel would not have an address or a route.
            StepRefused: it would not have resolv.conf.
            ConnectionError: nobody lives there any more.
        """
        self._ask(
            "configure",
            device=plan.device,
            mtu=plan.mtu,
            addresses=[str(each) for each in plan.addresses],
            routes=[str(each) for each in plan.routes],
            resolvers=list(resolvers),
            search=list(search),
        )

    def leave(self, message: dict[str, Any]) -> None:
        """Have :func:`~kinkvpn.rootless.inside.serve` return ``message``, JSON-able. Raises ConnectionError."""
        self._channel.send({"do": "leave", "message": message})

    def close(self) -> None:
        """Whoever lives there hears of it, and goes."""
        self._channel.close()

    def _ask(self, deed: str, **arguments: object) -> tuple[dict[str, Any], list[int]]:
        self._channel.send({"do": deed, **arguments})
        answer, descriptors = answered(self._channel)
        return answer, descriptors


def answered(channel: Channel) -> tuple[dict[str, Any], list[int]]:
    """The next answer on ``channel``; a refusal is raised here as it was there.

    Raises:
        StepRefused, NetworkRefused, OSError: what was raised there.
        ConnectionError: the other side has gone.
    """
    received = channel.receive()
    if received is None:
        raise ConnectionResetError("the process in the namespace has ended")
    answer, descriptors = received
    if "refused" in answer:
        raise StepRefused(Step[answer["refused"]], answer["errno"])
    if "network" in answer:
        raise NetworkRefused(answer["network"])
    if "errno" in answer:
        raise OSError(answer["errno"], os.strerror(answer["errno"]))
    return answer, descriptors


@contextmanager
def keep() -> Iterator[Namespace]:
    """New namespaces, and a process of ours that does nothing but keep them, until the block ends or we do.

    It is forked: call this before the first thread is made, from the thread that lives longest. Sockets that were got
    from there keep the network too.

    Raises:
        StepRefused: the kernel would not have it; :func:`kinkvpn.rootless.obstacles.explain` has the way out.
    """
    ours, theirs = Channel.pair()
    parent = os.getpid()
    keeper = os.fork()
    if keeper == 0:
        ours.close()
        _keep(theirs, parent)
    theirs.close()
    try:
        space = Namespace(ours)
        space.settled()
        yield space
    finally:
        ours.close()
        os.waitpid(keeper, 0)


def _keep(channel: Channel, parent: int) -> None:
    """The life of a keeper. It ends with its channel; and were it stuck, with ``parent``."""
    code = 1
    try:
        die_with_parent(signal.SIGKILL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for those whom the user knows
        if os.getppid() == parent:
            if inside.tell_settled(channel):
                inside.serve(channel)
            code = 0
    finally:
        os._exit(code)
