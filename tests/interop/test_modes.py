"""Tunnel and transport mode, in UDP and raw, over IPv4 and IPv6, both families inside: real daemons, all combinations.

Each of the four laboratories has both modes at once, in different encapsulations: two links in one daemon.
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from support.lab import amend, command, configure, one_by_one, policy, start, status, wait

from kinkvpn.demo.capture import CANARY, ETHERNET, IPV4, IPV6, Capture, parse_ipv4, parse_ipv6, read_pcap
from kinkvpn.demo.lab import WIRE, DaemonOptions, Host, Lab, policies
from kinkvpn.demo.traffic import ping, transfer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.kdc]

WIRE6 = {"a": "2001:db8::1", "b": "2001:db8::2"}
PINGS = 5
UDP, ESP, AH, ICMPV6 = 17, 50, 51, 58  # the last of neighbour discovery: what else is in ICMPv6 has the pattern of ping


@pytest.fixture(autouse=True, scope="module")
def both_families_outside(network: Lab) -> Iterator[None]:
    for host in network.hosts:
        host.namespace.ip(f"address add {WIRE6[host.name]}/64 dev {WIRE} nodad")
    yield
    for host in network.hosts:
        host.namespace.ip(f"address del {WIRE6[host.name]}/64 dev {WIRE}")


def outer(host: Host, version: int) -> str:
    return host.site.wire if version == 4 else WIRE6[host.name]


def tell(host: Host, peer: Host, version: int, tunnel: str, transport: str) -> None:
    """The two tunnel policies of the laboratory, and one of transport mode between the outer addresses."""
    amend(host, "kink", listen=[outer(host, version)])
    # Messages are counted here, and a transfer would bring about more of them.
    amend(host, "[peer]", address=outer(peer, version), encapsulation=tunnel, path_probe=False)
    length = 32 if version == 4 else 128
    here, there = (f"{outer(one, version)}/{length}" for one in (host, peer))
    lines = {"name": "hosts", "mode": "transport", "encapsulation": transport, "local": here, "remote": there}
    text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in lines.items())
    host.configuration.write_text(host.configuration.read_text() + "\n[[peer.policy]]\n" + text)
    one_by_one(host)


def ping_outside(source: Host, target: Host, version: int) -> None:
    """To the peer's outer address, from wherever the routes say."""
    options = ["-n", "-c", str(PINGS), "-i", "0.05", "-W", "10", "-s", "1000", "-p", CANARY.hex()]
    said = source.namespace.run(["ping", *options, outer(target, version)], timeout=30)
    assert f" {PINGS} received" in said


def seen(path: Path, *, plain: bool = False) -> Counter[int]:
    """Protocols of the IP packets on the wire, none of which has any of the plaintext in it, unless it is ``plain``."""
    found: Counter[int] = Counter()
    with path.open("rb") as file:
        for _, frame in read_pcap(file):
            assert plain or CANARY not in frame
            kind = ETHERNET.unpack_from(frame)[2]
            if kind in (IPV4, IPV6):
                parse = parse_ipv4 if kind == IPV4 else parse_ipv6
                found[parse(frame[ETHERNET.size :]).protocol] += 1
    return found


@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize(("tunnel", "transport"), [("udp", "raw"), ("raw", "udp")])
def test_every_mode_in_every_encapsulation(
    lab: Lab, directory: Path, version: int, tunnel: str, transport: str
) -> None:
    a, b = configure(lab)
    tell(a, b, version, tunnel, transport)
    tell(b, a, version, tunnel, transport)
    start(lab)
    with Capture(a.namespace, WIRE, directory / "wire.pcap") as capture:
        for source, target in ((a, b), (b, a)):
            ping(source, target, 4)
            ping(source, target, 6)
            ping_outside(source, target, version)
        assert transfer(a, b, 300_000, lambda _: None).octets == 300_000
        assert capture.stop() == 0
        assert capture.classify({}).kink == {"CREATE": 3, "REPLY": 3}
    protocols = seen(directory / "wire.pcap")
    assert protocols.keys() <= {UDP, ESP, ICMPV6}
    in_transport = protocols[ESP if transport == "raw" else UDP]
    kink = 6 if transport == "udp" else 0
    assert in_transport - kink == 4 * PINGS, "requests and answers both ways, one datagram each"
    assert protocols[ESP if tunnel == "raw" else UDP] > 200
    for host, name in ((a, "hosts"), (b, "hosts")):
        hosts = policy(host, name)
        assert hosts["packets_in"] == hosts["packets_out"] == 2 * PINGS
    assert {one["state"] for host in (a, b) for one in policies(status(host))} == {"established"}
    assert status(a)["counters"]["drops"] == status(b)["counters"]["drops"] == {}


