"""Where ESP listens, and how a host's routes are to lead into the tunnel; the devices themselves: test_daemon.py."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from esp.policy import Action, AddressRange, Policy, Selector
from esp.sa import Endpoint, SecurityProtocol
from kinkvpn.config import Listen, TunSettings
from kinkvpn.service.devices import esp_addresses, listening_addresses, network_plan, open_links, open_metrics
from kinkvpn.service.obstacles import StartRefused
from kinkvpn.service.rules import own_rules, policy_rules

TUN = TunSettings("kink7", (ip_interface("10.1.0.1/24"),), mtu=1300)
PROTECTED = [ip_network("10.2.0.0/24")]
SOCKETS = [Endpoint("0.0.0.0", 4500)]


def test_esp_listens_where_kink_does() -> None:
    assert esp_addresses(["192.0.2.1", "2001:db8::1"]) == ("192.0.2.1", "2001:db8::1")
    assert esp_addresses(["192.0.2.1", "192.0.2.2", "::1"]) == ("0.0.0.0", "::1")
    assert listening_addresses(["192.0.2.1"]) == ("192.0.2.1",)


def test_the_plan_routes_what_peers_have_and_spares_where_they_are() -> None:
    plan = network_plan(TUN, PROTECTED, ["192.0.2.2", "", "192.0.2.2"], SOCKETS)
    assert (plan.device, plan.addresses, plan.mtu, plan.table) == ("kink7", TUN.addresses, 1300, 910)
    assert plan.routes == tuple(PROTECTED)
    assert plan.outside == ("192.0.2.2",)
    assert network_plan(TUN, PROTECTED, [""], SOCKETS).outside == ()
    without = TunSettings(mtu=1300, routes=False)
    assert network_plan(without, PROTECTED, [], SOCKETS).routes == ()
    assert plan.rules == network_plan(without, PROTECTED, ["10.2.0.2"], SOCKETS).rules == ()
    assert network_plan(TUN, PROTECTED, ["10.2.0.2"], SOCKETS).rules == own_rules(SOCKETS)


def test_between_hosts_packets_leave_from_the_address_of_the_policy() -> None:
    hosts = [Selector(ip_network("192.0.2.1"), ip_network("192.0.2.2"))]
    remotes = [each.remote for each in hosts]
    plan = network_plan(TUN, remotes, [""], SOCKETS, hosts)
    assert plan.sources == {plan.routes[0]: "192.0.2.1"}
    assert plan.rules == own_rules(SOCKETS), "wherever the peer may be"
    assert network_plan(TUN, remotes, [""], SOCKETS).sources == {}
    assert network_plan(TunSettings(mtu=1300, routes=False), remotes, [""], SOCKETS, hosts).rules == ()


def test_what_does_not_protect_has_rules_behind_our_own() -> None:
    protecting = Policy("b/1", Selector(ip_network("10.1.0.0/24"), PROTECTED[0]))
    past = Policy("past", Selector(ip_network("0.0.0.0/0"), ip_network("10.2.0.9/32")), Action.BYPASS)
    ranged = AddressRange(ip_address("10.3.0.1"), ip_address("10.3.0.2"))
    policies = [past, protecting]
    plan = network_plan(TUN, [*PROTECTED, ranged], ["192.0.2.2"], SOCKETS, policies=policies)
    assert [str(route) for route in plan.routes] == ["10.2.0.0/24", "10.3.0.1/32", "10.3.0.2/32"]
    assert plan.rules == (*own_rules(SOCKETS), *policy_rules(policies))
    assert network_plan(TUN, PROTECTED, ["192.0.2.2"], SOCKETS, policies=[protecting]).rules == ()
    assert network_plan(TunSettings(mtu=1300, routes=False), PROTECTED, [], SOCKETS, policies=policies).rules == ()


def test_without_raw_esp_one_link_does() -> None:
    link = open_links(["127.0.0.1"], 0, set())
    try:
        (local,) = link.local
        with pytest.raises(StartRefused, match=f"127.0.0.1.*{local.port}"):
            open_links(["127.0.0.1"], local.port, set())
    finally:
        link.close()


@pytest.mark.root
def test_each_protocol_has_a_link_of_its_own_where_it_goes_without_udp() -> None:
    for protocols in ({SecurityProtocol.ESP}, {SecurityProtocol.AH}, set(SecurityProtocol)):
        link = open_links(["127.0.0.1"], 0, protocols)
        assert [each.port for each in link.local][1:] == [0] * len(protocols)
        link.close()
    with pytest.raises(StartRefused, match=r"192\.0\.2\.1 is no address of this host"):
        open_links(["192.0.2.1"], 0, {SecurityProtocol.AH})


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_who_only_looks_has_a_socket_while_it_is_held(address: str) -> None:
    with socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET) as free:
        port = free.getsockname()[1]
        with ExitStack() as held, pytest.raises(StartRefused, match=f":{port}/tcp is taken"):
            open_metrics(Listen(address, port), held)
    with ExitStack() as held:
        assert open_metrics(None, held) is None
        listener = open_metrics(Listen(address, port), held)
        assert listener is not None
        with socket.create_connection((address, port), timeout=30):
            pass
    assert listener.fileno() == -1
