"""The kill switch: nothing in the clear before, between and after SAs, by every packet that crossed the wire."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest
from support.lab import amend, command, events, policy, start, status, wait

from kinkvpn.demo.capture import CANARY, ESP_PORT, KINK_PORT, Capture
from kinkvpn.demo.lab import KDC_ADDRESS, KDC_PORT, WIRE, Lab, inbound_spis, policies
from kinkvpn.demo.realm import Realm

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from kinkvpn.demo.lab import Host

pytestmark = [pytest.mark.root, pytest.mark.kdc]

PORT = 7777
ELSEWHERE = ("203.0.113.7", "2001:db8::7")  # nobody's, and no policy's
# Of each: to both families, by the routes and, as who wants out whatever they say, by the device; a line a round.
SENDER = f"""
import itertools, socket, sys, time
targets = sys.argv[1:]
for number in itertools.count(1):
    for target in targets:
        for device in (b"", b"{WIRE}"):
            with socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
                try:
                    sender.sendto({CANARY!r} * 4, (target, {PORT}))
                except OSError:
                    pass
    print(number, flush=True)
    time.sleep(0.02)
"""
# Likewise, once, as the daemon would: from its ports, by its account.
PRETENDER = f"""
import socket, sys
for target in sys.argv[1:]:
    for port in ({KINK_PORT}, {ESP_PORT}):
        with socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind(("", port))
            try:
                sender.sendto({CANARY!r} * 4, (target, {PORT}))
            except PermissionError:
                print("kept in")
"""
RECEIVER = f"""
import socket
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as receiver:
    receiver.bind(("::", {PORT}))
    for number in iter(lambda: len(receiver.recv(4096)), 0):
        print(number, flush=True)
"""
ROUNDS = 10  # that are waited for in every phase


class Trial:
    """Host a, which has ways out in the clear, and somebody on it who sends what must not leave by them."""

    def __init__(self, lab: Lab, directory: Path, block: str, *, elsewhere: bool) -> None:
        self.lab, self.directory = lab, directory
        self.a, self.b = lab.hosts
        self.elsewhere = ELSEWHERE if elsewhere else ()
        for host, mine, theirs in ((self.a, 1, 2), (self.b, 2, 1)):
            # A namespace begins as its host is: one that forwards would send back what is for elsewhere.
            host.namespace.run(["sh", "-c", "echo 0 >/proc/sys/net/ipv4/conf/all/forwarding"])
            host.namespace.ip(
                f"address replace fd00:99::{mine}/126 dev {WIRE} nodad",
                f"route replace default via {host.site.wire.rpartition('.')[0]}.{theirs}",
                f"route replace ::/0 via fd00:99::{theirs}",
            )
        text = f'clear = {{ block = "{block}", bypass = ["kdc"] }}\n{self.a.configuration.read_text()}'
        self.a.configuration.write_text(text)
        amend(self.a, "[peer]", probe_after=1.0, dead_after=3.0)
        self.spis: dict[str, set[int]] = {host.site.wire: set() for host in lab.hosts}

    @contextmanager
    def lines(self, host: Host, program: str, *arguments: str) -> Iterator[Path]:
        """A program that writes a line for everything that it does."""
        path = self.directory / f"{host.name}-lines"
        with path.open("w") as output:
            process = host.namespace.spawn([sys.executable, "-c", program, *arguments], stdout=output)
            try:
                yield path
            finally:
                process.kill()
                process.wait()

    def note_spis(self) -> None:
        for host in (self.a, self.b):
            self.spis[host.site.wire] |= inbound_spis(status(host))

    def wait_more(self, path: Path) -> None:
        """Until so many more lines have come."""
        enough = path.read_text().count("\n") + ROUNDS
        wait(self.lab, self.a, lambda: path.read_text().count("\n") >= enough, "or who sends and receives is idle")

    def established(self) -> bool:
        return policy(self.a, "b/1")["state"] == "established" and policy(self.a, "b/2")["state"] == "established"

    def pretend(self, targets: list[str]) -> int:
        """Packets from the daemon's ports that the filter has kept in."""
        return self.a.namespace.run([sys.executable, "-c", PRETENDER, *targets]).count("kept in")

    def leaked(self, capture: Capture) -> list[str]:
        """What the capture has that is neither KINK nor ESP nor of neighbours; nothing of it was lost."""
        assert capture.stop() == 0
        return self.seen(capture)

    def seen(self, capture: Capture) -> list[str]:
        """The same, of what there is: while somebody sends there is always a last packet that is not."""
        capture.stop()
        return capture.classify({where: frozenset(spis) for where, spis in self.spis.items()}).leaks


