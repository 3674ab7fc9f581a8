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
from dataclasses import dataclass, replace
from ipaddress import ip_network
from itertools import product
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from support.guest import Guest, missing
from support.linux_peer import ESP_PORT, Addresses, Counts, LinuxPeer
from support.namespaces import open_tap, within
from support.packets import Reassembly, echo
from support.tunnel import twin

from esp.ah import AH, presented
from esp.datagram import Incoming, Outgoing
from esp.engine import Engine
from esp.errors import DropReason
from esp.policy import Policy, Selector
from esp.sa import Encapsulation, Endpoint, Mode, SaParameters, SecurityProtocol
from esp.suite import SUITES, Cipher
from kinkvpn.demo.namespace import Namespace
from kinkvpn.manual.pair import Pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# Root installs the kernel and boots nothing with it; the mark keeps what runs without root below a minute. Debian has
# User Mode Linux for x86 alone: elsewhere it cannot be installed, and what is missing is the reason that is printed.
pytestmark = [pytest.mark.root, pytest.mark.skipif(bool(missing()), reason=missing() or "-")]  # for x86 alone

WINDOW = 4
# Octets behind the header of an echo request: for every pair of SAs nothing at all, each padding that there is in
# blocks of 4, and fragments; others are shared out among the pairs of a suite, with all about the most the wire takes.
SIZES = (0, 1, 2, 3, 57, 1400, 3000)
SHARED_SIZES = (*range(4, 36), 255, 256, *range(1368, 1400), 1440, 1452, 1472, 1473, 1500, 9000, 60_000)
# Extended numbers leave their first 2^32 behind before the fourth packet.
UNDER_WAY = 64
EXTENDED_START = 2**32 - 3


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


def cases(
    suite: str, first: int, protocol: SecurityProtocol = SecurityProtocol.ESP, modes: Sequence[Mode] = tuple(Mode)
) -> list[Case]:
    """Every shape that there is, each as a pair of its own, numbered from ``first``."""
    encapsulations = Encapsulation if protocol is SecurityProtocol.ESP else (Encapsulation.RAW,)
    families = {Mode.TUNNEL: ((4, 4), (4, 6), (6, 4), (6, 6)), Mode.TRANSPORT: ((4, 4), (6, 6))}
    shapes = [
        (mode, encapsulation, esn, outer, inner)
        for mode, encapsulation, esn in product(modes, encapsulations, (False, True))
        for outer, inner in families[mode]
    ]
    return [make_case(number, suite, *shape, protocol=protocol) for number, shape in enumerate(shapes, first)]


def make_case(
    number: int, suite: str, mode: Mode, encapsulation: Encapsulation, esn: bool, outer: int, inner: int, **more: Any
) -> Case:
    addresses = Addresses(number, outer, inner)
    name = f"{suite}-{mode.value}-{encapsulation.value}{'-esn' if esn else ''}-{inner}in{outer}"
    random = Random(name)
    port = ESP_PORT if encapsulation is Encapsulation.UDP else 0
    sa = SaParameters(
        spi=0x10000 + number,
        suite=SUITES[suite],
        keymat=random.randbytes(SUITES[suite].keymat_octets),
        policy=name,
        selector=Selector(*map(ip_network, addresses.ends(mode))),
        remote=Endpoint(addresses.remote, port),
        mode=mode,
        encapsulation=encapsulation,
        replay_window=WINDOW,
        sequence=EXTENDED_START if esn else 0,
        esn=esn,
        legacy=SUITES[suite].legacy,
    )
    sa = replace(sa, **more)
    if sa.protocol is SecurityProtocol.AH:
        sa = replace(sa, local=addresses.local)
    other = replace(sa, spi=0x20000 + number, keymat=random.randbytes(len(sa.keymat)))
    return Case(addresses, Pair(Endpoint(addresses.local, port), sa, other))


