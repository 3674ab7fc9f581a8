"""A road warrior behind the kernel's NAT: two daemons, one namespace between them that translates, and forgets."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
from support.lab import amend, command, crosswise, events, pinging, policy, spis, start, status, wait
from support.nat import ELSEWHERE, OUTSIDE, NatLab

from kinkvpn.demo.lab import DaemonOptions, Host, kinkvpn
from kinkvpn.demo.traffic import ping, transfer
from kinkvpn.proto.extensions import UNDERSTOOD

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.root, pytest.mark.kdc]

TRANSFERRED = 300_000_000  # some seconds, with the compiled engine too
# A mapping without traffic lives shorter than the test waits, and longer than the keepalives take (RFC 3948 §4: 20 s).
MAPPING_SECONDS = 22
IDLE_SECONDS = 24


UNPRIVILEGED = ("setpriv", "--bounding-set", "-net_bind_service")


@pytest.fixture(scope="module")
def laboratory() -> type[NatLab]:
    return NatLab


@pytest.fixture
def lab(network: NatLab) -> Iterator[NatLab]:
    network.rebind(OUTSIDE, 20_000)
    for host in network.hosts:
        host.log.write_text("")
    try:
        yield network
    finally:
        for host in network.hosts:
            host.kill()
            print(f"--- host {host.name}\n{host.log.read_text()}")


def peer(host: Host) -> dict[str, Any]:
    (found,) = status(host)["peers"]
    assert isinstance(found, dict)
    return found


def is_at(lab: NatLab, address: str, first: int) -> None:
    """The gateway sends ESP to that address, and a port of those from ``first`` on."""
    _, b = lab.hosts
    wait(lab, b, lambda: peer(b)["address"] == address, f"has not followed to {address}")
    port = int(peer(b)["esp"].rpartition(":")[2])
    assert first <= port < first + 100
    assert peer(b)["moved"] is True


def both_know_of_the_nat(lab: NatLab) -> None:
    """Each from the other's word (docs/extensions.md)."""
    a, b = lab.hosts
    wait(lab, b, lambda: peer(b)["extensions"]["peer_behind_nat"] is True, "was not told of the NAT")
    here, there = peer(a)["extensions"], peer(b)["extensions"]
    assert (here["behind_nat"], here["peer_behind_nat"], there["behind_nat"]) == (True, False, False)
    assert here["seen_at"] == peer(b)["esp"]
    assert here["seen_marked"] is True
    assert there["seen_at"] in (f"{b.site.wire}:910", f"{b.site.wire}:4500")
    assert here["capabilities"] == there["capabilities"] == [flag.name.lower() for flag in UNDERSTOOD if flag.name]


def renewed(lab: NatLab, host: Host) -> None:
    """``host`` makes new keys, and both end up with the new pair alone, which carries both ways."""
    a, b = lab.hosts
    before = spis(host)["4"]
    done = command(host, "rekey")
    assert done.returncode == 0, done.stderr
    wait(lab, b, lambda: crosswise(a, b, "4") and spis(host)["4"] != before, f"still has {before} or two of them")
    assert policy(host, peer(host)["policies"][0]["name"])["role"] == "initiator"
    ping(a, b, 4)
    ping(b, a, 4)


def test_a_transfer_outlives_the_rebind_and_both_sides_rekey_after_it(lab: NatLab) -> None:
    """The NAT gets another address and other ports in the middle of a TCP transfer, and again while pings go down."""
    a, b = lab.hosts
    lab.tell()
    start(lab)
    ping(a, b, 4)
    is_at(lab, OUTSIDE, 20_000)
    both_know_of_the_nat(lab)
    pair = spis(a)["4"]

    def rebind_once(octets: int) -> None:
        if octets >= TRANSFERRED // 3 and lab.outside == OUTSIDE:
            lab.rebind(ELSEWHERE, 30_000)

    assert transfer(a, b, TRANSFERRED, rebind_once).octets == TRANSFERRED
    assert lab.outside == ELSEWHERE
    is_at(lab, ELSEWHERE, 30_000)
    assert spis(a)["4"] == pair, "the transfer went on in the same SAs"
    renewed(lab, a)
    renewed(lab, b)
    with pinging(a, b) as lost:
        wait(lab, b, lambda: policy(b, "a/1")["packets_in"] >= 30, "gets no pings")
        lab.rebind(OUTSIDE, 21_000)
        is_at(lab, OUTSIDE, 21_000)
        # In all: what the pairs have taken that were replaced a moment ago goes with them.
        answered = status(a)["counters"]["packets_in"]
        wait(lab, a, lambda: status(a)["counters"]["packets_in"] >= answered + 20, "gets no answers")
    assert lost[0] <= 3, "those that were on their way"
    renewed(lab, b)
    assert len(events(b, "endpoint_moved")) >= 3


def test_the_gateway_reaches_a_host_that_was_silent_for_longer_than_its_mapping(lab: NatLab) -> None:
    a, b = lab.hosts
    lab.tell(DaemonOptions(start="boot"))
    lab.forget_after(MAPPING_SECONDS)
    start(lab)
    wait(lab, b, lambda: crosswise(a, b), "has no tunnel")
    both_know_of_the_nat(lab)
    ping(b, a, 4)  # before host a has sent any ESP
    carried = policy(b, "a/1")["packets_in"]
    time.sleep(IDLE_SECONDS)  # the silence itself is what is tested
    ping(b, a, 4)
    assert policy(b, "a/1")["packets_in"] == carried + 5, "nothing was sent meanwhile but keepalives"
    link = status(a)["counters"]["link"]
    assert link["keepalives_sent"] >= 1
    assert status(b)["counters"]["link"]["keepalives_received"] >= 1
    lab.forget_after(120)


