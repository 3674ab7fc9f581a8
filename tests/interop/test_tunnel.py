"""One tunnel between two daemon processes: every suite, every way to start, negotiate and end it."""

from __future__ import annotations

import json
import signal
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from support.lab import (
    amend,
    command,
    configure,
    control_socket,
    crosswise,
    events,
    network_state,
    policy,
    spis,
    start,
    status,
    wait,
    within,
)
from support.tunnel import KINDS

from esp.suite import SUITES
from kinkvpn.demo.capture import Capture
from kinkvpn.demo.lab import WIRE, DaemonOptions, Host, Lab, inbound_spis, policies
from kinkvpn.demo.traffic import ping, transfer

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.kdc]

TRANSFERRED = 3_000_000
GRACE_SECONDS = 1.0


def is_crosswise(lab: Lab, versions: str = "46") -> None:
    """Waits until both sides have the same single pair for each policy."""
    a, b = lab.hosts
    wait(lab, b, lambda: crosswise(a, b, versions), f"has not one pair per policy with a: {spis(a)} {spis(b)}")


def captured(lab: Lab, directory: Path, act: Callable[[], None]) -> Counter[str]:
    """KINK messages on the wire while ``act`` runs, by type; nothing but KINK, ESP and ARP may be there."""
    a, b = lab.hosts
    with Capture(a.namespace, WIRE, directory / "wire.pcap") as capture:
        act()
        assert capture.stop() == 0
        traffic = capture.classify({host.site.wire: inbound_spis(status(host)) for host in (a, b)})
    assert not traffic.leaks
    return traffic.kink


@pytest.mark.parametrize("suite", KINDS)
def test_every_kind_of_suite_carries_both_families(lab: Lab, suite: str) -> None:
    a, b = configure(lab, DaemonOptions(suites=(suite,)))
    for host in (a, b) if SUITES[suite].legacy else ():
        amend(host, "[peer]", legacy=True)
    start(lab)
    for version in (4, 6):
        ping(a, b, version)
        ping(b, a, version)
    assert transfer(a, b, TRANSFERRED, lambda _: None).octets == TRANSFERRED
    is_crosswise(lab)
    assert {one["suite"] for host in lab.hosts for one in policies(status(host))} == {suite}
    assert [len(events(host, "legacy_suite")) for host in (a, b)] == [SUITES[suite].legacy] * 2


def test_on_demand_the_first_packet_arrives(lab: Lab, directory: Path) -> None:
    """Ping of five loses none: those that asked for the SA waited for it. 2-way: CREATE and REPLY, nothing else."""
    a, b = lab.hosts
    start(lab)
    assert not inbound_spis(status(a))
    kink = captured(lab, directory, lambda: ping(a, b, 4) and None)
    assert kink == {"CREATE": 1, "REPLY": 1}
    is_crosswise(lab, "4")
    assert policy(a, "b/1")["packets_out"] == policy(b, "a/1")["packets_in"] == 5
    assert status(a)["counters"]["drops"] == status(b)["counters"]["drops"] == {}
    assert list(lab.realm.directory.glob("krb5_*.rcache2")), "the replay cache is the host's, not the realm's"


def test_boot_from_both_ends_at_once_ends_with_one_pair(lab: Lab) -> None:
    """The wire comes up after both have sent their CREATE: their retransmissions cross, and both are answered."""
    a, b = configure(lab, DaemonOptions(start="boot"))
    for host in (a, b):
        amend(host, "[peer]", delete_grace=GRACE_SECONDS)
    a.namespace.ip(f"link set dev {WIRE} down")
    try:
        start(lab)
        for host in (a, b):
            wait(lab, host, lambda host=host: sent_twice(host), "does not retransmit its CREATE")
    finally:
        a.namespace.ip(f"link set dev {WIRE} up")
    for host in (a, b):
        wait(lab, host, lambda host=host: len(initiated(host)) == 2, "got no answer to its CREATE")
    is_crosswise(lab)
    settled = spis(a)
    for version in (4, 6):
        ping(a, b, version)
        ping(b, a, version)
    assert spis(a) == settled
    assert crosswise(a, b)


def sent_twice(host: Host) -> bool:
    kink = status(host)["counters"]["kink"]
    return kink.get("commands_sent", 0) == 1 and kink.get("commands_retransmitted", 0) >= 1


def initiated(host: Host) -> list[str]:
    return [line for line in events(host, "sa_established") if "role=initiator" in line]


def test_responder_nonce_makes_it_three_way(lab: Lab, directory: Path) -> None:
    _a, b = lab.hosts
    amend(b, "[peer]", responder_nonce=True)
    start(lab)
    kink = captured(lab, directory, lambda: both_ways(lab))
    assert kink == {"CREATE": 1, "REPLY": 1, "ACK": 1}
    assert policy(b, "a/1")["role"] == "responder"


def test_first_suite_not_accepted_takes_the_second(lab: Lab, directory: Path) -> None:
    """The optimistic SA was keyed for another transform: it is replaced, and nothing is lost over it."""
    a, b = lab.hosts
    amend(a, "[peer]", suites=["aes256-gcm16", "aes128-cbc-sha256"])
    amend(b, "[peer]", suites=["aes128-cbc-sha256"])
    start(lab)
    kink = captured(lab, directory, lambda: both_ways(lab))
    assert kink == {"CREATE": 1, "REPLY": 1, "ACK": 1}
    assert policy(a, "b/1")["suite"] == policy(b, "a/1")["suite"] == "aes128-cbc-sha256"