class Conversation:
    """Our engine, at work with the kernel on several pairs at once."""

    def __init__(self, peer: LinuxPeer, cases: Sequence[Case], engine: str = "portable") -> None:
        self._peer = peer
        self._engine = twin(engine)(random=Random(1).randbytes)
        self._cases = {case.pair.remote.address: case for case in cases}
        self._reassembly = Reassembly()
        self.sent: defaultdict[str, list[Outgoing]] = defaultdict(list)
        self.received: defaultdict[str, list[Incoming]] = defaultdict(list)
        self.delivered: list[bytes] = []
        self.spoilt: Counter[str] = Counter()
        for case in cases:
            self._engine.add_policy(Policy(case.name, case.pair.outbound.selector))
            self._engine.install_outbound(case.pair.outbound, 0.0)
            self._engine.install_inbound(case.pair.inbound, 0.0)
        assert {sa.engine for sa in self._engine.statistics().sas} == {engine}
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

    def receive(self, packets: int) -> None:
        """Wait until so many have been delivered, of all."""
        self._peer.receive(self.take, lambda: len(self.delivered) >= packets)

    def exchange(self, requests: Sequence[bytes], replies: Sequence[bytes]) -> None:
        """Send ``requests``; every one of ``replies`` comes, and nothing else."""
        first = len(self.delivered)
        for number, request in enumerate(requests, 1):
            self.send(self.protect(request))
            # No more under way than the sockets between us have room for.
            self.receive(first + number - UNDER_WAY)
        self.receive(first + len(replies))
        got, wanted = Counter(map(unnumbered, self.delivered[first:])), Counter(map(unnumbered, replies))
        assert got == wanted, [packet.hex() for packet in (got - wanted)]

    def statistics(self) -> Counts:
        """Of our SAs, but for packets that were forged before they went."""
        sas = self._engine.statistics().sas
        packets = {sa.spi: sa.packets - (0 if sa.inbound else self.spoilt[sa.policy]) for sa in sas}
        return Counts(packets, {sa.spi: Counter(sa.drops) for sa in sas if sa.inbound})


def unnumbered(packet: bytes) -> bytes:
    """Without what a sender chooses freely: identification, DF and so checksum of IPv4; the flow label of IPv6."""
    return packet[:4] + packet[8:10] + packet[12:] if packet[0] >> 4 == 4 else packet[4:]


def question(case: Case, number: int, octets: int, *, reply: bool = False) -> bytes:
    """An echo request through the tunnel, or its answer; ``octets`` behind its header, which are its own."""
    payload = Random(f"{case.name} {octets}").randbytes(octets)
    ends = case.addresses.ends(case.pair.outbound.mode)
    source, destination = reversed(ends) if reply else ends
    return echo(source, destination, number, payload, reply=reply)


@pytest.mark.parametrize("cipher", Cipher, ids=lambda one: one.value)
def test_both_ends_agree(peer: LinuxPeer, cipher: Cipher) -> None:
    """Echo requests of every size come back; replays and forgeries do not, and both sides count them alike."""
    agree(peer, [suite.name for suite in SUITES.values() if suite.cipher is cipher])


def test_both_ends_agree_on_ah(peer: LinuxPeer) -> None:
    """Likewise for packets that are authenticated, outer header and all, and not encrypted."""
    suites = [suite.name for suite in SUITES.values() if suite.cipher is Cipher.NULL]
    agree(peer, suites, SecurityProtocol.AH)


@pytest.mark.parametrize("cipher", Cipher, ids=lambda one: one.value)
def test_both_ends_agree_where_lanes_seal_and_open(peer: LinuxPeer, cipher: Cipher) -> None:
    """The compiled engine, in the mode that is its own; the others are the portable engine's there too."""
    agree(peer, [suite.name for suite in SUITES.values() if suite.cipher is cipher], engine="native")


def agree(
    peer: LinuxPeer,
    suites: Sequence[str],
    protocol: SecurityProtocol = SecurityProtocol.ESP,
    engine: str = "portable",
) -> None:
    modes = (Mode.TUNNEL,) if engine == "native" else tuple(Mode)
    asked: list[tuple[Case, int, int]] = []
    for suite in suites:
        pairs = cases(suite, len(asked), protocol, modes)
        for number, case in enumerate(pairs):
            sizes = [octets for octets in (*SIZES, *SHARED_SIZES[number :: len(pairs)]) if taken(case, octets)]
            asked += [(case, sequence, octets) for sequence, octets in enumerate(sizes)]
    pairs = list(dict.fromkeys(case for case, _, _ in asked))
    talk = Conversation(peer, pairs, engine)
    talk.exchange([question(*one) for one in asked], [question(*one, reply=True) for one in asked])
    for case in pairs:
        attack(talk, case)
    # What comes after all that is answered: neither windows nor keys have suffered, and no other answer is on its way.
    last = [(case, 999, 56) for case in pairs]
    talk.exchange([question(*one) for one in last], [question(*one, reply=True) for one in last])
    assert len(talk.delivered) == len(asked) + len(last)
    ours, theirs = talk.statistics(), peer.statistics()
    assert ours.packets == theirs.packets
    for case in pairs:
        expected = EXPECTED_EXTENDED if case.pair.outbound.esn else EXPECTED
        assert ours.drops[case.pair.inbound.spi] == theirs.drops[case.pair.outbound.spi] == expected, case.name


