"""What is done in the namespaces, by a process that lives there, for one outside that may not enter them."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyroute2 import IPRoute

from esp.offload import Offloads
from esp.tun import DEVICE, TunDevice, TunUnavailable
from esp.veth import open_sockets
from kinkvpn.config import DeviceKind
from kinkvpn.rootless.channel import close_all
from kinkvpn.rootless.names import use_resolvers
from kinkvpn.rootless.namespace import Step, StepRefused, attempting, enter
from kinkvpn.service.netconf import NetworkConfiguration, NetworkPlan, NetworkRefused
from kinkvpn.service.veth import make_pair

if TYPE_CHECKING:
    from collections.abc import Callable

    from kinkvpn.rootless.channel import Channel

_PING_GROUPS = Path("/proc/sys/net/ipv4/ping_group_range")
_LOOPBACK = 1  # its index in every network namespace


def settle() -> None:
    """Enter namespaces, and make what every process expects of a host: loopback, and ping for our own group.

    Raises:
        StepRefused: what the kernel would not do.
    """
    enter()
    with attempting(Step.NETLINK), IPRoute() as netlink:
        netlink.link("set", index=_LOOPBACK, state="up")
    with suppress(OSError):  # read-only in some containers; then there is no ping
        _PING_GROUPS.write_text(f"{os.getegid()} {os.getegid()}")


def tell_settled(channel: Channel) -> bool:
    """Settle, and say so over ``channel``, or what was refused; whether it was not. Raises ConnectionError."""
    answer = {}
    try:
        settle()
    except StepRefused as refused:
        answer = {"refused": refused.step.name, "errno": refused.errno}
    channel.send(answer)
    return not answer


def serve(channel: Channel) -> dict[str, Any] | None:
    """Do what is asked for over ``channel``, until it says leave: that message; None if the other side has gone."""
    while (received := channel.receive()) is not None:
        request, _ = received
        if request["do"] == "leave":
            return dict(request["message"])
        descriptors: list[int] = []
        try:
            answer, descriptors = _DEEDS[request.pop("do")](**request)
        except StepRefused as refused:
            answer = {"refused": refused.step.name, "errno": refused.errno}
        except NetworkRefused as refused:
            answer = {"network": str(refused)}
        except OSError as error:
            answer = {"errno": error.errno}
        channel.send(answer, descriptors)
        close_all(descriptors)
    return None


def _socket(family: int, kind: int, protocol: int) -> tuple[dict[str, Any], list[int]]:
    return {}, [socket.socket(family, kind, protocol).detach()]


def make_device(name: str, kind: str, offloads: dict[str, bool], queues: int) -> tuple[dict[str, Any], list[int]]:
    """What carries packets, of that kind or of the one there is; the descriptors are of who asks."""
    if DeviceKind(kind) is DeviceKind.VETH:
        return _veth(name, Offloads(**offloads), queues)
    try:
        return _tun(name, Offloads(**offloads), queues)
    except StepRefused:
        if DeviceKind(kind) is DeviceKind.TUN:
            raise
        return _veth(name, Offloads(**offloads), queues)


def _tun(name: str, offloads: Offloads, queues: int) -> tuple[dict[str, Any], list[int]]:
    with attempting(Step.OPEN_TUN):
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    try:
        device = TunDevice(name, offloads=offloads, queues=queues)
    except TunUnavailable as error:
        raise StepRefused(Step.CREATE_TUN, error.errno or 0) from error
    descriptors = [os.dup(each) for each in device.descriptors]
    device.close()
    return {"kind": DeviceKind.TUN.value}, descriptors


def _veth(name: str, offloads: Offloads, queues: int) -> tuple[dict[str, Any], list[int]]:
    with attempting(Step.VETH):
        pair = make_pair(name)
    with attempting(Step.PACKET):
        descriptors = open_sockets(pair.host, pair.end, offloads, queues)
    return {"kind": DeviceKind.VETH.value, "hardware": pair.hardware.hex()}, descriptors


def _configure(
    device: str, mtu: int, addresses: list[str], routes: list[str], resolvers: list[str], search: list[str]
) -> tuple[dict[str, Any], list[int]]:
    interfaces, subnets = tuple(map(ip_interface, addresses)), tuple(map(ip_network, routes))
    NetworkConfiguration(NetworkPlan(device, mtu, interfaces, subnets)).configure()
    use_resolvers(resolvers, search)
    return {}, []


_DEEDS: dict[str, Callable[..., tuple[dict[str, Any], list[int]]]] = {
    "socket": _socket,
    "device": make_device,
    "configure": _configure,
}
