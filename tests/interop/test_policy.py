"""Policies between two daemon processes: what is bypassed is seen on the wire, what is discarded nowhere."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.utils import PcapReader
from support.lab import amend, network_state, start, status, wait, within

from kinkvpn.demo.capture import Capture
from kinkvpn.demo.lab import WIRE, Host, Lab
from kinkvpn.demo.traffic import ping

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.kdc]

BYPASSED, PROTECTED, DISCARDED, BOTH_WAYS = 8005, 8011, 9, 25
KINK_AND_ESP = {910, 4500}
SENT = 20


def append(host: Host, **values: object) -> None:
    """One more [[policy]]."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    host.configuration.write_text(host.configuration.read_text() + "\n".join(["", "[[policy]]", *lines]) + "\n")


def strict(host: Host) -> None:
    """What arrives elsewhere than its source is routed is dropped."""
    for name in ("all", WIRE):
        host.namespace.run(["sysctl", "-qw", f"net.ipv4.conf.{name}.rp_filter=1"])


def converse(source: Host, target: Host, address: str, port: int) -> bytes:
    """What an echo over TCP brings back, from one inner address to ``address``."""
    near = source.site.inner_address(4)
    with (
        within(target.namespace, lambda: socket.create_server((address, port))) as server,
        within(source.namespace, lambda: socket.create_connection((address, port), 20, (near, 0))) as client,
    ):
        client.sendall(b"over and back")
        there, _ = server.accept()
        with there:
            there.sendall(there.recv(100))
        return client.recv(100)


def throw(source: Host, address: str, port: int) -> None:
    """UDP datagrams to where nothing is to come from."""
    with within(source.namespace, lambda: socket.socket(type=socket.SOCK_DGRAM)) as thrower:
        for _ in range(SENT):
            thrower.sendto(b"into nothing", (address, port))


def in_the_clear(host: Host, path: Path, act: Callable[[], None]) -> set[tuple[str, int]]:
    """Transport protocol and the lower port of every packet on the wire that is neither KINK nor ESP in UDP."""
    with Capture(host.namespace, WIRE, path) as capture:
        act()
        assert capture.stop() == 0
    seen = set()
    with PcapReader(str(path)) as packets:
        for packet in packets:
            for layer in (TCP, UDP):
                if layer in packet:
                    seen.add((layer.__name__, min(packet[layer].sport, packet[layer].dport)))
    return {(name, port) for name, port in seen if port not in KINK_AND_ESP}


def test_one_port_goes_past_the_tunnel_and_another_nowhere(lab: Lab, directory: Path) -> None:
    a, b = lab.hosts
    for host, here, there in ((a, "local_port", "remote_port"), (b, "remote_port", "local_port")):
        strict(host)
        append(host, action="bypass", protocol="tcp", **{there: "8000-8010"})
        append(host, action="discard", protocol="udp", **{there: DISCARDED})
        append(host, action="discard", protocol="udp", **{here: BOTH_WAYS, there: BOTH_WAYS}, name="unused")
    # Without the daemons this is the way, and past the tunnel it is still.
    elsewhere = "203.0.113.9"
    a.namespace.ip(f"route add {b.site.subnets[0]} via {b.site.wire}")
    a.namespace.ip(f"route add {elsewhere} via {b.site.wire}")
    b.namespace.ip(f"route add {a.site.subnets[0]} via {a.site.wire}")
    try:
        before = network_state(a)
        start(lab)
        ping(a, b, 4)
        ping(b, a, 6)

        def talk() -> None:
            inner = b.site.inner_address(4)
            assert converse(a, b, inner, BYPASSED) == b"over and back"
            assert converse(a, b, inner, PROTECTED) == b"over and back"
            for address in (inner, elsewhere):
                throw(a, address, DISCARDED)
            ping(a, b, 4)

        assert in_the_clear(a, directory / "past.pcap", talk) == {("TCP", BYPASSED)}
        wait(lab, a, lambda: drops(a) == {"policy_discard": 2 * SENT}, "has not counted what it discarded")
        assert drops(b) == {}
        a.stop()
        assert network_state(a) == before
    finally:
        a.namespace.ip(f"route del {b.site.subnets[0]} via {b.site.wire}")
        a.namespace.ip(f"route del {elsewhere} via {b.site.wire}")
        b.namespace.ip(f"route del {a.site.subnets[0]} via {a.site.wire}")


def drops(host: Host) -> dict[str, int]:
    counted = status(host)["counters"]["drops"]
    assert isinstance(counted, dict)
    return counted


def test_everything_is_protected_but_the_way_to_the_kdc(lab: Lab, directory: Path) -> None:
    """The peer's outer address too: its ESP and KINK go past the tunnel, and strict filtering takes them."""
    a, b = lab.hosts
    far, everything = "203.0.113.1", ["0.0.0.0/0", "::/0"]
    for host, key in ((a, "remote"), (b, "local")):
        strict(host)
        amend(host, "[peer.policy]", **{key: everything})
    append(a, action="bypass", remote="198.51.100.0/24")
    b.namespace.ip(f"address add {far}/32 dev lo")
    try:
        before = network_state(a)
        start(lab)

        def talk() -> None:
            assert converse(a, b, far, PROTECTED) == b"over and back"
            assert converse(a, b, b.site.wire, PROTECTED) == b"over and back"
            ping(a, b, 4)
            ping(a, b, 6)

        assert in_the_clear(a, directory / "all.pcap", talk) == set()
        a.stop()
        assert network_state(a) == before
    finally:
        b.namespace.ip(f"address del {far}/32 dev lo")
