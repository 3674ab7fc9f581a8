"""Bit for bit with the ESP of a real Linux kernel: every suite it has, in every shape that both of us have."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from ipaddress import ip_network
from itertools import product
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from support.guest import Guest, missing
from support.linux_peer import Addresses, LinuxPeer
from support.namespaces import open_tap, within
from support.packets import Reassembly, echo

from esp.engine import Engine
from esp.errors import DropReason
from esp.policy import Policy, Selector
from esp.sa import Encapsulation, Endpoint, Mode, SaParameters
from esp.suite import SUITES
from kinkvpn.demo.namespace import Namespace
from kinkvpn.manual.pair import Pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from esp.datagram import Incoming, Outgoing

# Root installs the kernel and boots nothing with it; the mark keeps what runs without root below a minute.
pytestmark = [pytest.mark.root, pytest.mark.skipif(bool(missing()), reason=missing() or "-")]

WINDOW = 64
# Every padding that there is in blocks of 16 and of 4; about the largest that the wire takes; fragments of both kinds.
SIZES = (*range(36), 100, 255, 256, 1000, *range(1380, 1400), 1452, 1472, 1473, 1500, 3000, 9000)


@pytest.fixture(scope="module")
def host() -> Iterator[Namespace]:
    """A network of this host with the guest in it, for whole processes."""
    with Namespace("host") as namespace:
        yield namespace


@pytest.fixture(scope="module")
def peer(host: Namespace) -> Iterator[LinuxPeer]:
    """One kernel for all."""
    tap = within(f"/proc/{host.pid}/ns/net", lambda: open_tap("guest"))
    with TemporaryDirectory(prefix="kinkvpn-guest-") as directory, Guest(Path(directory), [tap]) as guest:
        os.close(tap)
        host.ip(
            "link set dev guest addrgenmode none",
            "link set dev guest up",
            "addr add 203.0.113.1/24 dev guest",
            "addr add 2001:db8:113::1/64 dev guest nodad",
        )
        yield LinuxPeer(guest)


@dataclass(frozen=True, slots=True)
class Case:
    """A pair of SAs of one shape, and who talks through it."""

    addresses: Addresses
    pair: Pair

    @property
    def name(self) -> str:
        """Of the policy."""
        return self.pair.outbound.policy


def cases(suite: str, mode: Mode, encapsulation: Encapsulation) -> list[Case]:
    """One for each combination of families."""
    shapes = product((4, 6), (4, 6)) if mode is Mode.TUNNEL else ((4, 4), (6, 6))
    return [
        make_case(Addresses(number, outer, inner), suite, mode, encapsulation)
        for number, (outer, inner) in enumerate(shapes)
    ]


def make_case(addresses: Addresses, suite: str, mode: Mode, encapsulation: Encapsulation) -> Case:
    name = f"{addresses.inner}in{addresses.outer}"
    random = Random(f"{suite} {mode} {encapsulation} {name}")
    port = 4500 if encapsulation is Encapsulation.UDP else 0
    local, remote = Endpoint(addresses.local, port), Endpoint(addresses.remote, port)

    ends = addresses.ends(mode)

    def sa(spi: int) -> SaParameters:
        return SaParameters(
            spi=spi + addresses.number,
            suite=SUITES[suite],
            keymat=random.randbytes(SUITES[suite].keymat_octets),
            policy=name,
            selector=Selector(*map(ip_network, ends)),
            remote=remote,
            mode=mode,
            encapsulation=encapsulation,
            replay_window=WINDOW,
            legacy=SUITES[suite].legacy,
        )

    return Case(addresses, Pair(local, outbound=sa(0x1000), inbound=sa(0x2000)))


class Conversation:
    """Our engine, at work with the kernel on several pairs at once."""

    def __init__(self, peer: LinuxPeer, cases: Sequence[Case]) -> None:
        self._peer = peer
        self._engine = Engine(random=Random(1).randbytes)
        self._cases = {case.pair.remote.address: case for case in cases}
        self._reassembly = Reassembly()
        self.sent: defaultdict[str, list[Outgoing]] = defaultdict(list)
        self.received: defaultdict[str, list[Incoming]] = defaultdict(list)
        self.delivered: list[bytes] = []
        for case in cases:
            self._engine.add_policy(Policy(case.name, case.pair.outbound.selector))
            self._engine.install_outbound(case.pair.outbound, 0.0)
            self._engine.install_inbound(case.pair.inbound, 0.0)
        peer.install(case.pair for case in cases)

    def protect(self, packet: bytes) -> Outgoing:
        """What the engine makes of a packet."""
        (sealed,) = self._engine.protect([packet], 0.0)
        self.sent[self._cases[sealed.remote.address].name].append(sealed)
        return sealed

    def send(self, *datagrams: Outgoing) -> None:
        """Put them on the wire."""
        for each in datagrams:
            pair = self._cases[each.remote.address].pair
            self._peer.send(pair.local, [each], pair.outbound.encapsulation)

    def take(self, incoming: Incoming) -> None:
        """What comes from the wire."""
        self.received[self._cases[incoming.source.address].name].append(incoming)
        for packet in self._engine.unprotect([incoming], 0.0):
            whole = self._reassembly.take(packet)
            if whole is not None:
                self.delivered.append(whole)

    def exchange(self, requests: Sequence[bytes], replies: Sequence[bytes]) -> None:
        """Send ``requests``; every one of ``replies`` comes, and nothing else."""
        first = len(self.delivered)
        for request in requests:
            self.send(self.protect(request))
        self._peer.receive(self.take, lambda: len(self.delivered) - first >= len(replies))
        got, wanted = Counter(map(unnumbered, self.delivered[first:])), Counter(map(unnumbered, replies))
        assert got == wanted, [packet.hex() for packet in (got - wanted)]

    def drops(self) -> dict[str, Counter[DropReason]]:
        """Of our inbound SAs, by policy."""
        return {sa.policy: Counter(sa.drops) for sa in self._engine.statistics().sas if sa.inbound}


def unnumbered(packet: bytes) -> bytes:
    """Without what a sender chooses freely: identification, DF and so checksum of IPv4; the flow label of IPv6."""
    return packet[:4] + packet[8:10] + packet[12:] if packet[0] >> 4 == 4 else packet[4:]


def question(case: Case, number: int, octets: int, *, reply: bool = False) -> bytes:
    """An echo request through the tunnel, or its answer; ``octets`` behind its header, which are its own."""
    payload = Random(f"{case.name} {octets}").randbytes(octets)
    ends = case.addresses.ends(case.pair.outbound.mode)
    source, destination = reversed(ends) if reply else ends
    return echo(source, destination, number, payload, reply=reply)


@pytest.mark.parametrize("encapsulation", Encapsulation, ids=lambda one: one.value)
@pytest.mark.parametrize("mode", Mode, ids=lambda one: one.value)
@pytest.mark.parametrize("suite", SUITES)
def test_both_ends_agree(peer: LinuxPeer, suite: str, mode: Mode, encapsulation: Encapsulation) -> None:
    """Echo requests of every size come back; replays and forgeries do not, and both sides count them alike."""
    pairs = cases(suite, mode, encapsulation)
    talk = Conversation(peer, pairs)
    for case in pairs:
        requests, replies = (
            [question(case, number, octets, reply=reply) for number, octets in enumerate(SIZES)]
            for reply in (False, True)
        )
        talk.exchange(requests, replies)
    for case in pairs:
        attack(talk, case)
    # What comes after all that is answered: neither windows nor keys have suffered, and no other answer is on its way.
    for case in pairs:
        talk.exchange([question(case, 999, 56)], [question(case, 999, 56, reply=True)])
    assert len(talk.delivered) == len(pairs) * (len(SIZES) + 1)
    ours, theirs = talk.drops(), peer.drops()
    for case in pairs:
        assert ours[case.name] == EXPECTED, case.name
        assert theirs[case.pair.outbound.spi] == EXPECTED, case.name


EXPECTED = Counter({DropReason.REPLAYED: 2, DropReason.TOO_OLD: 1, DropReason.AUTHENTICATION_FAILED: 3})


def attack(talk: Conversation, case: Case) -> None:
    """To both sides: the newest twice again, one left of the window, three forged."""
    newest, oldest = talk.sent[case.name][-1], talk.sent[case.name][0]
    talk.send(newest, newest, oldest, *map(forged, range(3), [talk.protect(question(case, 0, 8)) for _ in range(3)]))
    newest, oldest = talk.received[case.name][-1], talk.received[case.name][0]
    for each in (newest, newest, oldest):
        talk.take(each)
    for number in range(3):
        # Ours cannot be kept from arriving: so it is one that has arrived, with another sequence number.
        talk.take(forged(number, newest, sequence=1 << 20))


def forged(number: int, datagram: Outgoing | Incoming, sequence: int | None = None) -> Outgoing | Incoming:
    """With one bit flipped: of the ICV, of the ciphertext, of the sequence number."""
    octets = bytearray(datagram.datagram)
    if sequence is not None:
        octets[4:8] = sequence.to_bytes(4)
    octets[(-1, len(octets) // 2, 7)[number]] ^= 1
    return datagram._replace(datagram=bytes(octets))


# Whole processes.

SAS = """
[tun]
name = "kink0"
addresses = ["10.3.0.1/32", "fd00:3::1/128"]
[[policy]]
name = "four"
local = "10.3.0.0/24"
remote = "10.2.0.0/24"
source = "203.0.113.1"
destination = "203.0.113.2"
suite = "aes256-gcm16"
[policy.outbound]
spi = 0x1001
keymat = "{}"
[policy.inbound]
spi = 0x1002
keymat = "{}"
[[policy]]
name = "six"
local = "fd00:3::/64"
remote = "fd00:2::/64"
source = "2001:db8:113::1"
destination = "2001:db8:113::2"
suite = "aes128-cbc-sha256"
encapsulation = "raw"
[policy.outbound]
spi = 0x1003
keymat = "{}"
[policy.inbound]
spi = 0x1004
keymat = "{}"
""".format(*(Random(number).randbytes(octets).hex() for number, octets in enumerate((36, 36, 48, 48))))

# Takes everything up to the end, and gives it back.
ECHO = """
perl -MSocket=:all -e '
    socket(my $s, PF_INET6, SOCK_STREAM, 0) or die;
    bind($s, pack_sockaddr_in6(7, IN6ADDR_ANY)) or die;
    listen($s, 1) or die;
    fork and exit;
    for (1 .. 2) {
        accept(my $c, $s) or die;
        my $all = do { local $/; <$c> };
        print $c $all;
        close $c;
    }' >/dev/null
