"""Bit for bit with the ESP of a real Linux kernel: every suite it has, in every shape that both of us have."""

from __future__ import annotations

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
from support.packets import Reassembly, echo

from esp.engine import Engine
from esp.errors import DropReason
from esp.policy import Policy, Selector
from esp.sa import Encapsulation, Endpoint, Mode, SaParameters
from esp.suite import SUITES
from kinkvpn.manual.pair import Pair

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from esp.datagram import Incoming, Outgoing

# Root installs the kernel and boots nothing with it; the mark keeps what runs without root below a minute.
pytestmark = [pytest.mark.root, pytest.mark.skipif(bool(missing()), reason=missing() or "-")]

WINDOW = 64
# Every padding that there is in blocks of 16 and of 4; about the largest that the wire takes; fragments of both kinds.
SIZES = (*range(36), 100, 255, 256, 1000, *range(1380, 1400), 1452, 1472, 1473, 1500, 3000, 9000)


@pytest.fixture(scope="session")
def peer() -> Iterator[LinuxPeer]:
    """One kernel for all."""
    with TemporaryDirectory(prefix="kinkvpn-guest-") as directory, Guest(Path(directory)) as guest:
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
