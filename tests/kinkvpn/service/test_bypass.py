"""What goes past the tunnel: by words, and by where a host is."""

from __future__ import annotations

import sys
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest
from support.configuration import SMALL, SOURCE
from support.namespaces import run

from esp.policy import Action
from kinkvpn import config
from kinkvpn.service.bypass import attached_networks, here, with_bypass
from kinkvpn.traffic import show_selector

if TYPE_CHECKING:
    from kinkvpn.config import Configuration

LAN = (ip_network("192.168.7.0/24"), ip_network("fd07::/64"))


def bypassing(*entries: str, text: str = SMALL) -> Configuration:
    listed = ", ".join(f'"{entry}"' for entry in entries)
    return with_bypass(config.parse(f"clear.bypass = [{listed}]\n{text}", SOURCE), LAN)


def shown(configuration: Configuration) -> list[str]:
    assert {policy.action for policy in configuration.before} == {Action.BYPASS}
    return [show_selector(policy.selector) for policy in configuration.before]


def test_each_word_is_policies_of_both_families() -> None:
    assert shown(bypassing("lan"))[:2] == ["0.0.0.0/0 -> 192.168.7.0/24", "::/0 -> fd07::/64"]
    assert shown(bypassing("dns")) == [
        "0.0.0.0/0 -> 0.0.0.0/0 udp any:53",
        "::/0 -> ::/0 udp any:53",
        "0.0.0.0/0 -> 0.0.0.0/0 tcp any:53",
        "::/0 -> ::/0 tcp any:53",
        "0.0.0.0/0 -> 0.0.0.0/0 tcp any:853",
        "::/0 -> ::/0 tcp any:853",
    ]
    assert {line.rpartition(":")[2] for line in shown(bypassing("kdc"))} == {"88", "464"}
    assert shown(bypassing("198.51.100.0/24")) == ["0.0.0.0/0 -> 198.51.100.0/24"]


def test_they_stand_ahead_of_what_else_goes_past_and_have_names_of_their_own() -> None:
    text = f'{SMALL}\n[[policy]]\naction = "bypass"\nremote = "2001:db8::/32"'
    found = bypassing("lan", "kdc", "dns", "10.9.0.0/16", text=text)
    names = [policy.name for policy in found.before]
    assert len(set(names)) == len(names)
    assert names[-1] == "bypass/1"


def test_what_has_a_tunnel_of_its_own_is_met_through_it() -> None:
    text = SMALL.replace("10.2.0.0/24", "192.168.7.9/32")
    found = bypassing("lan", text=text)
    assert "0.0.0.0/0 -> 192.168.7.0/24" not in shown(found)
    assert [policy.name for policy in found.after] == ["lan/192.168.7.0/24"]


def test_nothing_is_asked_of_the_kernel_where_nothing_depends_on_it() -> None:
    plain = config.parse(SMALL, SOURCE)
    assert here(plain) == plain


@pytest.mark.root
def test_a_lan_is_what_a_host_is_attached_to_and_nobody_has_on_the_internet() -> None:
    script = """
import sys
from kinkvpn.service.bypass import attached_networks
print(*attached_networks("kink0"))
"""
    setup = """
ip link set lo up
for device in eth kink0; do ip link add $device type veth; ip link set $device up; done
ip address add 192.168.7.3/24 dev eth; ip address add fd07::3/64 dev eth nodad; ip address add 10.8.0.1/24 dev kink0
ip address add 8.8.8.1/24 dev eth; ip route add 172.16.0.0/12 via 192.168.7.1; ip route add default via 192.168.7.1
ip address add 10.0.0.1/8 dev lo; ip route add unreachable 10.66.0.0/16
exec "$@"
"""
    said = run("unshare", "--net", "sh", "-c", setup, "sh", sys.executable, "-c", script)
    found = set(said.split())
    assert {"192.168.7.0/24", "fd07::/64"} <= found
    assert found <= {"192.168.7.0/24", "fd07::/64", "fe80::/64"}
    assert isinstance(attached_networks("nosuch0"), tuple)