def start_callee_first(lab: Lab) -> None:
    """Host b is there when a calls: else it would say by ICMP that it is not."""
    for host in reversed(lab.hosts):
        start(lab, host)


@pytest.fixture(autouse=True)
def nothing_is_left_of_it(lab: Lab) -> Iterator[None]:
    """A test that fails does not have the next one kept in."""
    yield
    lab.hosts[0].namespace.run(["nft", "flush", "ruleset"])


@pytest.mark.parametrize("block", ["protected", "everything"])
def test_nothing_leaves_in_the_clear_whatever_happens(lab: Lab, directory: Path, block: str) -> None:
    """Before a daemon, with SAs, after kill -9, started again, peer and KDC gone, after SIGTERM; then it is let out."""
    trial = Trial(lab, directory, block, elsewhere=block == "everything")
    a, b = trial.a, trial.b
    targets = [*(b.site.inner_address(version) for version in (4, 6)), *trial.elsewhere]
    assert command(a, "block").returncode == 0
    with (
        Capture(a.namespace, WIRE, directory / f"{block}.pcap") as capture,
        trial.lines(a, SENDER, *targets) as sent,
        trial.lines(b, RECEIVER) as received,
        ExitStack() as undone,
    ):
        trial.wait_more(sent)  # before
        assert trial.pretend(targets) == 2 * len(targets)
        start_callee_first(lab)
        wait(lab, a, trial.established, "establishes nothing")
        trial.wait_more(received)
        trial.note_spis()
        a.kill()  # a crash
        trial.wait_more(sent)
        start(lab, a)
        wait(lab, a, trial.established, "establishes nothing")
        trial.note_spis()
        undone.callback(lab.realm.start)
        lab.realm.stop()
        assert b.pid is not None
        os.kill(b.pid, signal.SIGSTOP)
        wait(lab, a, lambda: bool(events(a, "peer_dead")), "does not find that its peer has died")
        trial.wait_more(sent)
        a.stop()
        trial.wait_more(sent)
        assert events(a, "kill_switch_stays")
        assert trial.pretend(targets) == 2 * len(targets)
        assert trial.leaked(capture) == []
        assert command(a, "unblock").returncode == 0
        with Capture(a.namespace, WIRE, directory / f"{block}-out.pcap") as after:
            trial.wait_more(sent)
            assert any("protocol 17" in leak or "plaintext" in leak for leak in trial.seen(after))
    os.kill(b.pid, signal.SIGCONT)


SHORT = 6  # seconds that a ticket lasts
LIFETIME = 10  # and a pair of SAs: the least there is


def test_nothing_leaves_when_tickets_and_sas_have_run_out_and_no_kdc_is_there(directory: Path) -> None:
    """A rekey that fails for want of a ticket: the last SA ends, and its packets wait or are dropped."""
    place = directory / "short"
    place.mkdir()

    def realms(directory: Path, prefix: Sequence[str]) -> list[Realm]:
        return [Realm(directory / "realm", KDC_PORT, addresses=(KDC_ADDRESS,), max_life=SHORT, prefix=prefix)]

    with Lab(place, realms=realms) as lab:
        lab.start_realm()
        lab.start_hosts()
        trial = Trial(lab, place, "everything", elsewhere=True)
        a, b = lab.hosts
        for host in lab.hosts:
            amend(host, "[peer]", lifetime=LIFETIME)
        targets = [*(b.site.inner_address(version) for version in (4, 6)), *trial.elsewhere]
        start_callee_first(lab)
        with Capture(a.namespace, WIRE, place / "short.pcap") as capture, trial.lines(a, SENDER, *targets) as sent:
            wait(lab, a, trial.established, "establishes nothing")
            lab.realm.stop()

            def over() -> bool:
                trial.note_spis()  # a ticket that has not ended yet makes one pair more
                return all(not each["spi_out"] for each in policies(status(a)))

            wait(lab, a, over, "still has SAs", 6 * LIFETIME)
            assert events(a, "sa_expired")
            wait(lab, a, lambda: any("KDC" in line for line in events(a, "create_failed")), "does not say why")
            trial.wait_more(sent)
            assert trial.leaked(capture) == []


