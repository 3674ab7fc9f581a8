"""Peers that die, stop and only listen, as processes on a real wire (RFC 4430 §3.7)."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from support.lab import amend, crosswise, events, pinging, policy, spis, start, status, wait, within

from esp.link import ESP_PORT
from kinkvpn.demo.traffic import ping
from kinkvpn.service.transport import KINK_PORT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kinkvpn.demo.lab import Host, Lab

pytestmark = [pytest.mark.root, pytest.mark.kdc]

PROBE_AFTER = 1.0
DEAD_AFTER = 3.0
ONE_WAY_SECONDS = 5.0
FORGED_SECONDS = 3.0


def established(lab: Lab, dead_after: float = DEAD_AFTER) -> tuple[Host, Host]:
    a, b = lab.hosts
    for host in (a, b):
        amend(host, "[peer]", probe_after=PROBE_AFTER, dead_after=dead_after)
    start(lab)
    ping(a, b, 4)
    return a, b


def probes(host: Host) -> int:
    return int(status(host)["counters"]["kink"].get("peers_probed", 0))


@contextmanager
def calling(source: Host, target: Host) -> Iterator[None]:
    """Ping ten times a second, whatever comes back."""
    process = source.namespace.spawn(
        ["ping", "-n", "-i", "0.1", target.site.inner_address(4)], stdout=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def test_a_killed_peer_is_found_dead_and_met_again(lab: Lab) -> None:
    """SIGKILL while traffic flows; the kernel of the peer's host drops what comes, so that ICMP gives no hint."""
    a, b = established(lab)
    b.namespace.run(["ip", "route", "add", "unreachable", a.site.wire])
    with calling(a, b):
        killed = time.monotonic()
        b.kill()
        wait(lab, a, lambda: bool(events(a, "peer_dead")), "does not find its peer dead", PROBE_AFTER + DEAD_AFTER + 5)
        took = time.monotonic() - killed
        assert not spis(a)
        assert "the peer is dead: no answer in 3.0 s" in policy(a, "b/1")["last_error"]
        b.namespace.run(["ip", "route", "del", "unreachable", a.site.wire])
        start(lab, b)
        wait(lab, a, lambda: crosswise(a, b, "4"), "has no pair with the peer that is back", 30)
    ping(a, b, 4)
    assert took >= PROBE_AFTER + DEAD_AFTER
    assert len(events(a, "peer_dead")) == 1
    print(f"found dead {took:.1f} s after SIGKILL")


def test_a_stopped_peer_that_goes_on_in_time_loses_nothing(lab: Lab) -> None:
    """SIGSTOP for longer than the suspicion, for less than the verdict: the probe's retransmission is answered."""
    a, b = established(lab, dead_after=15.0)
    before = spis(a)
    assert b.pid is not None
    with calling(a, b):
        os.kill(b.pid, signal.SIGSTOP)
        try:
            wait(lab, a, lambda: probes(a) == 1, "does not ask its silent peer", PROBE_AFTER + 5)
            heard = status(a)["counters"]["kink"]["replies_received"]
        finally:
            os.kill(b.pid, signal.SIGCONT)
        wait(lab, a, lambda: status(a)["counters"]["kink"]["replies_received"] > heard, "got no answer", 10)
    assert spis(a) == before
    assert not events(a, "peer_dead") + events(a, "status_failed")


def test_traffic_that_flows_one_way_ends_nothing(lab: Lab) -> None:
    a, b = established(lab)
    before = spis(a)
    there = b.site.inner_address(4)
    with (
        within(a.namespace, lambda: socket.socket(type=socket.SOCK_DGRAM)) as source,
        within(b.namespace, lambda: socket.socket(type=socket.SOCK_DGRAM)) as target,
    ):
        target.bind((there, 5140))
        target.settimeout(30)
        ends = time.monotonic() + ONE_WAY_SECONDS
        sent = 0
        while time.monotonic() < ends:
            source.sendto(b"line %d" % sent, (there, 5140))
            assert target.recv(100) == b"line %d" % sent
            sent += 1
            time.sleep(0.05)
    assert spis(a) == before
    assert 2 <= probes(a) <= ONE_WAY_SECONDS / PROBE_AFTER
    assert probes(b) == 0
    assert not events(a, "peer_dead") + events(a, "status_failed")
    assert status(b)["counters"]["drops"] == {}


def test_forged_icmp_brings_about_a_probe_and_nothing_else(lab: Lab) -> None:
    """Port and host unreachable about ESP and KINK, from whoever can guess four numbers, while traffic flows."""
    a, b = established(lab)
    before = spis(a)
    with within(b.namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)) as forger:
        with pinging(a, b) as lost:
            ends = time.monotonic() + FORGED_SECONDS
            while time.monotonic() < ends:
                for port in (KINK_PORT, ESP_PORT):
                    for code in (1, 3):
                        forger.sendto(unreachable(a.site.wire, b.site.wire, port, code), (a.site.wire, 0))
                time.sleep(0.002)
        assert lost == [0]
    found = status(a)
    assert found["counters"]["link"]["refused"] > 100, "they were heard"
    assert spis(a) == before
    assert probes(a) == 1
    assert found["counters"]["drops"] == {}
    assert not events(a, "peer_dead") + events(a, "status_failed") + events(a, "create_failed")


def unreachable(sender: str, target: str, port: int, code: int) -> bytes:
    """An ICMP message (RFC 792, type 3) about a UDP datagram from ``sender`` to ``target``, between equal ports."""
    quoted = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 36, 1, 0, 64, 17, 0, socket.inet_aton(sender), socket.inet_aton(target)
    )
    message = struct.pack("!BBHI", 3, code, 0, 0) + quoted + struct.pack("!HHHH", port, port, 16, 0)
    total = sum(struct.unpack(f"!{len(message) // 2}H", message))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~(total + (total >> 16)) & 0xFFFF
    return message[:2] + checksum.to_bytes(2, "big") + message[4:]


def test_a_killed_daemon_on_a_living_host_is_suspected_at_once(lab: Lab) -> None:
    """Its kernel says that nobody has the port: true this time, and the probe still decides."""
    a, b = lab.hosts
    for host in (a, b):
        amend(host, "[peer]", probe_after=600, dead_after=2.0)
    start(lab)
    ping(a, b, 4)
    b.kill()
    with calling(a, b):
        wait(lab, a, lambda: bool(events(a, "peer_dead")), "does not find its peer dead", 10)
    assert not spis(a)
