"""lwIP as the place of a daemon's device: what its stack sends comes out of the device, with a vnet header."""

from __future__ import annotations

from contextlib import closing
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest
import trio

from esp.offload import ALL_OFFLOADS
from esp.sa import Endpoint
from kinkvpn.config import DnsSettings, TunSettings
from kinkvpn.proxy.lwip.place import InLwip
from kinkvpn.service.netconf import NetworkPlan, NetworkRefused

ADDRESSES = (ip_interface("10.9.0.1/24"), ip_interface("fd00:9::1/64"))
PLAN = NetworkPlan("lwip", 1400, ADDRESSES, (ip_network("0.0.0.0/0"), ip_network("::/0")))


@pytest.mark.parametrize(("wildcard", "remote", "at"), [("0.0.0.0", "192.0.2.1", 12), ("::", "2001:db8::1", 8)])
async def test_a_datagram_comes_out_and_addresses_stay(wildcard: str, remote: str, at: int) -> None:
    place = InLwip()
    with (
        trio.fail_after(30),
        closing(place.open_device(TunSettings(addresses=ADDRESSES, mtu=PLAN.mtu), ALL_OFFLOADS, 1)) as device,
    ):
        async with place.configured(PLAN, DnsSettings(), Path("/nowhere")) as network, trio.open_nursery() as nursery:
            await nursery.start(place.stack.run)
            udp = await place.stack.open_udp(Endpoint(wildcard, 0))
            await udp.send(b"out", Endpoint(remote, 9))
            await device.wait_readable()
            (packet,) = device.receive()
            own = next(each.ip for each in ADDRESSES if each.version == packet[0] >> 4)
            assert packet[at:].startswith(own.packed + ip_address(remote).packed)
            assert packet.endswith(b"out")
            with pytest.raises(NetworkRefused, match="start it again"):
                await network.change(PLAN)
            udp.close()
            nursery.cancel_scope.cancel()