"""
TRANSFERRED = 1_000_000


def test_a_process_of_ours_and_the_kernel(peer: LinuxPeer, host: Namespace, tmp_path: Path) -> None:
    """``kinkvpn esp --manual`` at this end, what it prints at the other: ping, and TCP both ways."""
    sas = tmp_path / "sas.toml"
    sas.touch(mode=0o600)
    sas.write_text(SAS)
    command = [sys.executable, "-m", "kinkvpn", "esp", "--manual", str(sas)]
    printed = subprocess.run([*command, "--print", "xfrm", "--peer"], capture_output=True, text=True, check=True)
    peer.guest.run("ip xfrm state flush\nip xfrm policy flush\n" + printed.stdout + ECHO)
    with (tmp_path / "log").open("w") as log:
        ours = host.spawn([*command, "--json"], stdout=subprocess.PIPE, stderr=log)
    try:
        wait_for(lambda: " started " in (tmp_path / "log").read_text() or ours.poll() is not None)
        for there in ("10.2.0.7", "fd00:2::7"):
            host.run(["ping", "-n", "-c3", "-i0.2", "-W10", there], timeout=60)
            assert echoed(host, there) == TRANSFERRED
        wait_for(lambda: carried(ours) == peer.packets())  # the last words of TCP are on their way yet
        assert min(peer.packets().values()) > TRANSFERRED // 1500
        ours.send_signal(signal.SIGINT)
        output, _ = ours.communicate(timeout=60)
    finally:
        ours.kill()
        ours.wait()
        print((tmp_path / "log").read_text())
    assert ours.returncode == 0
    assert json.loads(output)["drops"] == {}


def carried(process: subprocess.Popen[str]) -> dict[int, int]:
    """Packets of each SA by SPI, as it prints them when it is asked."""
    process.send_signal(signal.SIGUSR1)
    assert process.stdout is not None
    return {int(sa["spi"], 16): sa["packets"] for sa in json.loads(process.stdout.readline())["sas"]}


def wait_for(condition: Callable[[], bool]) -> None:
    """Until it holds; an assertion fails if it never does."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def echoed(host: Namespace, address: str) -> int:
    """Octets that come back as they were, through TCP."""
    octets = Random(address).randbytes(TRANSFERRED)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with within(f"/proc/{host.pid}/ns/net", lambda: socket.socket(family)) as stream:
        stream.settimeout(60)
        stream.connect((address, 7))
        stream.sendall(octets)
        stream.shutdown(socket.SHUT_WR)
        back = b"".join(iter(lambda: stream.recv(65536), b""))
    assert back == octets
    return len(back)