def test_down_lets_it_out_and_who_has_no_kill_switch_any_more_has_none(lab: Lab, directory: Path) -> None:
    trial = Trial(lab, directory, "protected", elsewhere=False)
    a = trial.a
    start(lab)
    assert "table inet kinkvpn_kink0" in a.namespace.run(["nft", "list", "tables"])
    refused = command(a, "block")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == (
        "kinkvpn: the daemon is running, and keeps it in: kinkvpn reload has it take over clear.block\n"
    )
    assert rules(a, "skuid"), "what the daemon sends passes"
    text = a.configuration.read_text()
    a.configuration.write_text(text.replace('block = "protected"', 'block = "everything"'))
    assert command(a, "reload").returncode == 0
    assert rules(a, "counter packets")[-1].startswith("counter packets")
    a.configuration.write_text(text)
    assert command(a, "reload").returncode == 0
    assert rules(a, "counter packets")[-1].startswith("ip6 daddr")
    assert command(a, "down").returncode == 0
    assert a.namespace.run(["nft", "list", "tables"]) == ""
    assert command(a, "block").returncode == command(a, "block").returncode == 0
    a.configuration.write_text(a.configuration.read_text().replace('block = "protected"', 'block = "nothing"'))
    a.kill()
    start(lab, a)
    assert a.namespace.run(["nft", "list", "tables"]) == ""
    assert events(a, "kill_switch_off")


def rules(host: Host, having: str) -> list[str]:
    """Of the kill switch, those that have this."""
    listed = host.namespace.run(["nft", "list", "table", "inet", "kinkvpn_kink0"])
    return [line.strip() for line in listed.splitlines() if having in line]


def test_the_lan_is_met_in_the_clear_by_one_line(lab: Lab, directory: Path) -> None:
    """Everything is protected but the subnets that the host is in, and the KDC; another one behind a router is not."""
    a, b = lab.hosts
    text = a.configuration.read_text()
    for version in ("4", "6"):
        inner = str(next(subnet for subnet in b.site.subnets if str(subnet.version) == version))
        text = text.replace(f'"{inner}"', '"0.0.0.0/0"' if version == "4" else '"::/0"')
    a.configuration.write_text(f'clear.bypass = ["lan", "kdc"]\nclear.block = "everything"\n{text}')
    b.namespace.ip("address add 192.168.77.1/24 dev lo")
    a.namespace.ip(f"route replace 192.168.77.0/24 dev {WIRE}", f"route replace 172.31.0.0/16 via {b.site.wire}")
    b.namespace.ip("address add 172.31.0.1/16 dev lo")
    start(lab, a)
    for near in (b.site.wire, "192.168.77.1"):
        a.namespace.run(["ping", "-n", "-c", "1", "-W", "20", near])
    rules = a.namespace.run(["ip", "rule"])
    assert "to 192.168.77.0/24" in rules
    assert "172.31" not in rules
    way = a.namespace.run(["ip", "route", "get", "172.31.0.1"])
    assert "dev kink0" in way
    assert directory.exists()


ONCE = """
import socket, sys
for target in sys.argv[1].split():
    for port in map(int, sys.argv[2:]):
        with socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_DGRAM) as sender:
            try:
                sender.sendto(b"who is it", (target, port))
            except OSError:
                pass
"""


@pytest.mark.parametrize(("bypass", "leave"), [(["kdc"], {88, 464}), (["kdc", "dns"], {53, 88, 464})], ids=str)
def test_kdc_and_dns_leave_as_configured_and_nothing_else(
    lab: Lab, directory: Path, bypass: list[str], leave: set[int]
) -> None:
    """Everything is protected and everything else is blocked: of both families, before a daemon and with one."""
    trial = Trial(lab, directory, "everything", elsewhere=True)
    a, b = trial.a, trial.b
    text = a.configuration.read_text().replace('bypass = ["kdc"]', f"bypass = {json.dumps(bypass)}")
    for subnet in b.site.subnets:
        text = text.replace(f'"{subnet}"', '"0.0.0.0/0"' if subnet.version == 4 else '"::/0"')
    a.configuration.write_text(text)
    for router in (b.site.wire, "fd00:99::2"):  # met while it may be: what is sent once does not wait for neighbours
        a.namespace.run(["ping", "-n", "-c", "1", "-W", "20", router])
    assert command(a, "block").returncode == 0
    for phase in ("before", "with a daemon"):
        if phase != "before":
            start(lab, a)
        with Capture(a.namespace, WIRE, directory / "exempt.pcap") as capture:
            a.namespace.run([sys.executable, "-c", ONCE, " ".join(trial.elsewhere), "53", "88", "464", str(PORT)])
            leaked = trial.leaked(capture)
        ports = [int(port) for leak in leaked for port in re.findall(r"port \d+ > (\d+)$", leak)]
        assert sorted(ports) == sorted([*leave, *leave]), (phase, leaked)
    assert command(a, "down").returncode == 0
