"""A path whose middle link becomes narrower while packets pass, with ICMP and without: real daemons, two real routers.

TCP and UDP inside, over IPv4 and IPv6 outside, with every kind of DF (RFC 4301 §8, RFC 8899).
"""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import pytest
from support.lab import events, start, status, wait, within
from support.path import NARROW, WIDE, PathLab

from esp.mtu import largest_inner
from esp.sa import Encapsulation, Mode
from esp.suite import SUITES
from kinkvpn.demo.traffic import ping, transfer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kinkvpn.demo.lab import Host

pytestmark = [pytest.mark.root, pytest.mark.kdc]

PORT: Final = 7000
TRANSFERRED: Final = 20_000_000
# Black hole to recovery takes ten seconds by the protocol's own clock; the rest is for a busy machine.
RECOVERY_SECONDS: Final = 90.0
SIZES: Final = (1400, 1472, 2000, 4000, 9000)
# ip(7), ipv6(7); Python's socket module does not name them.
IP_MTU, IP_MTU_DISCOVER, IPV6_MTU, IPV6_MTU_DISCOVER = 14, 10, 24, 23
DONT, DO = 0, 2


@pytest.fixture(scope="module")
def laboratory() -> type[PathLab]:
    return PathLab


@pytest.fixture
def lab(network: PathLab) -> Iterator[PathLab]:
    network.widen()
    network.forget()
    for host in network.hosts:
        host.log.write_text("")
    try:
        yield network
    finally:
        for host in network.hosts:
            host.kill()
            print(f"--- host {host.name}\n{host.log.read_text()}")


def inner_mtu(outer: int, path: int) -> int:
    return largest_inner(SUITES["aes256-gcm16"], Mode.TUNNEL, Encapsulation.UDP, outer, path)


