"""Routes, rules and switches of a host, in a namespace of its own, that go against the tunnel."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from support.doctor import configuration, found, patient
from support.namespaces import namespace, open_tap, run, within

from kinkvpn.doctor import routes
from kinkvpn.doctor.finding import Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kinkvpn.doctor.examination import Patient
    from kinkvpn.doctor.finding import Finding

pytestmark = pytest.mark.root


@pytest.fixture
def host() -> Iterator[str]:
    """With a wire to 192.0.2.0/24 and a network of its own behind it."""
    with namespace() as name:
        for device, address in (("wire", "192.0.2.1/24"), ("lan", "10.1.0.1/24")):
            # Not every kernel has dummy devices; the other end of a pair makes this one as good as plugged in.
            run("ip", "-n", name, "link", "add", device, "type", "veth", "peer", "name", f"{device}-end")
            run("ip", "-n", name, "address", "add", address, "dev", device)
            for end in (device, f"{device}-end"):
                run("ip", "-n", name, "link", "set", end, "up")
        yield name


def seen(host: str, find: Callable[[Patient], Iterator[Finding]], who: Patient) -> dict[str, Finding]:
    """What ``find`` finds there, by name."""
    return found(within(host, lambda: list(find(who))))


def switch(host: str, name: str, value: int) -> None:
    """sysctl(8) in that namespace."""
    run("ip", "netns", "exec", host, "sh", "-c", f"echo {value} > /proc/sys/{name}")


def switched(host: str, who: Patient) -> dict[str, Finding]:
    """Its switches, seen from there: /proc/sys/net is of the thread's namespace."""
    return seen(host, routes.switches, who)


@pytest.mark.provokes("routes")
def test_a_host_where_nobody_competes(host: str) -> None:
    assert set(seen(host, routes.competing, patient(configuration()))) == {"routes"}
    assert list(routes.competing(patient(None))) == list(routes.switches(patient(None))) == []


@pytest.mark.provokes("route-taken")
def test_the_remote_subnet_is_somebody_elses_already(host: str) -> None:
    run("ip", "-n", host, "route", "add", "10.2.0.0/24", "dev", "lan")
    taken = seen(host, routes.competing, patient(configuration()))["route-taken"]
    assert taken.line == "10.2.0.0/24 is routed to lan already"
    assert taken.command == "ip route del 10.2.0.0/24 dev lan"
    run("ip", "-n", host, *taken.command.split()[1:])
    assert set(seen(host, routes.competing, patient(configuration()))) == {"routes"}


@pytest.mark.provokes("route-elsewhere")
def test_a_part_of_it_goes_elsewhere(host: str) -> None:
    run("ip", "-n", host, "route", "add", "10.2.0.128/25", "dev", "lan")
    elsewhere = seen(host, routes.competing, patient(configuration()))["route-elsewhere"]
    assert elsewhere.severity is Severity.WARNING
    assert elsewhere.line == "10.2.0.128/25, a part of 10.2.0.0/24, goes to lan"
    run("ip", "-n", host, *elsewhere.command.split()[1:])
    assert set(seen(host, routes.competing, patient(configuration()))) == {"routes"}


@pytest.mark.provokes("subnet-ours", "subnet-part-ours")
def test_the_remote_subnet_is_ours_too(host: str) -> None:
    """Nobody is told to take away the route that the kernel has to the host's own network."""
    ours = seen(host, routes.competing, patient(configuration(remote="10.1.0.0/24")))["subnet-ours"]
    assert (ours.severity, ours.command) == (Severity.ERROR, "ip address show dev lan")
    part = seen(host, routes.competing, patient(configuration(local="10.3.0.0/24", remote="10.0.0.0/8")))
    assert part.keys() == {"subnet-part-ours"}
    assert (part["subnet-part-ours"].severity, part["subnet-part-ours"].command) == (Severity.NOTE, "")


@pytest.mark.provokes("route-default")
def test_a_tunnel_for_everything_meets_the_default_route(host: str) -> None:
    run("ip", "-n", host, "route", "add", "default", "dev", "wire")
    who = patient(configuration(remote="0.0.0.0/0"))
    answer = seen(host, routes.competing, who)
    assert answer["route-default"].severity is Severity.NOTE
    run("ip", "-n", host, "route", "add", "default", "dev", "lan", "metric", "10")
    assert "goes to wire and lan by" in seen(host, routes.competing, who)["route-default"].line


@pytest.mark.provokes("route-loop", "route-other-vpn")
def test_the_peer_is_behind_another_tunnel_or_our_own_device(host: str) -> None:
    device = within(host, lambda: open_tap("tap0"))
    try:
        for command in ("link set tap0 name kink0", "link set kink0 up", "route add 203.0.113.0/24 dev kink0"):
            run("ip", "-n", host, *command.split())
        who = patient(configuration(address="203.0.113.9"))
        loop = seen(host, routes.competing, who)["route-loop"]
        assert (loop.severity, loop.command) == (Severity.ERROR, "ip link del kink0")
        other = patient(configuration(address="203.0.113.9", sections='[tun]\nname = "kink9"\n'))
        assert "which is another tunnel (tun)" in seen(host, routes.competing, other)["route-other-vpn"].line
    finally:
        os.close(device)


@pytest.mark.provokes("rule-ahead")
def test_a_rule_that_is_asked_before_ours(host: str) -> None:
    run("ip", "-n", host, "rule", "add", "priority", "100", "table", "77")
    ahead = seen(host, routes.competing, patient(configuration()))["rule-ahead"]
    assert ahead.line == "IPv4 routing rule 100 (table 77) is asked before ours"
    run("ip", "-n", host, *ahead.command.split()[1:])
    assert set(seen(host, routes.competing, patient(configuration()))) == {"routes"}


@pytest.mark.provokes("forwarding", "switches")
def test_forwarding_for_those_behind_us(host: str) -> None:
    switch(host, "net/ipv4/ip_forward", 0)
    off = switched(host, patient(configuration()))["forwarding"]
    assert off.line == "IPv4 forwarding is off, and 10.1.0.0/24 (lan) is behind this host"
    assert off.command == "sysctl -w net.ipv4.ip_forward=1"
    switch(host, "net/ipv4/ip_forward", 1)
    assert set(switched(host, patient(configuration()))) == {"switches"}
    switch(host, "net/ipv4/ip_forward", 0)
    alone = patient(configuration(local="10.1.7.0/24"))  # an address of the device's own, and nobody behind it
    assert set(switched(host, alone)) == {"switches"}


@pytest.mark.provokes("rp-filter")
def test_a_strict_filter_where_nothing_routes_into_the_device(host: str) -> None:
    switch(host, "net/ipv4/ip_forward", 1)
    switch(host, "net/ipv4/conf/all/rp_filter", 1)
    assert set(switched(host, patient(configuration()))) == {"switches"}
    by_hand = patient(configuration(sections="[tun]\nroutes = false\n"))
    strict = switched(host, by_hand)["rp-filter"]
    assert strict.command == "sysctl -w net.ipv4.conf.default.rp_filter=2"
    switch(host, "net/ipv4/conf/default/rp_filter", 2)
    assert set(switched(host, by_hand)) == {"switches"}
