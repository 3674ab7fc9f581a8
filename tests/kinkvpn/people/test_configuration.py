from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest
import trio
from support.doorstep import GATEWAY, LENT, MACHINE, Gateway, asked

from kinkvpn.config.clear import Known
from kinkvpn.people import Wishes, configuration_for
from kinkvpn.proto.lease import Lease
from kinkvpn.service.obstacles import StartRefused

if TYPE_CHECKING:
    from support.kdc import Lab

pytestmark = pytest.mark.kdc


def test_a_configuration_without_a_file(lab: Lab, ccache: str) -> None:
    gateway = Gateway(lab)
    configuration = asked(gateway, ccache)
    assert configuration.host.principal == f"alice@{lab.realm.name}"
    assert configuration.host.ccache == ccache
    assert configuration.host.keytab is None
    assert list(map(str, configuration.tun.addresses)) == ["10.8.0.7/32", "fd00:8::7/128"]
    assert (configuration.dns.servers, configuration.dns.domains) == (("10.1.0.53",), ("example.com",))
    (peer,) = configuration.peers
    assert (peer.name, peer.principal, peer.address, peer.esp_port) == ("127.0.0.1", GATEWAY, "127.0.0.1", gateway.port)
    assert [(str(one.selector.local), str(one.selector.remote)) for one in peer.policies] == [
        ("10.8.0.7/32", "10.1.0.0/16"),
        ("fd00:8::7/128", "fd00:1::/48"),
    ]


def test_a_public_route_that_was_allowed_is_in_it(lab: Lab, ccache: str) -> None:
    configuration = asked(Gateway(lab), ccache, wishes=Wishes(routes=(ip_network("8.8.0.0/16"),)))
    assert "8.8.8.0/24" in [str(one.selector.remote) for one in configuration.policies]


def test_with_all_traffic_tickets_still_come_from_outside(lab: Lab, ccache: str) -> None:
    everything = Lease(LENT.addresses, (ip_network("0.0.0.0/0"), ip_network("::/0")), LENT.servers)
    configuration = asked(Gateway(lab, everything), ccache, wishes=Wishes(all_traffic=True))
    assert configuration.clear.bypass == (Known.KDC,)
    configuration = asked(Gateway(lab, everything), ccache, wishes=Wishes(all_traffic=True, dns=False))
    assert configuration.clear.bypass == (Known.KDC, Known.DNS)
    assert asked(Gateway(lab), ccache).clear.bypass == ()


def test_who_is_no_gateway_by_name(lab: Lab, ccache: str) -> None:
    async def ask(name: str) -> str:
        with pytest.raises(StartRefused) as refused:
            await configuration_for(name, machine=MACHINE, ccache=ccache)
        return str(refused.value)

    for name in ("", "a b", "gw.example.com:x", "gw.example.com:0"):
        assert "expected a gateway's host name" in trio.run(ask, name)