def both_ways(lab: Lab) -> None:
    a, b = lab.hosts
    ping(a, b, 4)
    ping(b, a, 4)
    is_crosswise(lab, "4")


def test_no_suite_in_common_is_told_on_both_sides(lab: Lab) -> None:
    a, b = lab.hosts
    amend(a, "[peer]", suites=["aes256-gcm16"])
    amend(b, "[peer]", suites=["aes128-cbc-sha256"])
    start(lab)
    a.namespace.spawn(["ping", "-c1", "-W1", b.site.inner_address(4)]).wait()
    wait(lab, a, lambda: policy(a, "b/1")["failures"] >= 1, "has not failed")
    assert "NO-PROPOSAL-CHOSEN" in policy(a, "b/1")["last_error"]
    refused, *_ = events(b, "command_refused")  # of the first try; on a busy machine there have been others
    assert a.principal in refused
    assert "aes128-cbc-sha256" in refused, "which suites would do"
    assert not spis(a)
    assert not spis(b)


# What the operator sees and does.


def test_status_as_text_and_as_json_agree(lab: Lab) -> None:
    a, b = lab.hosts
    start(lab)
    ping(a, b, 4)
    shown, answer = command(a, "status"), command(a, "status", "--json")
    assert shown.returncode == answer.returncode == 0
    assert shown.stderr == answer.stderr == ""
    found = json.loads(answer.stdout)
    four, six = policies(found)
    assert (four["state"], six["state"]) == ("established", "down")
    assert f"pid {a.pid}," in shown.stdout
    lines = [line.split() for line in shown.stdout.splitlines()]
    (pair,) = [words for words in lines if words[:2] == [four["name"], four["spi_in"]]]
    assert pair[2] == four["spi_out"]
    assert f"{four['create_ms']:.1f} ms {four['suite']} with ESN" in " ".join(pair)
    for word in (found["principal"], b.principal, *found["tun"]["addresses"], *found["listeners"]["esp"]):
        assert word in shown.stdout
    (row,) = [line for line in shown.stdout.splitlines() if line.split()[:2] == [four["name"], "established"]]
    assert f"{four['packets_in']} (" in row
    assert row.endswith(f"{four['local']} > {four['remote']}")
    assert [six["name"], "idle"] in [words[:2] for words in lines], "down, and nobody has asked for it yet"


def test_status_probe_asks_the_peer(lab: Lab, directory: Path) -> None:
    a, b = lab.hosts
    start(lab)
    kink = captured(lab, directory, lambda: probed(a))
    assert kink == {"STATUS": 1, "REPLY": 1}
    b.stop()
    dead = command(a, "status", "--probe")
    assert dead.returncode == 1
    assert "no answer within 10 s" in dead.stdout


def probed(host: Host) -> None:
    done = command(host, "status", "--probe", "--json")
    assert done.returncode == 0, done.stdout
    assert 0 < json.loads(done.stdout)["probes"]["b"]["seconds"] < 5


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, "down"], ids=["SIGTERM", "SIGINT", "down"])
def test_the_end_is_orderly(lab: Lab, directory: Path, how: signal.Signals | str) -> None:
    """Exit 0, and soon; DELETE told to the peer, whose SAs are gone after the grace; the host as it was."""
    a, b = lab.hosts
    amend(b, "[peer]", delete_grace=GRACE_SECONDS)
    before = network_state(a)
    start(lab)
    for version in (4, 6):
        ping(a, b, version)
    is_crosswise(lab)
    spi, _ = spis(b)["4"]
    during = network_state(a)
    assert all(word in during for word in ("kink0", "10.1.0.1", "fd00:1::1", "10.2.0.0/24", "fd00:2::/64"))
    with ExitStack() as capturing:
        capture = capturing.enter_context(Capture(b.namespace, WIRE, directory / "wire.pcap"))
        known = {host.site.wire: inbound_spis(status(host)) for host in (a, b)}
        end(a, how)
        assert capture.stop() == 0
        assert capture.classify(known).kink == {"DELETE": 1, "REPLY": 1}, "both pairs in one"
    assert network_state(a) == before
    assert not control_socket(a).exists()
    assert [one["pairs"] for one in policies(status(b))] == [0, 0]
    with within(a.namespace, lambda: socket.socket(type=socket.SOCK_DGRAM)) as source:
        wait(lab, b, lambda: inbound_removed(b, spi, source), "still has the inbound SA")
    assert status(b)["counters"]["drops"].keys() <= {"unknown_spi", "authentication_failed", "too_old"}


def end(host: Host, how: signal.Signals | str) -> None:
    """Ends the daemon. It has to exit with 0."""
    if isinstance(how, signal.Signals):
        host.stop(how)
        return
    done = command(host, how)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    host.stop(None)


def inbound_removed(host: Host, spi: str, source: socket.socket) -> bool:
    """Whether the daemon no longer knows the SPI; while it does, a forged packet falls to its ICV."""
    drops = status(host)["counters"]["drops"]
    source.sendto(int(spi, 16).to_bytes(4, "big") + (1 << 20).to_bytes(4, "big") + bytes(64), (host.site.wire, 4500))
    return drops != status(host)["counters"]["drops"] and bool(drops.get("unknown_spi"))