def taken(case: Case, octets: int) -> bool:
    """Whether Linux takes an echo message of that size.

    As of 6.1 it drops ESP of less than 40 octets in UDP over IPv6 without counting it: xfrm6_udp_encap_rcv compares the
    length of what is behind the IPv6 header with that of the header too. Only transport mode has packets so small.
    """
    sa = case.pair.outbound
    if sa.mode is Mode.TUNNEL or sa.encapsulation is Encapsulation.RAW or case.addresses.outer == 4:
        return True
    suite, text = sa.suite, 8 + octets + 2
    return 8 + suite.iv_octets + text + -text % suite.block_octets + suite.icv_octets >= 40


EXPECTED = Counter({DropReason.REPLAYED: 2, DropReason.TOO_OLD: 1, DropReason.AUTHENTICATION_FAILED: 3})
# A number left of the window is taken for one of the next 2^32 (RFC 4303 appendix A2.2), under which the ICV is wrong.
EXPECTED_EXTENDED = Counter({DropReason.REPLAYED: 2, DropReason.AUTHENTICATION_FAILED: 4})


def attack(talk: Conversation, case: Case) -> None:
    """To both sides: the newest twice again, one left of the window, three forged."""
    newest, oldest = talk.sent[case.name][-1], talk.sent[case.name][0]
    talk.send(newest, newest, oldest, *map(forged, range(3), [talk.protect(question(case, 0, 8)) for _ in range(3)]))
    talk.spoilt[case.name] += 3
    newest, oldest = talk.received[case.name][-1], talk.received[case.name][0]
    for each in (newest, newest, oldest):
        talk.take(each)
    for number in range(3):
        # Ours cannot be kept from arriving: so it is one that has arrived, with another sequence number.
        talk.take(forged(number, newest, sequence=1 << 20))