@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
def test_ah_in_both_modes(lab: Lab, directory: Path, version: int) -> None:
    """Negotiated by KINK, beside a policy of ESP: what is authenticated is on the wire as it is, under AH."""
    a, b = configure(lab)
    for host, peer in ((a, b), (b, a)):
        tell(host, peer, version, "raw", "raw")
        amend(host, "[peer]", ipsec="ah", suites=["null-sha256", "null-sha1"])
    start(lab)
    with Capture(a.namespace, WIRE, directory / "wire.pcap") as capture:
        for source, target in ((a, b), (b, a)):
            ping(source, target, 4)
            ping(source, target, 6)
            ping_outside(source, target, version)
        assert transfer(a, b, 300_000, lambda _: None).octets == 300_000
        assert capture.stop() == 0
    protocols = seen(directory / "wire.pcap", plain=True)
    assert protocols.keys() <= {UDP, AH, ICMPV6}
    assert protocols[AH] > 200
    for host in (a, b):
        assert {(one["state"], one["suite"]) for one in policies(status(host))} == {("established", "null-sha256")}
        assert status(host)["counters"]["drops"] == {}
    name = "b/1"
    before = policy(a, name)["spi_out"]
    assert command(a, "rekey", "b").returncode == 0
    assert policy(a, name)["spi_out"] != before
    ping(a, b, 4)
    wait(lab, b, lambda: all(one["pairs"] == 1 for one in policies(status(b))), "was not told of the end of old pairs")


@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
def test_hosts_talk_tcp_and_udp_from_their_outer_addresses(lab: Lab, version: int) -> None:
    """A connection that asks for nothing comes from the address that the policy names, and its checksums hold."""
    a, b = configure(lab)
    tell(a, b, version, "udp", "udp")
    tell(b, a, version, "udp", "udp")
    start(lab)
    address = outer(b, version)
    for kind in ("STREAM", "DGRAM"):
        server = b.namespace.spawn(["python3", "-c", _SERVER, kind, address], stdout=subprocess.PIPE)
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        said = a.namespace.run(["python3", "-c", _CLIENT, kind, address], timeout=30)
        assert said == f"hello from {outer(a, version)}\n"
        server.communicate(timeout=30)
        assert server.returncode == 0
    assert policy(a, "hosts")["packets_out"] >= 5


_COMMON = """
import socket, sys
kind, address = getattr(socket, "SOCK_" + sys.argv[1]), sys.argv[2]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
one = socket.socket(family, kind)
one.settimeout(20)
"""
_SERVER = (
    _COMMON
    + """
one.bind((address, 7007))
if kind == socket.SOCK_STREAM:
    one.listen()
print("ready", flush=True)
if kind == socket.SOCK_STREAM:
    talk, peer = one.accept()
    talk.settimeout(20)
    talk.sendall(talk.recv(100) + b" from " + peer[0].encode())
else:
    said, peer = one.recvfrom(100)
    one.sendto(said + b" from " + peer[0].encode(), peer)
"""
)
_CLIENT = (
    _COMMON
    + """
one.connect((address, 7007))
one.send(b"hello")
print(one.recv(100).decode())
"""
)


def test_a_peer_that_takes_another_mode_refuses(lab: Lab) -> None:
    a, b = configure(lab, DaemonOptions())
    tell(a, b, 4, "udp", "raw")
    tell(b, a, 4, "udp", "udp")
    start(lab)
    a.namespace.spawn(["ping", "-c1", "-W1", b.site.wire]).wait()
    wait(lab, a, lambda: policy(a, "hosts")["failures"] == 1, "has not failed")
    assert "NO-PROPOSAL-CHOSEN" in policy(a, "hosts")["last_error"]
    assert "in udp transport mode" in b.log.read_text()
