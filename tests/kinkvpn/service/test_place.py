"""This host as the place of a daemon's device: its own, or one that was passed in."""

from __future__ import annotations

import os
from contextlib import closing
from ipaddress import ip_interface
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.namespaces import namespace, run, within

from esp.offload import ALL_OFFLOADS
from esp.tun import TunDevice
from kinkvpn.config import DeviceKind, DnsSettings, TunSettings
from kinkvpn.service.netconf import NetworkPlan, NetworkRefused
from kinkvpn.service.obstacles import StartRefused
from kinkvpn.service.place import ThisHost

if TYPE_CHECKING:
    from collections.abc import Iterator

PLAN = NetworkPlan("kink0", 1400, (ip_interface("10.9.0.1/24"),))


@pytest.fixture
def net() -> Iterator[str]:
    with namespace() as name:
        yield name


@pytest.mark.root
async def test_a_device_that_was_passed_in_is_configured_by_who_did_that(net: str) -> None:
    theirs = within(net, lambda: TunDevice("theirs", mtu=1300))
    place = ThisHost()
    device = place.open_device(TunSettings(fd=theirs.fileno()), ALL_OFFLOADS, 1)
    theirs.close()
    with closing(device):
        assert device.name == "theirs"
        async with place.configured(PLAN, DnsSettings(), Path("/nowhere")) as network:
            with pytest.raises(NetworkRefused, match="whoever did that gives it routes"):
                await network.change(PLAN)
            await network.limit_mtu([], 1300)
        assert "10.9.0.1" not in run("ip", "-n", net, "addr")


@pytest.mark.root
@pytest.mark.parametrize("kind", [DeviceKind.AUTO, DeviceKind.VETH])
def test_the_kind_of_device_is_chosen_and_gone_at_the_end(net: str, kind: DeviceKind) -> None:
    device = within(net, lambda: ThisHost().open_device(TunSettings(device=kind, mtu=1400), ALL_OFFLOADS, 1))
    assert ("kink0~" in run("ip", "-n", net, "link")) == (kind is DeviceKind.VETH)
    within(net, device.close)
    assert "kink0" not in run("ip", "-n", net, "link")


def test_what_is_no_tun_is_refused_with_its_number() -> None:
    descriptor = os.open(os.devnull, os.O_RDWR)
    with pytest.raises(StartRefused, match=f"^tun.fd = {descriptor}: Inappropriate ioctl for device$"):
        ThisHost().open_device(TunSettings(fd=descriptor), ALL_OFFLOADS, 1)
    os.close(descriptor)
    with pytest.raises(StartRefused, match=f"^tun.fd = {descriptor}: Bad file descriptor$"):
        ThisHost().open_device(TunSettings(fd=descriptor), ALL_OFFLOADS, 1)
    with pytest.raises(StartRefused, match=r"esp\.queues is 2: expected 1 with tun\.fd"):
        ThisHost().open_device(TunSettings(fd=descriptor), ALL_OFFLOADS, 2)
