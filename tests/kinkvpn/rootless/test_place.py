"""A namespace as the place of a daemon's device; the rest of a daemon in it is in tests/interop/test_run.py."""

from __future__ import annotations

import socket
from contextlib import closing
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest
import trio
from support.unprivileged import as_user

from esp.offload import ALL_OFFLOADS
from kinkvpn.config import DeviceKind, DnsSettings, TunSettings
from kinkvpn.rootless.channel import Channel
from kinkvpn.rootless.outside import Namespace, keep
from kinkvpn.rootless.place import DESERTED, InNamespace
from kinkvpn.service.netconf import NetworkPlan
from kinkvpn.service.obstacles import StartRefused

PLAN = NetworkPlan("kink0", 1400, (ip_interface("10.9.0.1/24"),), (ip_network("0.0.0.0/0"),))


@pytest.mark.root
@pytest.mark.parametrize("kind", list(DeviceKind))
def test_what_is_sent_inside_comes_out_here(kind: DeviceKind) -> None:
    def deed() -> object:
        with keep() as space:
            return trio.run(carry, space)

    async def carry(space: Namespace) -> object:
        place = InNamespace(space)
        tun = TunSettings(device=kind, addresses=PLAN.addresses)
        dns = DnsSettings(servers=(ip_address("10.9.0.53"),))
        with closing(place.open_device(tun, ALL_OFFLOADS, 1)) as device:
            async with place.configured(PLAN, dns, Path("/nowhere")):
                with space.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                    sock.sendto(b"out", ("192.0.2.1", 9))
                with trio.fail_after(30):
                    await device.wait_readable()
                (packet,) = device.receive()
                return packet[-3:].decode(), list(packet[12:20])

    assert as_user(deed) == ["out", [10, 9, 0, 1, 192, 0, 2, 1]]


def test_a_namespace_that_nobody_lives_in_any_more_is_a_refusal() -> None:
    ours, theirs = Channel.pair()
    theirs.close()
    space = Namespace(ours)
    with pytest.raises(StartRefused, match=DESERTED):
        InNamespace(space).open_device(TunSettings(), ALL_OFFLOADS, 1)
    space.close()


@pytest.mark.root
def test_a_device_that_is_refused_is_explained() -> None:
    def deed() -> object:
        with keep() as space:
            place = InNamespace(space)
            first = place.open_device(TunSettings(device=DeviceKind.TUN), ALL_OFFLOADS, 1)
            try:
                place.open_device(TunSettings(device=DeviceKind.TUN), ALL_OFFLOADS, 1)
            except StartRefused as refused:
                return str(refused)
            finally:
                first.close()

    assert as_user(deed) == "TUNSETIFF: Device or resource busy"