def datagram_socket(host: Host, version: int, discovery: int) -> socket.socket:
    """At the inner address of ``host``."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    udp = within(host.namespace, lambda: socket.socket(family, socket.SOCK_DGRAM))
    if version == 4:
        udp.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, discovery)
    else:
        udp.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, discovery)
    udp.bind((host.site.inner_address(version), PORT))
    udp.settimeout(0.5)
    return udp


def arrives(udp: socket.socket, other: socket.socket, datagram: bytes) -> bool:
    """Whether ``datagram`` gets from one to the other, soon; others that are late are read past."""
    udp.sendto(datagram, other.getsockname()[:2])
    try:
        while other.recv(65_535) != datagram:
            pass
    except TimeoutError:
        return False
    return True


def exchange(lab: PathLab, version: int) -> None:
    """Datagrams of every size, both ways, that hosts and tunnel may fragment: each arrives, at the latest once the path
    is known.
    """
    with ExitStack() as sockets:
        a, b = (sockets.enter_context(datagram_socket(host, version, DONT)) for host in lab.hosts)
        for octets in SIZES:
            for udp, other, host in ((a, b, lab.hosts[0]), (b, a, lab.hosts[1])):
                datagram = octets.to_bytes(2) + bytes(octets - 2)
                holds = lambda udp=udp, other=other, datagram=datagram: arrives(udp, other, datagram)  # noqa: E731
                wait(lab, host, holds, f"carries no {octets} octets", RECOVERY_SECONDS)


def told_inside(lab: PathLab, version: int, expected: int) -> None:
    """A host that sets DF learns how large its packets may be, by the ICMP error of the tunnel."""
    a, b = lab.hosts
    lab.forget()  # what it was told before
    with datagram_socket(a, version, DO) as udp:
        udp.connect((b.site.inner_address(version), PORT))
        level, option = (socket.IPPROTO_IP, IP_MTU) if version == 4 else (socket.IPPROTO_IPV6, IPV6_MTU)

        def told() -> bool:
            try:
                udp.send(bytes(expected - (28 if version == 4 else 48) + 1))
            except OSError as error:
                if error.errno not in (errno.EMSGSIZE, errno.ECONNREFUSED):
                    raise
            return udp.getsockopt(level, option) == expected

        wait(lab, a, told, f"does not tell its inside of {expected} octets", RECOVERY_SECONDS)


def path_mtu(host: Host) -> int | None:
    (peer,) = status(host)["peers"]
    found: int | None = peer["path_mtu"]
    return found


def finds(lab: PathLab, host: Host, octets: int) -> None:
    """While packets leave it, large ones, ``host`` finds that the path carries so many octets."""
    with datagram_socket(host, 4, DONT) as udp:
        (other,) = set(lab.hosts) - {host}

        def found() -> bool:
            udp.sendto(bytes(1200), (other.site.inner_address(4), PORT))
            return path_mtu(host) == octets

        wait(lab, host, found, f"has not found a path of {octets} octets", RECOVERY_SECONDS)


def counters(host: Host) -> dict[str, Any]:
    found: dict[str, Any] = status(host)["counters"]
    return found


def narrow_under_way(lab: PathLab) -> None:
    """TCP both ways, one after the other, through a path that becomes narrow in the midst of the first transfer."""
    a, b = lab.hosts
    narrowed: list[int] = []

    def progress(octets: int) -> None:
        if octets > 1_000_000 and not narrowed:
            narrowed.append(octets)
            lab.widen(NARROW)

    assert transfer(a, b, TRANSFERRED, progress).equal
    assert narrowed, "the path has become narrow with the transfer under way"
    assert transfer(b, a, 1_000_000, lambda _: None).equal


CASES: Final = [
    pytest.param(4, "auto", False, id="IPv4-silent"),
    pytest.param(6, "auto", False, id="IPv6-silent"),
    pytest.param(4, "set", False, id="IPv4-DF-silent"),
    pytest.param(4, "clear", False, id="IPv4-no-DF-silent"),
    pytest.param(4, "auto", True, id="IPv4-ICMP"),
    pytest.param(6, "auto", True, id="IPv6-ICMP"),
]


@pytest.mark.parametrize(("outer", "df", "aloud"), CASES)
def test_traffic_outlives_a_path_that_becomes_narrow(lab: PathLab, outer: int, df: str, aloud: bool) -> None:
    a, b = lab.hosts
    lab.say(aloud)
    lab.tell(outer, df=df)
    start(lab)
    assert {status(host)["tun"]["mtu"] for host in lab.hosts} == {inner_mtu(outer, WIDE)}, "of the interface"
    for version in (4, 6):
        ping(a, b, version)
    narrow_under_way(lab)
    for version in (4, 6) if outer == 4 or aloud else (4,):  # docs/decisions.md: outer IPv6 that nobody speaks of
        exchange(lab, version)
    for host in lab.hosts:
        finds(lab, host, NARROW)
    told_inside(lab, 4, inner_mtu(outer, NARROW))
    told_inside(lab, 6, 1280)
    assert counters(a)["kink"].get("path_black_holes", 0) == (0 if aloud else 1)
    assert bool(events(a, "path_narrowed")) is aloud


def test_a_path_is_not_tried_where_that_is_turned_off_or_nothing_large_leaves(lab: PathLab) -> None:
    a, b = lab.hosts
    lab.say(False)
    lab.tell(4)
    start(lab)
    ping(a, b, 4)
    assert counters(a)["kink"].get("paths_probed", 0) == 0
    assert transfer(a, b, 100_000, lambda _: None).equal
    wait(lab, a, lambda: path_mtu(a) == WIDE, "has not found the path", RECOVERY_SECONDS)
    for host in lab.hosts:
        host.stop()
    lab.tell(4, path_probe=False)
    start(lab)
    assert transfer(a, b, 1_000_000, lambda _: None).equal
    assert path_mtu(a) is None
    assert counters(a)["kink"].get("paths_probed", 0) == 0
