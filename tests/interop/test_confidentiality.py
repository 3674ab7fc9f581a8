"""What an observer of the wire between two daemons sees, with padding and dummies (RFC 4303 §2.6, §2.7) and IP-TFS."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import pytest
from support.lab import amend, configure, one_by_one, policy, start, status, wait

from esp.wire import ESP_HEADER, Kind, classify
from kinkvpn.demo.capture import Capture, read_pcap
from kinkvpn.demo.lab import WIRE, DaemonOptions, Host, Lab
from kinkvpn.demo.traffic import ping

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.kdc]

# Ethernet, IPv4 without options and UDP; the laboratory's wire has nothing else in front of ESP.
SOURCE, PROTOCOL, HEADERS = slice(26, 30), 23, 14 + 20 + 8
UDP = 17
RATE = 100  # payloads a second: a daemon that stands still for a third of a second makes up for it


class Seen(NamedTuple):
    """One ESP datagram as an observer has it."""

    source: bytes
    octets: int


class Numbered(NamedTuple):
    """One ESP datagram by its SPI and its sequence number, which ESP shows in the clear."""

    source: bytes
    spi: int
    sequence: int


def esp_frames(path: Path) -> list[bytes]:
    """The frames with ESP in a capture."""
    with path.open("rb") as file:
        frames = [frame for _, frame in read_pcap(file)]
    return [frame for frame in frames if frame[PROTOCOL] == UDP and classify(frame[HEADERS:]) is Kind.ESP]


def observed(path: Path) -> list[Seen]:
    """The ESP datagrams in a capture."""
    return [Seen(frame[SOURCE], len(frame) - HEADERS) for frame in esp_frames(path)]


def numbered(path: Path) -> list[Numbered]:
    """Their numbers, in the order of the capture."""
    return [Numbered(frame[SOURCE], *ESP_HEADER.unpack_from(frame, HEADERS)) for frame in esp_frames(path)]


def drops(host: Host) -> dict[str, int]:
    return dict(status(host)["counters"]["drops"])


def test_padded_packets_are_all_alike_and_dummies_fill_the_silence(lab: Lab, directory: Path) -> None:
    a, b = configure(lab, DaemonOptions())
    for host in (a, b):
        amend(host, "[peer]", tfc_octets=1000, tfc_dummy_after=0.05)
    start(lab)
    ping(a, b, 4)
    with Capture(a.namespace, WIRE, directory / "tfc.pcap", snaplen=96) as capture:
        before = drops(b).get("dummy", 0)
        wait(lab, b, lambda: drops(b).get("dummy", 0) >= before + 20, "has not had twenty dummies")
        ping(a, b, 4, count=20)
        assert capture.stop() == 0
    lengths = {frame.octets for frame in observed(directory / "tfc.pcap")}
    assert len(lengths) == 1, lengths
    assert set(drops(b)) <= {"dummy"}


def test_at_a_constant_rate_work_and_idleness_look_the_same(lab: Lab, directory: Path) -> None:
    a, b = configure(lab, DaemonOptions())
    amend(a, "[peer]", iptfs_rate=RATE, iptfs_octets=600)
    amend(b, "[peer]", iptfs_rate=RATE, iptfs_octets=900)
    for host in (a, b):
        one_by_one(host)
    start(lab)
    ping(a, b, 4)
    # The traffic never ends, so the captures end in the middle of it.
    with Capture(a.namespace, WIRE, directory / "idle.pcap", snaplen=96) as capture:
        enough = policy(a, "b/1")["packets_out"] + 4 * RATE
        wait(lab, a, lambda: policy(a, "b/1")["packets_out"] >= enough, "sends nothing when idle", 60)
        capture.stop()
    with Capture(a.namespace, WIRE, directory / "busy.pcap", snaplen=96) as capture:
        ping(a, b, 4, count=80)
        capture.stop()
    idle, busy = observed(directory / "idle.pcap"), observed(directory / "busy.pcap")
    assert set(idle) == set(busy)
    assert len(set(busy)) == 2  # one size for each direction
    seen = [numbered(directory / name) for name in ("idle.pcap", "busy.pcap")]
    assert len({each.spi for view in seen for each in view}) == 2
    for source, view in product({each.source for each in seen[0]}, seen):
        numbers = [each.sequence for each in view if each.source == source]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))  # all that leaves is of the rate
    assert drops(a) == drops(b) == {}


def test_who_is_for_iptfs_gets_no_pair_with_who_is_not(lab: Lab) -> None:
    a, b = configure(lab, DaemonOptions(start="boot"))
    amend(a, "[peer]", iptfs_rate=RATE)
    amend(b, "[peer]", start="demand")
    start(lab, b)
    start(lab, a)
    wait(lab, a, lambda: policy(a, "b/1")["failures"] > 0, "was not refused")
    assert "no IP-TFS" in policy(a, "b/1")["last_error"]
