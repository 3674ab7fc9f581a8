"""Ping and transfer between two hosts with no tunnel between them: it works, and the verdict calls it a leak."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kinkvpn.demo.capture import Capture, Kind
from kinkvpn.demo.lab import WIRE, Lab
from kinkvpn.demo.namespace import LabFailed
from kinkvpn.demo.traffic import ping, transfer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.kdc]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The inner addresses lie on the wire itself."""
    with Lab(tmp_path_factory.mktemp("lab")) as lab:
        lab.start_realm()
        lab.start_hosts()
        for host, peer in (lab.hosts, lab.hosts[::-1]):
            host.namespace.ip(*(f"address add {address} dev {WIRE} nodad" for address in host.site.inner))
            for subnet in peer.site.subnets:
                host.namespace.ip(f"route add {subnet} dev {WIRE}")
        yield lab


@pytest.mark.parametrize("version", [4, 6])
def test_every_ping_has_its_time(lab: Lab, version: int) -> None:
    times = ping(*lab.hosts, version, count=3)
    assert len(times) == 3
    assert all(0 < ms < 1000 for ms in times)


def test_a_transfer_arrives_whole(lab: Lab) -> None:
    seen: list[int] = []
    received = transfer(*lab.hosts, 5_000_000, seen.append)
    assert received.equal
    assert received.octets == seen[-1] == 5_000_000


def test_none_of_it_goes_unnoticed(lab: Lab, tmp_path: Path) -> None:
    a, b = lab.hosts
    with Capture(a.namespace, WIRE, tmp_path / "wire.pcap") as capture:
        ping(a, b, 4, count=2)
        ping(b, a, 6, count=2)
        transfer(a, b, 100_000, lambda octets: None)
        assert capture.stop() == 0
        traffic = capture.classify({})
    assert set(traffic.packets) <= {Kind.LEAK, Kind.ARP, Kind.ND}
    assert traffic.leaked >= 8
    assert any("plaintext" in leak for leak in traffic.leaks)


def test_what_does_not_arrive_is_reported_with_its_host(lab: Lab) -> None:
    a, b = lab.hosts
    b.namespace.ip(f"address del {b.site.inner[0]} dev {WIRE}")
    try:
        with pytest.raises(LabFailed, match="0 of 1 IPv4 pings to host b answered") as raised:
            ping(a, b, 4, count=1, seconds=1)
        assert (raised.value.host, bool(raised.value.advice)) == ("a", True)
        with pytest.raises(LabFailed, match="Cannot assign requested address") as raised:
            transfer(a, b, 1000, lambda octets: None)
        assert raised.value.host == "b"
    finally:
        b.namespace.ip(f"address add {b.site.inner[0]} dev {WIRE}")