def forged(number: int, datagram: Outgoing | Incoming, sequence: int | None = None) -> Outgoing | Incoming:
    """With one bit flipped: of the ICV, of the ciphertext, of the sequence number."""
    octets = bytearray(datagram.datagram)
    if isinstance(datagram, Outgoing) and datagram.protocol == AH:
        return datagram._replace(datagram=forged_ah(number, octets, sequence))
    if isinstance(datagram, Incoming) and presented(octets[8:]) == octets:
        whole = presented(forged_ah(number, octets[8:], sequence))
        assert whole is not None
        return datagram._replace(datagram=whole)
    if sequence is not None:
        octets[4:8] = sequence.to_bytes(4)
    octets[(-1, len(octets) // 2, 7)[number]] ^= 1
    return datagram._replace(datagram=bytes(octets))


def forged_ah(number: int, packet: bytearray, sequence: int | None) -> bytes:
    """With one bit flipped: of the payload, of the ICV, of the sequence number."""
    ah = 20 if packet[0] >> 4 == 4 else 40
    if sequence is not None:
        packet[ah + 8 : ah + 12] = sequence.to_bytes(4)
    packet[(-1, ah + 12, ah + 11)[number]] ^= 1
    return bytes(packet)


# The first bits of a word of the kernel's, all of them, one more; more than one word; the most that it has.
WINDOWS = (1, 2, 31, 32, 33, 64, 255, 1024, 4096)
# Linux 6.1 keeps a window as a ring that it enters at the sequence number modulo its size, and takes 32 bits of the
# number for that: over 2^32 packets fall into each other's places unless the size is a power of two (xfrm_replay.c).
EXTENDED_WINDOWS = tuple(window for window in WINDOWS if not window & window - 1)


@pytest.mark.parametrize("esn", [False, True], ids=["32-bit", "64-bit"])
def test_windows_let_the_same_packets_pass(peer: LinuxPeer, esn: bool) -> None:
    """Packets out of order, late and twice: of ours and the kernel's windows each takes those that the other takes."""
    shape = Mode.TUNNEL, Encapsulation.RAW, esn, 4, 4
    start = 2**32 - 40 if esn else 0
    pairs = [
        make_case(number, "aes128-gcm16", *shape, policy=f"{window}", replay_window=window, sequence=start)
        for number, window in enumerate(EXTENDED_WINDOWS if esn else WINDOWS)
    ]
    talk = Conversation(peer, pairs)
    twin = Engine(random=Random(1).randbytes)
    passed: list[bytes] = []
    for case in pairs:
        there = case.pair.turned_about().inbound
        twin.add_policy(Policy(case.name, there.selector))
        twin.install_inbound(there, 0.0)
        for datagram in disordered([talk.protect(question(case, number, 8)) for number in range(300)], int(case.name)):
            passed += twin.unprotect([Incoming(datagram.datagram, case.pair.local)], 0.0)
            talk.send(datagram)
    numbers = Counter(packet[8:] for packet in passed)
    talk.receive(len(passed))
    last = [(case, 999, 56) for case in pairs]
    talk.exchange([question(*one) for one in last], [question(*one, reply=True) for one in last])
    assert len(talk.delivered) == len(passed) + len(last)
    assert max(numbers.values()) == 1
    drops = {sa.spi: Counter(sa.drops) for sa in twin.statistics().sas}
    theirs = peer.statistics().drops
    assert {spi: theirs[spi] for spi in drops} == drops
    assert all(sum(dropped.values()) > 10 for dropped in drops.values())


def disordered(datagrams: list[Outgoing], window: int) -> list[Outgoing]:
    """Each up to one and a half windows late, and every fifth twice; the first one is the first."""
    random = Random(window)
    late = [(number + random.uniform(0, 1.5 * window), each) for number, each in enumerate(datagrams[1:])]
    again = [(when + random.uniform(0, window), each) for when, each in random.sample(late, len(late) // 5)]
    return [datagrams[0], *(each for _, each in sorted(late + again, key=lambda one: one[0]))]


# Whole processes.

# A tunnel in UDP over IPv4, and one without over IPv6.
TUNNELS = """
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

# What the two hosts say to each other, from outside to outside; over 2^32 before a hundred packets.
HOSTS = """
[tun]
name = "kink0"
[[policy]]
name = "hosts"
local = "203.0.113.1/32"
remote = "203.0.113.2/32"
source = "203.0.113.1"
destination = "203.0.113.2"
suite = "chacha20-poly1305"
mode = "transport"
esn = true
[policy.outbound]
spi = 0x1005
sequence = 0xffff_ffb0
keymat = "{}"
[policy.inbound]
spi = 0x1006
keymat = "{}"
""".format(*(Random(number).randbytes(36).hex() for number in (5, 6)))

# Nothing hidden, all of it authentic.
AUTHENTIC = """
[tun]
name = "kink0"
addresses = "10.3.0.1/32"
[[policy]]
name = "authentic"
local = "10.3.0.0/24"
remote = "10.2.0.0/24"
source = "203.0.113.1"
destination = "203.0.113.2"
ipsec = "ah"
suite = "null-sha512"
[policy.outbound]
spi = 0x1007
keymat = "{}"
[policy.inbound]
spi = 0x1008
keymat = "{}"
""".format(*(Random(number).randbytes(64).hex() for number in (7, 8)))

# Takes everything up to the end, and gives it back.
ECHO = """
perl -MSocket=:all -e '
    socket(my $s, PF_INET6, SOCK_STREAM, 0) or die;
    setsockopt($s, SOL_SOCKET, SO_REUSEADDR, 1) or die;
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


@pytest.mark.parametrize(
    ("sas", "addresses"),
    [
        (TUNNELS, ("10.2.0.7", "fd00:2::7")),
        (HOSTS, ("203.0.113.2", "203.0.113.2")),
        (AUTHENTIC, ("10.2.0.7", "10.2.0.8")),
    ],
    ids=["tunnels", "hosts", "ah"],
)
def test_a_process_of_ours_and_the_kernel(
    peer: LinuxPeer, host: Namespace, tmp_path: Path, sas: str, addresses: tuple[str, str]
) -> None:
    """``kinkvpn esp --manual`` at this end, what it prints at the other: ping, and TCP both ways."""
    file = tmp_path / "sas.toml"
    file.touch(mode=0o600)
    file.write_text(sas)
    command = [sys.executable, "-m", "kinkvpn", "esp", "--manual", str(file)]
    printed = subprocess.run([*command, "--print", "xfrm", "--peer"], capture_output=True, text=True, check=True)
    peer.guest.run("ip xfrm state flush\nip xfrm policy flush\n" + printed.stdout + ECHO)
    with (tmp_path / "log").open("w") as log:
        ours = host.spawn([*command, "--json"], stdout=subprocess.PIPE, stderr=log)
    try:
        wait_for(lambda: " started " in (tmp_path / "log").read_text() or ours.poll() is not None)
        for there in addresses:
            host.run(["ping", "-n", "-c3", "-i0.2", "-W10", there], timeout=60)
            assert echoed(host, there) == TRANSFERRED
        wait_for(lambda: carried(ours) == peer.statistics().packets)  # the last words of TCP are on their way yet
        assert min(peer.statistics().packets.values()) > TRANSFERRED // 1500
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