def test_the_narrower_device_rules_the_routes_at_the_other_end(lab: NatLab) -> None:
    a, b = lab.hosts
    lab.tell()
    amend(b, "tun", mtu=1300)
    start(lab)
    ping(a, b, 4)
    assert peer(a)["extensions"]["inner_mtu"] == peer(b)["extensions"]["inner_mtu"] == 1300
    wait(
        lab, a, lambda: "mtu 1300" in a.namespace.run(["ip", "route", "show", "10.2.0.0/24"]), "keeps its route as wide"
    )
    assert "MTU 1300, of its device" in command(a, "status").stdout
    assert transfer(a, b, TRANSFERRED // 100, lambda _: None).octets == TRANSFERRED // 100
    too_large = a.namespace.spawn(["ping", "-c1", "-W1", "-Mdo", "-s1273", b.site.inner_address(4)], stderr=-1)
    assert "mtu=1300" in too_large.communicate()[1]


def test_who_is_told_nothing_beyond_rfc_4430_gets_through_all_the_same(lab: NatLab) -> None:
    """Either end may have it off: the first ESP packet shows the port."""
    a, b = lab.hosts
    lab.tell(extensions=False)
    start(lab)
    ping(a, b, 4)
    ping(b, a, 4)
    is_at(lab, OUTSIDE, 20_000)
    assert peer(a)["extensions"]["capabilities"] is peer(b)["extensions"]["capabilities"] is None
    kink = status(b)["counters"]["kink"]
    assert "notifies_received" not in status(b)["counters"].get("labels", {})
    assert not kink.get("notify_ignored")


def test_where_910_is_dropped_4500_carries_kink(lab: NatLab) -> None:
    a, b = lab.hosts
    lab.tell(DaemonOptions(start="boot"))
    lab.translate(20_000, dropped=910)
    start(lab)
    wait(lab, b, lambda: crosswise(a, b), "has no tunnel")
    ping(a, b, 4)
    assert status(a)["counters"]["kink"]["commands_retransmitted"] >= 2
    assert peer(a)["kink"] == f"{b.site.wire}:4500"
    assert peer(a)["kink_marked"] is True
    done = command(b, "status", "--probe", "--json")
    assert done.returncode == 0, done.stdout


def test_without_the_right_to_port_910_there_is_4500(lab: NatLab) -> None:
    """Nobody but the configuration says so; and the error that comes without it names the way out."""
    a, b = lab.hosts
    lab.tell()
    bounded = [*UNPRIVILEGED, *kinkvpn(), "up", "-c", str(a.configuration)]
    refused = a.namespace.spawn(bounded, stderr=-1)
    _, said = refused.communicate(timeout=20)
    assert refused.returncode == 2
    assert 'CAP_NET_BIND_SERVICE, or without this port, with kink.over = "4500"' in said.replace("\n", " ")
    text = a.configuration.read_text()
    a.configuration.write_text(text.replace("[kink]\n", '[kink]\nover = "4500"\n'))
    a.start(UNPRIVILEGED)
    start(lab, b)
    wait(lab, a, lambda: bool(a.status()), "does not answer")
    assert status(a)["listeners"]["kink"] == []
    ping(a, b, 4)
    renewed(lab, b)
    is_at(lab, OUTSIDE, 20_000)


def test_two_hosts_in_transport_mode_with_a_nat_between_them(lab: NatLab) -> None:
    """Each knows the other by the address that the other has of itself: what the NAT made of it is seen outside alone.

    TCP from there to here and back, so that both ends look at checksums that were made for the inner address (RFC 3948
    §3.1.2); the gateway reaches the host behind the NAT at an address that leads nowhere by itself.
    """
    a, b = lab.hosts
    lab.tell()
    for host, other in ((a, b), (b, a)):
        lines = {
            "name": "hosts",
            "mode": "transport",
            "local": f"{host.site.wire}/32",
            "remote": f"{other.site.wire}/32",
        }
        text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in lines.items())
        host.configuration.write_text(host.configuration.read_text() + "\n[[peer.policy]]\n" + text)
    start(lab)
    for source, target in ((a, b), (b, a)):
        source.namespace.run(["ping", "-n", "-c3", "-i0.2", "-W10", target.site.wire], timeout=60)
        server = target.namespace.spawn(["python3", "-c", SERVER, target.site.wire], stdout=subprocess.PIPE)
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        said = source.namespace.run(["python3", "-c", CLIENT, target.site.wire], timeout=60)
        assert said == f"{source.site.wire}\n"
        server.communicate(timeout=30)
    sent = policy(a, "hosts")["packets_out"]
    assert sent > 10
    wait(lab, b, lambda: policy(b, "hosts")["packets_in"] >= sent, "has not got all of them")
    assert status(b)["counters"]["drops"] == {}


SERVER = """
import socket, sys
server = socket.create_server((sys.argv[1], 7007))
print("ready", flush=True)
talk, peer = server.accept()
talk.sendall(peer[0].encode())
talk.close()
"""
CLIENT = """
import socket, sys
talk = socket.create_connection((sys.argv[1], 7007), timeout=30)
print(talk.recv(100).decode())
"""
