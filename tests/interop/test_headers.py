"""Headers inside and outside between two daemon processes: DSCP, ECN, DF and TTL (RFC 4301 §5.1.2, RFC 6040)."""

from __future__ import annotations

import socket
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

import pytest
from scapy.utils import rdpcap
from support.lab import amend, start, status, wait, within
from support.scapy_esp import IP

from kinkvpn.demo.capture import Capture
from kinkvpn.demo.lab import WIRE, Host, Lab
from kinkvpn.demo.namespace import Namespace, join
from kinkvpn.demo.traffic import ping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.kdc]

PORT: Final = 7000
LAN: Final = "lan"
NOT_ECT, ECT0, CE = 0, 2, 3

# What a congested router does, on the way into the host: before any socket sees the packet (RFC 3168 §5).
MARKING: Final = """\
table ip path {
    chain prerouting {
        type filter hook prerouting priority mangle
        iifname "wire" udp dport 4500 ip ecn set ce
    }
}
"""


@contextmanager
def congested(host: Host) -> Iterator[None]:
    """Every ESP packet that comes to ``host`` has been marked on its path."""
    host.namespace.run(["nft", "-f", "-"], stdin=MARKING)
    try:
        yield
    finally:
        host.namespace.run(["nft", "delete", "table", "ip", "path"])


def captured(lab: Lab, directory: Path, act: Callable[[], object]) -> list[IP]:
    """ESP packets in UDP on the wire while ``act`` runs, as scapy reads them from tcpdump's file."""
    a, _ = lab.hosts
    with Capture(a.namespace, WIRE, directory / "headers.pcap") as capture:
        act()
        assert capture.stop() == 0
    packets = [packet[IP] for packet in rdpcap(str(directory / "headers.pcap")) if IP in packet]
    return [each for each in packets if each.proto == socket.IPPROTO_UDP and each.dport == each.sport == 4500]


def datagram_socket(host: Host, version: int, traffic_class: int = 0) -> socket.socket:
    """Inside ``host``, at its inner address; what it receives comes with its traffic class."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    udp = within(host.namespace, lambda: socket.socket(family, socket.SOCK_DGRAM))
    if version == 4:
        udp.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, traffic_class)
        udp.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
    else:
        udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, traffic_class)
        udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
    udp.bind((host.site.inner_address(version), PORT))
    udp.settimeout(20)
    return udp


@pytest.mark.parametrize("version", [4, 6])
def test_a_mark_of_the_path_arrives_inside_and_where_it_cannot_the_packet_is_dropped(lab: Lab, version: int) -> None:
    """RFC 6040 §4.2: ECT(0) becomes CE; Not-ECT is dropped and counted."""
    a, b = lab.hosts
    start(lab)
    with ExitStack() as sockets:
        receiver = sockets.enter_context(datagram_socket(b, version))
        sender = sockets.enter_context(datagram_socket(a, version, 46 << 2 | ECT0))
        target = (b.site.inner_address(version), PORT)

        def arrives(sent: bytes) -> int:
            sender.sendto(sent, target)
            received, ancillary, *_ = receiver.recvmsg(100, 100)
            assert received == sent
            ((_, _, traffic_class),) = ancillary
            return sum(traffic_class)  # one octet over IPv4, an int over IPv6

        assert arrives(b"clear") == 46 << 2 | ECT0
        with congested(b):
            assert arrives(b"marked") == 46 << 2 | CE
            level, name = (
                (socket.IPPROTO_IP, socket.IP_TOS) if version == 4 else (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)
            )
            sender.setsockopt(level, name, NOT_ECT)
            sender.sendto(b"never", target)
            wait(lab, b, lambda: drops(b).get("ce_on_not_ect") == 1, "has not dropped it")
            sender.setsockopt(level, name, ECT0)
            assert arrives(b"after") == CE
    assert drops(b) == {"ce_on_not_ect": 1}
    assert status(b)["counters"]["unused_ecn"] == {"not_ect_in_ce": 1}


def drops(host: Host) -> dict[str, int]:
    counted: dict[str, int] = status(host)["counters"]["drops"]
    return counted


def send(lab: Lab, *options: str) -> None:
    """One ping, with options of ping(8)."""
    a, b = lab.hosts
    a.namespace.run(["ping", "-n", "-c1", "-W20", *options, b.site.inner_address(4)], timeout=30)


@pytest.mark.parametrize(("dscp", "expected"), [("copy", 46), (10, 10)])
def test_dscp_is_on_the_wire_as_configured(lab: Lab, directory: Path, dscp: str | int, expected: int) -> None:
    a, b = lab.hosts
    amend(a, "[peer]", dscp=dscp)
    start(lab)
    ping(a, b, 4)
    packets = captured(lab, directory, lambda: send(lab, "-Q", str(46 << 2)))
    out, back = packets
    assert (out.src, out.tos >> 2) == (a.site.wire, expected)
    assert (back.src, back.tos >> 2) == (b.site.wire, 46), "ping answers in the class that it was asked in"


@pytest.mark.parametrize(
    ("df", "expected"), [("auto", [True, True]), ("copy", [True, False]), ("set", [True, True]), ("clear", [False] * 2)]
)
def test_df_is_on_the_wire_as_configured(lab: Lab, directory: Path, df: str, expected: list[bool]) -> None:
    a, b = lab.hosts
    amend(a, "[peer]", df=df)
    amend(a, "esp", hop_limit=77)
    start(lab)
    ping(a, b, 4)
    packets = captured(lab, directory, lambda: [send(lab, "-M", discovery) for discovery in ("do", "dont")])
    out = [packet for packet in packets if packet.src == a.site.wire]
    assert [bool(packet.flags.DF) for packet in out] == expected
    assert {packet.ttl for packet in out} == {77}
    assert {packet.ttl for packet in packets if packet.src == b.site.wire} == {64}, "the kernel's"


@contextmanager
def behind(host: Host) -> Iterator[Namespace]:
    """A machine on the LAN of ``host``, which forwards for it: the addresses that end in 200."""
    with Namespace(f"behind {host.name}") as machine:
        join(machine, LAN, host.namespace, LAN)
        prefix4, prefix6 = (host.site.inner_address(version) for version in (4, 6))
        four, six = prefix4.removesuffix(".1") + ".200", prefix6.removesuffix("1") + "200"
        here = ("address add fe80::1/64 dev lan nodad", f"route add {four}/32 dev lan", f"route add {six}/128 dev lan")
        host.namespace.ip(*here)
        machine.ip(f"address add {four}/32 dev lan", f"address add {six}/128 dev lan nodad")
        machine.ip(f"route add default via {prefix4} dev lan onlink", "route add default via fe80::1 dev lan")
        for family in ("ipv4", "ipv6"):
            host.namespace.run(["sh", "-c", f"echo 1 >/proc/sys/net/{family}/conf/all/forwarding"])
        yield machine


@pytest.mark.parametrize("version", [4, 6])
def test_a_tunnel_is_two_hops_each_of_them_the_kernel_s(lab: Lab, version: int) -> None:
    """RFC 4301 §5.1.2.1, note 2: whoever forwards lowers the TTL, once each, and says so where it ends."""
    a, b = lab.hosts
    start(lab)
    with behind(a) as near, behind(b) as far:
        target = "10.2.0.200" if version == 4 else "fd00:2::200"

        def told(hops: int) -> str:
            command = ["ping", f"-{version}", "-n", "-c1", "-W20", "-t", str(hops), target]
            # ping ends with 1 where an error comes back.
            return near.run(["sh", "-c", " ".join(command) + " || true"], timeout=30)

        first = told(1)
        assert "exceeded" in first
        assert status(a)["counters"]["packets_out"] == 0, "it has never come into the tunnel"
        second, third = told(2), told(3)
        assert f"From {b.site.inner_address(version)} " in second, "the far gateway, through the tunnel"
        assert "exceeded" in second
        assert f"from {target}" in third
        assert "ttl=62" in third, "the answer came with 64, and two have forwarded it"
        assert far.name
